"""The images that builds in a cluster stand on: as a storage that goes into an image, and as an image of their own.

A storage's layers lie as plain files in a layer of the builder's image. An OCI layer knows no deleted file of an inner
storage, so none may be in there: a base image of several layers is made one, and what is left is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.debian import BASE, run
from tools.workshop import ROOT, Image, Workshop
from workflows.builder.foundation import Bases
from workflows.settings import environment_of
from workflows.stores.carried import LIST
from workflows.stores.containers import Containers
from workflows.stores.layout import manifest_of

LEFT_OUT = ("./overlay/*/merged", "./overlay/*/work", "./overlay-containers", "./mounts", "./tmp", "./userns.lock")
"""What a storage makes anew, or needs only where it is written."""


class Store:
    """The base image that the setting ``base_image`` names and the foundation on it, alone in a storage.

    Args:
        workshop: Where images of ours are built.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        settings = workshop.settings
        recipe = [settings.base_image, BASE.path.stem, Bases(settings, _say).recipe(), 1]
        self._key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
        folder = settings.state / f"bases-{self._key}"
        for old in settings.state.glob("bases-*"):
            if old != folder:
                shutil.rmtree(old)
        self._settings = settings.model_copy(update={"state": folder})
        self._containers = Containers(self._settings)
        self.base = self._base()
        self._bases = Bases(self._settings, _say)

    def foundation(self) -> Image:
        """The foundation as a layout, and beside the storage what its layers are called there."""
        image = self._bases.foundation(self.base).image
        made = self._workshop.export("foundation", image, image.rpartition(":")[2], self._containers.base)
        carried = json.dumps({"tag": made.tag, "layers": _layers(made.layout)}, indent=1, sort_keys=True)
        (self._containers.base / LIST).write_text(carried, encoding="ascii")
        return made

    def builder(self, stages: Mapping[str, str]) -> Image:
        """The image of the strangers' half.

        Args:
            stages: Images of what it is made of, by the names that its Dockerfile has for them.
        """
        foundation = self.foundation()
        dockerfile = Path("workflows", "builder", "Dockerfile")
        parts = [
            *map(self._workshop.identify, stages.values()),
            foundation.layout.name,
            (ROOT / dockerfile).read_text(),
        ]
        tag = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        if found := self._workshop.find("builder", tag):
            return found
        context = self._settings.state / f"context-{foundation.layout.name}"
        if not context.exists():
            _check_layers(self._containers.base / "overlay")
            new = context.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            run("tar", "--create", "--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=security.capability",
                *(f"--exclude={pattern}" for pattern in LEFT_OUT), "--file", str(new / "store.tar"),
                "--directory", str(self._containers.base), ".")  # fmt: skip
            new.rename(context)
        image = self._workshop.make("builder", dockerfile, {**stages, "BASE_IMAGE": self.base}, context=context)
        return self._workshop.export("builder", image, tag)

    def _base(self) -> str:
        """The base image's name, once it is in the storage as one layer."""
        command = [sys.executable, str(ROOT / "tools" / "base-image")]
        environment = os.environ | environment_of(self._settings)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        name = done.stdout.split()[-1]
        Bases(self._settings, _say).ensure(name)
        if self._count(name) > 1:
            self._flatten(name)
        return name

    def _count(self, image: str) -> int:
        environment = os.environ | self._containers.environment(self._containers.base)
        command = ["buildah", "inspect", "--type=image", "--format={{len .OCIv1.RootFS.DiffIDs}}", image]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    def _flatten(self, image: str) -> None:
        context = self._settings.state / "flat"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {image}\n", encoding="ascii")
        environment = self._containers.environment(self._containers.base)
        policy = f"--signature-policy={self._containers.policy}"
        run(
            "unshare",
            "--mount",
            "buildah",
            "build",
            policy,
            "--pull-never",
            "--squash",
            f"--tag={image}",
            str(context),
            **environment,
        )
        run("buildah", "rmi", "--prune", **environment)


def _layers(layout: Path) -> dict[str, Any]:
    """By the digest that a layer has as it is laid out: what a registry calls it."""
    manifest = manifest_of(layout)
    configuration = (layout / "blobs").joinpath(*manifest["config"]["digest"].split(":"))
    return dict(zip(json.loads(configuration.read_bytes())["rootfs"]["diff_ids"], manifest["layers"], strict=True))


def _check_layers(overlay: Path) -> None:
    for path in _walk(overlay):
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            raise SystemExit(f"{path} stands for a file of the base image that is deleted: name a base without it.")
        opaque = {"trusted.overlay.opaque", "user.overlay.opaque"}
        if stat.S_ISDIR(status.st_mode) and opaque.intersection(os.listxattr(path)):
            raise SystemExit(f"{path} stands for a folder of the base image that is deleted: name a base without it.")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _say(line: str) -> None:
    print(line, end="", file=sys.stderr, flush=True)
