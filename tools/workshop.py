"""Where the farm's own images are built: a container storage in the cache, whose layers make a second build quick."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.debian import CACHE, run
from workflows.settings import Settings
from workflows.stores.containers import Containers
from workflows.stores.exporter import Exporter
from workflows.stores.layout import REF
from workflows.stores.skopeo import Skopeo

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE", "workflows", "web")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MAX_LAYERS = 60
"""A storage with more begins anew: nobody else cleans it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One of our images, as a layout.

    Args:
        tag: What it gets in a registry: it changes with the content.
        layout: The folder.
        settings: How a registry is spoken to.
    """

    tag: str
    layout: Path
    settings: Settings

    @property
    def size_bytes(self) -> int:
        """What a registry sends of it, at most."""
        return sum(path.stat().st_size for path in (self.layout / "blobs" / "sha256").iterdir())

    def push(self, registry: str, name: str) -> str:
        """Push to a registry; its name there."""
        target = f"{registry}/argosy-{name}:{self.tag}"
        Skopeo(self.settings).copy(f"oci:{self.layout}:{REF}", f"docker://{target}", lambda _: None)
        return target


class Workshop:
    """The storage.

    Args:
        settings: Its state folder, compression and the registry.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.state
        self._containers = Containers(settings)
        self._containers.prepare()
        # What a run that was killed has left.
        self._buildah("rm", "--all")
        if _layers(self._containers.images) > MAX_LAYERS:
            self._buildah("rmi", "--all", "--force")

    def make(
        self,
        name: str,
        dockerfile: Path,
        arguments: Mapping[str, str],
        *,
        target: str = "",
        context: Path | None = None,
    ) -> str:
        """An image in the storage, found or built.

        Args:
            name: What it is called.
            dockerfile: In the checkout.
            arguments: Of the build; empty ones stay the Dockerfile's own.
            target: The stage; empty: the last one.
            context: The files; None: this checkout's.
        """
        given = [f"--build-arg={key}={value}" for key, value in arguments.items() if value]
        local = f"localhost/argosy/{name}:latest"
        self._buildah(
            *("build", f"--signature-policy={self._containers.policy}", "--layers"),
            # Our own lines: nobody's whom we would have to wall off.
            *("--isolation=chroot", "--network=host", f"--tag={local}", f"--file={ROOT / dockerfile}", *given),
            *([f"--target={target}"] if target else []),
            str(context or self._context()),
        )
        return local

    def find(self, name: str, tag: str) -> Image | None:
        """An image that is there as a layout."""
        layout = self._layout(name, tag)
        return Image(tag=f"{VERSION}-{tag}", layout=layout, settings=self.settings) if layout.exists() else None

    def export(self, name: str, image: str, tag: str = "", store: Path | None = None) -> Image:
        """An image of a storage as a layout, which is written where it is not there yet.

        Args:
            name: What it is called.
            image: Its name in the storage.
            tag: What tells it from others of that name; empty: its id.
            store: The storage; None: this one.
        """
        tag = tag or self.identify(image)[:12]
        if found := self.find(name, tag):
            return found
        layout = self._layout(name, tag)
        new = layout.with_name(f"{name}.new")
        shutil.rmtree(new, ignore_errors=True)
        for old in layout.parent.glob(f"{name}-*"):
            # What is in it already is not written again; without compression, blobs are called like layers.
            new.mkdir(exist_ok=True)
            run("cp", "--archive", "--link", str(old / "blobs"), str(new))
            shutil.rmtree(old)
        Exporter(self.settings).export(store or self._containers.images, image, new, lambda _: None)
        new.rename(layout)
        return Image(tag=f"{VERSION}-{tag}", layout=layout, settings=self.settings)

    def binary(self, name: str) -> str:
        """An image that holds nothing but a program of this machine's; empty where there is none."""
        program = shutil.which(name, path=f"{CACHE / 'bin'}{os.pathsep}{os.environ['PATH']}")
        if not program:
            return ""
        image = f"localhost/argosy/{name}:{Path(program).stat().st_mtime_ns}"
        if self.identify(image):
            return image
        context = self.folder / "binary"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        shutil.copyfile(program, context / name)
        (context / name).chmod(0o755)
        run("strip", str(context / name))
        os.utime(context / name, (0, 0))
        (context / "Dockerfile").write_text(f"FROM scratch\nCOPY {name} /{name}\n", encoding="ascii")
        self._buildah(
            "build", f"--signature-policy={self._containers.policy}", "--layers", f"--tag={image}", str(context)
        )
        return image

    def _layout(self, name: str, tag: str) -> Path:
        return self.folder / "layouts" / f"{name}-{tag}-{self.settings.compression}"

    def identify(self, image: str) -> str:
        """An image's id; empty where it is not in the storage."""
        try:
            records = json.loads((self._containers.images / "overlay-images" / "images.json").read_bytes())
        except (OSError, ValueError):
            return ""
        return next((str(record["id"]) for record in records if image in (record.get("names") or ())), "")

    def _context(self) -> Path:
        """What the Dockerfiles copy, with times that do not change: a fresh clone finds its layers again."""
        context = self.folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, context / name)
        for folder, _, files in os.walk(context):
            for path in (Path(folder), *(Path(folder, file) for file in files)):
                path.chmod(0o755 if path.is_dir() else 0o644)
                os.utime(path, (0, 0))
        return context

    def _buildah(self, *arguments: str) -> None:
        # In a mount namespace of its own: what it leaves mounted goes with it.
        run("unshare", "--mount", "buildah", *arguments, **self._containers.environment())


def _layers(store: Path) -> int:
    try:
        return len(json.loads((store / "overlay-layers" / "layers.json").read_bytes()))
    except (OSError, ValueError):
        return 0
