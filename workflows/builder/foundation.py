"""Images that builds stand on: base images, and the *foundation*, a base image with a pinned Jupyter.

A foundation is made of our own lines alone, never of a stranger's, so all repositories may share it: it lies in the
base storage, which builds only read, under a name made of all that went into it. A new
repository starts from there at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import jinja2
import repo2docker.buildpacks
import uv

from workflows.builder.buildah import Buildah
from workflows.builder.seed import lock
from workflows.builder.store import BuildStore
from workflows.errors import BuildError, ConfigError, TransientError
from workflows.settings import Settings
from workflows.stores.containers import Containers
from workflows.stores.files import write_whole

VENV = "/srv/venv"
"""Jupyter's and the repository's packages, in one environment, as with repo2docker: so Jupyter finds its extensions."""

USER, UID = "jovyan", 1000
_FILES = ("jupyter.txt", "uv.toml")
"""What the foundation's Dockerfile copies: Jupyter and all that it needs, each pinned; settings of uv."""

_MARK, _NO_PYTHON = "argosy-python ", "argosy-no-python"
"""What the foundation's Dockerfile prints: the version of its Python, or that there is none."""

_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_TREE = f"""\
FROM scratch
ADD tree.tar /
ENV LC_ALL=en_US.UTF-8 LANG=en_US.UTF-8 LANGUAGE=en_US.UTF-8 \\
    SSL_CERT_FILE={_BUNDLE} REQUESTS_CA_BUNDLE={_BUNDLE} CURL_CA_BUNDLE={_BUNDLE} NODE_EXTRA_CA_CERTS={_BUNDLE}
CMD ["/bin/bash"]
"""
"""The image of a tree by `tools/base-image`: it carries the machine's CA bundle, of which its tools must be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """A base image with Jupyter.

    Args:
        image: Its name in the base storage.
        python: The version of its Python, as ``3.11.2``.
    """

    image: str
    python: str


class Bases:
    """The images that builds stand on, in the base storage.

    Args:
        settings: Folders and limits.
        report: Is handed each line for the log.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._report = report
        self._containers = Containers(settings)
        self._scratch = settings.cache_folder / "base.tmp"

    def ensure(self, image: str) -> str:
        """Make sure that a base image, named by us, is in the base storage.

        Returns:
            Its id, the digest of its configuration.

        Raises:
            ConfigError: There is no such image.
            TransientError: Network or disk.
        """
        self._containers.prepare()
        if found := self._id(image):
            self._note_use(found)
            return found
        with self._lock():
            if not self._id(image):
                self._report(f"Pulling {image} …\n")
                self._pull(image)
        if found := self._id(image):
            return found
        raise ConfigError(detail=f"{image} was pulled and is not there")

    def foundation(self, base: str, python: str = "") -> Foundation:
        """The foundation on a base image; it is built where it is missing.

        Args:
            base: The base image.
            python: The version that it must have, as ``3.12``; empty: the base image's own.

        Raises:
            BuildError: There is no such Python.
            ConfigError: There is no such base image.
            TransientError: Network or disk.
        """
        parts = self._parts(base, python)
        key = hashlib.sha256(json.dumps([self.ensure(base), parts], sort_keys=True).encode()).hexdigest()[:16]
        image = f"localhost/argosy/foundation:{key}"
        if not self._id(image) or not self._python(key):
            with self._lock():
                if not self._id(image) or not self._python(key):
                    self._report("Preparing Jupyter, once for all repositories …\n")
                    found = self._build(image, parts, key, python)
                    write_whole(self._containers.base / f"{key}.json", json.dumps({"python": found}))
        self._note_use(self._id(image))
        return Foundation(image=image, python=self._python(key))

    def load(self, archive: Path, image: str) -> None:
        """Put a tree of files, as a tar file, into the base storage as an image.

        Raises:
            ConfigError: It is none.
            TransientError: The disk does not take it.
        """
        self._containers.prepare()
        with self._lock():
            context = self._scratch / "context"
            shutil.rmtree(context, ignore_errors=True)
            context.mkdir(parents=True)
            if _same_disk(archive, context):
                (context / "tree.tar").hardlink_to(archive)
            else:
                shutil.copyfile(archive, context / "tree.tar")
            (context / "Dockerfile").write_text(_TREE, encoding="ascii")
            for _ in self._buildah("load", context).build(context, context / "Dockerfile", image, ["--layers=false"]):
                pass
            shutil.rmtree(context)

    def has(self, image: str) -> bool:
        """Whether an image is in the base storage."""
        return bool(self._id(image))

    def recipe(self) -> str:
        """What foundations are made of, but the base image, as 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._parts("", ""), sort_keys=True).encode()).hexdigest()[:16]

    def _parts(self, base: str, python: str) -> dict[str, str]:
        folder = resources.files("workflows.builder")
        dockerfile = folder.joinpath("foundation.dockerfile").read_text(encoding="utf-8")
        rendered = jinja2.Template(dockerfile, undefined=jinja2.StrictUndefined).render(  # a Dockerfile
            base=base, python=python or "python3", venv=VENV, user=USER, uid=UID, mark=_MARK, no_python=_NO_PYTHON
        )
        files = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in _FILES}
        return {"Dockerfile": rendered, **files, "uv": version("uv")}

    def _build(self, image: str, parts: dict[str, str], key: str, python: str) -> str:
        context = self._scratch / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        for name in ("Dockerfile", *_FILES):
            (context / name).write_text(parts[name], encoding="utf-8")
        shutil.copy(uv.find_uv_bin(), context / "uv")
        for name in ("python3-login", "repo2docker-entrypoint"):
            shutil.copy(Path(repo2docker.buildpacks.__file__).parent / name, context / name)
        found = ""
        try:
            buildah = self._buildah(f"foundation-{key}", context)
            for line in buildah.build(context, context / "Dockerfile", image, ["--layers=false"]):
                if line.startswith(_MARK):
                    found = line.removeprefix(_MARK).strip()
        except (BuildError, TransientError) as error:
            if python and _NO_PYTHON in error.detail:
                raise BuildError(
                    f"Python {python}, which this repository asks for, cannot be had here.", detail=error.detail
                ) from error
            if isinstance(error, TransientError):
                raise
            raise ConfigError(detail=f"the foundation does not build: {error.detail}") from error
        return found

    def _pull(self, image: str) -> None:
        try:
            for _ in self._buildah("pull").pull(image):
                pass
        except BuildError as error:
            raise ConfigError(
                "The image that this service builds on does not exist.", detail=f"{image}: {error.detail}"
            ) from error

    def _buildah(self, name: str, *readable: Path) -> Buildah:
        self._scratch.mkdir(parents=True, exist_ok=True)
        store = BuildStore(graph=self._containers.base, scratch=self._scratch)
        # A name of this state's own: another Argosy on this machine may do the same at the same time.
        own = hashlib.sha256(str(self._containers.base).encode()).hexdigest()[:8]
        return Buildah(f"{name}-{own}", self._settings, store, readable=readable)

    def _id(self, image: str) -> str:
        """An image's id, as the storages' own indexes have it: quicker than asking a tool, and asked often."""
        for store in self._stores:
            with contextlib.suppress(OSError, ValueError):
                for record in json.loads((store / "overlay-images" / "images.json").read_bytes() or b"[]"):
                    if image in (record.get("names") or ()):
                        return str(record["id"])
        return ""

    def _python(self, key: str) -> str:
        """The Python of a foundation, which is noted beside its storage; empty where none is."""
        for store in self._stores:
            with contextlib.suppress(FileNotFoundError):
                return str(json.loads((store / f"{key}.json").read_bytes())["python"])
        return ""

    @property
    def _stores(self) -> tuple[Path, ...]:
        return (self._containers.base, *self._containers.additional(self._containers.base))

    def _note_use(self, found: str) -> None:
        # By the time of its folder, which nothing else changes, the least recently used base images are found.
        with contextlib.suppress(OSError):
            os.utime(self._containers.base / "overlay-images" / found)

    def _lock(self) -> AbstractContextManager[None]:
        return lock(self._settings.cache_folder / "base.lock")


def _same_disk(path: Path, other: Path) -> bool:
    return path.stat().st_dev == other.stat().st_dev
