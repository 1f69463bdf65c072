"""The buildpack of uv: Python environments from PyPI alone, in seconds.

`UvLockBuildPack` takes what stock repo2docker does not know, ``uv.lock`` and ``pylock.toml``. `UvBuildPack` takes
``requirements.txt`` and ``pyproject.toml`` too. Both stand last but before repo2docker's own Python buildpack, so
whatever repo2docker prefers to Python (a Dockerfile, conda, R, Julia, Nix, Pipfile) stays preferred.

Source: https://repo2docker.readthedocs.io/en/latest/configuration/ ; https://docs.astral.sh/uv/
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from repo2docker.buildpacks.base import BaseImage
from repo2docker.utils import is_local_pip_requirement, open_guess_encoding

from workflows.builder.foundation import UID, VENV, Bases
from workflows.builder.wheels import Wheels
from workflows.errors import BuildError
from workflows.settings import load

_PYTHONS = ("3.14", "3.13", "3.12", "3.11", "3.10")
"""What may be asked for, newest first: one foundation each is all that strangers can make us build."""
_CACHE = "/var/cache/uv"
_INSTALL = f"pip install --python {VENV}/bin/python"
_SYNC = f"sync --frozen --inexact --python {VENV}/bin/python"
_JUPYTERS_CHECK = "rfc3987-syntax"
"""A format check that no schema of Jupyter's uses; its import takes longer than all of Jupyter's. ``uv.toml`` keeps it
out of what uv resolves, and a lock's is left out where nobody but Jupyter asks for it."""
_REPO_DIR = re.compile(r"/[A-Za-z0-9._/-]{1,200}")


class UvLockBuildPack(BaseImage):  # type: ignore[misc]  # repo2docker has no types
    """Repositories with ``uv.lock`` (beside its ``pyproject.toml``) or ``pylock.toml``."""

    _also: ClassVar[tuple[str, ...]] = ()
    base_image: str

    def detect(self) -> bool:
        """Whether this repository is ours; asked in the repository's folder."""
        name, _, _ = self.runtime
        return name in {None, "python"} and self._kind() is not None

    def python(self, own: str) -> str:
        """The Python version to ask for, as ``3.12``; empty: the base image's own does.

        Args:
            own: Version of the base image's Python, as ``3.11.2``.

        Raises:
            BuildError: The one that the repository asks for cannot be had.
        """
        wanted = self._runtime_version()
        if wanted and len(wanted.release) > 1:
            minor = f"{wanted.major}.{wanted.minor}"
            if Version(own).release[:2] == wanted.release[:2]:
                return ""
            if minor not in _PYTHONS:
                raise BuildError(f"Python {minor}, which runtime.txt asks for, cannot be had here.")
            return minor
        required = self._requires_python()
        if required.contains(own, prereleases=True):
            return ""
        for minor in _PYTHONS:
            # A lower bound such as 3.12.3 is met by the newest of its line.
            if required.contains(f"{minor}.99") or required.contains(f"{minor}.0"):
                return minor
        raise BuildError(f"No Python that can be had here is {required}, as pyproject.toml asks.")

    @lru_cache  # noqa: B019  # as repo2docker's own; a buildpack lives as long as its build
    def get_preassemble_script_files(self) -> dict[str, str]:
        """The files that the environment is made of, where it needs no others: so that its layer can be kept."""
        if self._needs_all_files():
            return {}
        names = {"uv": ("uv.lock", "pyproject.toml")}.get(self._kind() or "", (f"{self._kind()}",))
        paths = [self.binder_path(name) for name in names]
        return {path: path for path in paths if Path(path).exists()}

    @lru_cache  # noqa: B019
    def get_preassemble_scripts(self) -> list[tuple[str, str]]:
        """Lines before the repository is copied: apt.txt, and the environment where it needs no other file."""
        scripts = list(super().get_preassemble_scripts())
        return scripts if self._needs_all_files() else scripts + self._installation()

    @lru_cache  # noqa: B019
    def get_assemble_scripts(self) -> list[tuple[str, str]]:
        """Lines after the repository was copied: the environment otherwise, and the repository as a package."""
        scripts = self._installation() if self._needs_all_files() else []
        if self._is_package():
            scripts = [*scripts, self._uv(self._sync() if self._kind() == "uv" else f"{_INSTALL} .")]
        return scripts

    def render(self, build_args: Mapping[str, str] | None = None) -> str:
        """This repository's Dockerfile.

        Raises:
            BuildError: The folder that the repository is to lie in is no plain path.
        """
        repo_dir = (build_args or {}).get("REPO_DIR", "")
        if repo_dir and not _REPO_DIR.fullmatch(repo_dir):
            raise BuildError("The folder that the repository is to lie in must be a plain, absolute path.")
        template = resources.files("workflows.builder").joinpath("uv.dockerfile").read_text(encoding="utf-8")
        rendered: str = jinja2.Template(template, undefined=jinja2.StrictUndefined, trim_blocks=True).render(
            image=self.base_image,
            uid=UID,
            repo_dir=repo_dir,
            files=sorted(self.get_preassemble_script_files()),
            before=self.get_preassemble_scripts(),
            after=self.get_assemble_scripts(),
            labels={name: _quoted(value) for name, value in sorted(self.get_labels().items())},
            post_build=self.get_post_build_scripts(),
            start=self.get_start_script(),
            appendix=self.appendix,
        )
        return rendered

    def build(  # noqa: PLR0917  # repo2docker's signature
        self,
        client: Any,
        image_spec: str,
        memory_limit: int,
        build_args: Mapping[str, str],
        cache_from: list[str],
        extra_build_kwargs: dict[str, Any],
        platform: str | None = None,
    ) -> Iterator[str]:
        """Build on the foundation of the base image, with the shared wheels in sight."""
        settings = load()
        bases = Bases(settings, lambda line: self.log.info(line, extra={"phase": "building"}))
        base = self.base_image
        foundation = bases.foundation(base)
        if python := self.python(foundation.python):
            foundation = bases.foundation(base, python)
        yield f"Python {foundation.python}, uv\n"
        self.base_image = foundation.image
        with Wheels(settings).readable() as wheels:
            kwargs = extra_build_kwargs | {"volumes": {_CACHE: wheels} if wheels else {}}
            # The foundation has user and folder already; buildah warns of what no line asks for.
            asked = {name: value for name, value in build_args.items() if name not in {"NB_USER", "NB_UID"}}
            yield from super().build(client, image_spec, memory_limit, asked, cache_from, kwargs, platform)

    _user: ClassVar[str] = "${NB_USER}"

    def _kind(self) -> str | None:
        """What the environment is made of, the most exact first."""
        if self._has("uv.lock") and self._has("pyproject.toml"):
            return "uv"
        kinds = ("pylock.toml", *self._also)
        return next((name for name in kinds if self._has(name)), None)

    def _installation(self) -> list[tuple[str, str]]:
        kind = self._kind()
        if kind == "uv":
            project = f" --project {self.binder_dir}" if self.binder_dir else ""
            return [self._uv(f"{self._sync()}{project} --no-install-project --no-install-workspace")]
        if kind == "pyproject.toml" and self._is_package():
            return []  # installed with its dependencies, as a package
        return [self._uv(f'{_INSTALL} -r "{self.binder_path(kind)}"')]

    def _sync(self) -> str:
        lock = Path(self.binder_path("uv.lock")).read_bytes()
        return f"{_SYNC} --no-install-package {_JUPYTERS_CHECK}" if _only_jupyter_checks(lock) else _SYNC

    def _uv(self, command: str) -> tuple[str, str]:
        """A line that runs uv. Cache and index are named for it alone: later, visitors install from where they say."""
        settings = load()
        # Without shared wheels nothing is mounted there, and what uv kept would be in the image.
        given = [f"UV_CACHE_DIR={_CACHE}" if settings.wheel_cache else "UV_NO_CACHE=1"]
        given += [f"UV_DEFAULT_INDEX={settings.index_url}"] if settings.index_url else []
        return self._user, f"{' '.join(given)} uv {command}"

    def _needs_all_files(self) -> bool:
        """Whether the environment names files of the repository other than those that it is made of."""
        kind = self._kind()
        if kind == "requirements.txt":
            with open_guess_encoding(self.binder_path(kind)) as file:
                return any(is_local_pip_requirement(line) for line in file)
        tool = self._pyproject().get("tool")
        uv = tool.get("uv") if isinstance(tool, dict) else None
        sources = uv.get("sources") if isinstance(uv, dict) else None
        entries = sources.values() if isinstance(sources, dict) else ()
        local = any(isinstance(entry, dict) and ("path" in entry or "workspace" in entry) for entry in entries)
        return local or (isinstance(uv, dict) and "workspace" in uv)

    def _is_package(self) -> bool:
        """Whether the repository itself is to be installed; never from ``binder/``, as in repo2docker."""
        if self.binder_dir or self._kind() == "pylock.toml":
            return False
        return "build-system" in self._pyproject() or (self._kind() == "requirements.txt" and self._has("setup.py"))

    def _pyproject(self) -> dict[str, Any]:
        path = Path(self.binder_path("pyproject.toml"))
        if not path.exists():
            return {}
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BuildError(f"pyproject.toml cannot be read: {error}") from error

    def _runtime_version(self) -> Version | None:
        name, version, _ = self.runtime
        if name is None or version is None:
            return None
        try:
            return Version(version)
        except InvalidVersion as error:
            raise BuildError(f"runtime.txt asks for Python {version!r}, which is no version.") from error

    def _requires_python(self) -> SpecifierSet:
        project = self._pyproject().get("project")
        text = project.get("requires-python", "") if isinstance(project, dict) else ""
        try:
            return SpecifierSet(str(text))
        except InvalidSpecifier as error:
            raise BuildError(f"pyproject.toml asks for Python {text!r}, which cannot be read.") from error

    def _has(self, name: str) -> bool:
        return Path(self.binder_path(name)).exists()


class UvBuildPack(UvLockBuildPack):
    """Also repositories with ``requirements.txt`` or ``pyproject.toml``: the setting ``fast_python``."""

    _also: ClassVar[tuple[str, ...]] = ("requirements.txt", "pyproject.toml")


def _only_jupyter_checks(lock: bytes) -> bool:
    """Whether nobody in a ``uv.lock`` asks for `_JUPYTERS_CHECK` but jupyter-events, by an extra of jsonschema."""
    askers = set()
    # A lock that cannot be read is uv's to complain of.
    with contextlib.suppress(UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError):
        for package in tomllib.loads(lock.decode())["package"]:
            groups = [package.get(kind, {}).values() for kind in ("optional-dependencies", "dev-dependencies")]
            for asked in chain(package.get("dependencies", ()), *chain(*groups)):
                by_extra = asked["name"] == "jsonschema" and "format-nongpl" in asked.get("extra", ())
                if by_extra or (asked["name"] == _JUPYTERS_CHECK and package["name"] != "jsonschema"):
                    askers.add(package["name"])
    return askers == {"jupyter-events"}


def _quoted(value: str) -> str:
    """As it stands between quotes in a Dockerfile; a label is one line."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "", value)
    return re.sub(r'([\\"$])', r"\\\1", plain)


def with_uv(stock: list[Callable[..., Any]], python: Callable[..., Any], *, fast_python: bool) -> list[Any]:
    """repo2docker's list of buildpacks with ours in front of its own for Python.

    Args:
        stock: repo2docker's list.
        python: The one in front of which ours stands.
        fast_python: Whether ours takes ``requirements.txt`` and ``pyproject.toml`` too.
    """
    place = stock.index(python)
    return [*stock[:place], UvBuildPack if fast_python else UvLockBuildPack, *stock[place:]]
