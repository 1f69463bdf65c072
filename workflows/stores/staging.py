"""Staging: where the strangers' half of a build hands its image over to ours.

The strangers' half writes (`Staging.put`), ours reads (`Staging.open`) and believes nothing of it: the place follows
from the build's name, and the digest that it finds once is the only thing that it goes by from then on.

Source: OCI image layout specification 1.0, https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from workflows.errors import BuildError, ConfigError, InternalError, TransientError, of_disk
from workflows.image import BuildName, ImageDigest, ImageName, is_build_name, is_digest, split_tag
from workflows.registry.store import Manifest, RegistryStore
from workflows.settings import Settings
from workflows.stores.carried import carried
from workflows.stores.images import image_store
from workflows.stores.layout import REF, absent_layers, read_layout
from workflows.stores.skopeo import Skopeo
from workflows.stores.taking import taken

_logger = logging.getLogger(__name__)

_FOUNDATION = "foundation"
"""The tag of what a build stands on, beside the build's own image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedImage:
    """An image that our half looks at, by digest: a staged one, or one that has its final name already.

    Args:
        digest: Of its manifest.
        skopeo: As skopeo names it.
        name: Its name in the registry, without tag; empty where it is on this machine.
        manifest: What the registry holds under that digest; None where it is on this machine.
    """

    digest: ImageDigest
    skopeo: str
    name: str = ""
    manifest: Manifest | None = None


class Staging:
    """The staging places of builds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def put(self, build: BuildName, layout: Path, report: Callable[[str], None]) -> None:
        """Hand over what is in a layout. A second call after a success that nobody saw does nothing.

        Raises:
            BuildError: There is no usable image in the layout.
            TooLargeError: It is larger than the setting ``max_image_bytes``.
            ConfigError: The registry refuses our credentials.
            TransientError: Network, registry or disk.
        """
        _check(build)
        if self._settings.image_store == "storage" and not layout.exists() and self.folder(build).is_dir():
            return
        if self._settings.image_store == "registry":
            with self._taken(layout) as own:
                read_layout(own, self._settings.max_image_bytes, rename=True)
                absent = absent_layers(own)
                known = carried(self._settings)
                if not absent <= known.digests:
                    missing = f"not there: {absent - known.digests}"
                    raise BuildError("The build left no image that can be used.", detail=missing)
                # Asked first: a registry that is down or busy says so at once, where skopeo tries for minutes.
                RegistryStore(self._settings).digest(self.name(build))
                if absent:
                    self._bring(build, known.image, absent, report)
                Skopeo(self._settings).copy(f"oci:{own}:{REF}", f"docker://{self.name(build)}", report)
        else:
            read_layout(layout, self._settings.max_image_bytes, rename=True)
            _move(layout, self.folder(build))

    def _taken(self, layout: Path) -> AbstractContextManager[Path]:
        # On one machine whoever wrote it has ended, with all that was started there.
        if self._settings.engine != "argo":
            return nullcontext(layout)
        return taken(layout, self._settings.state, self._settings.max_image_bytes)

    def _bring(self, build: BuildName, carrier: str, absent: frozenset[str], report: Callable[[str], None]) -> None:
        """Let the staging place have the layers that a layout leaves out, from the image that has them."""
        source, target = split_tag(ImageName(carrier))[0], split_tag(self.name(build))[0]
        same_registry = source.partition("/")[0] == target.partition("/")[0]
        if not same_registry or not RegistryStore(self._settings).mount(source, sorted(absent), target):
            # It takes as long as the network does, but it goes everywhere.
            Skopeo(self._settings).copy(f"docker://{carrier}", f"docker://{target}:{_FOUNDATION}", report)

    def open(self, build: BuildName) -> StagedImage:
        """The staged image; looked up by its tag here, and by nobody ever after.

        Raises:
            BuildError: There is no usable image in that place.
            TooLargeError: It is larger than the setting ``max_image_bytes``.
            ConfigError: The registry refuses our credentials.
            TransientError: Registry or disk.
        """
        _check(build)
        if self._settings.image_store == "storage":
            folder = self.folder(build)
            digest = read_layout(folder, self._settings.max_image_bytes)
            return StagedImage(digest=digest, skopeo=f"oci:{folder}:{REF}")
        name, tag = split_tag(self.name(build))
        found = RegistryStore(self._settings).manifest(name, tag)
        if found is None:
            raise BuildError("The build left no image.", detail=f"nothing is staged as {self.name(build)}")
        return StagedImage(digest=found.digest, skopeo=f"docker://{name}@{found.digest}", name=name, manifest=found)

    def held(self, image: ImageName, digest: ImageDigest) -> StagedImage:
        """An image that nobody needs to stage, because the image store holds it under its final name.

        Raises:
            InternalError: The digest is none.
            TooLargeError: It is larger than the setting ``max_image_bytes``.
            ConfigError: The registry refuses our credentials.
            TransientError: It is not there any more; registry or disk.
        """
        if not is_digest(digest):
            raise InternalError(detail=f"not a digest: {digest!r}")
        if self._settings.image_store == "storage":
            if image_store(self._settings).digest(image) != digest:
                raise TransientError(detail=f"{image} is not {digest} any more")
            return StagedImage(digest=digest, skopeo=f"containers-storage:{image}")
        name = split_tag(image)[0]
        found = RegistryStore(self._settings).manifest(name, digest)
        if found is None:
            raise TransientError(detail=f"the registry has no {name}@{digest} any more")
        return StagedImage(digest=digest, skopeo=f"docker://{name}@{digest}", name=name, manifest=found)

    @contextmanager
    def layout(self, image: StagedImage, scratch: Path, report: Callable[[str], None]) -> Iterator[Path]:
        """An image as a folder, for tools that are not to speak to a registry by themselves.

        Args:
            image: From `open` or `held`.
            scratch: Where it is put for the time where it is no folder yet; must not exist.
            report: Is handed each line that skopeo prints.

        Raises:
            ConfigError: The registry refuses our credentials.
            TransientError: Network, registry or disk.
        """
        if image.skopeo.startswith("oci:"):
            yield Path(image.skopeo.removeprefix("oci:").removesuffix(f":{REF}"))
            return
        skopeo = Skopeo(self._settings)
        try:
            if image.name:
                skopeo.copy(image.skopeo, f"oci:{scratch}:{REF}", report)
            else:
                skopeo.export(image.skopeo, f"oci:{scratch}:{REF}", None, report)
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def discard(self, build: BuildName) -> None:
        """Clear a build's staging place; nothing happens where it is clear.

        A registry may forbid deletion: its staged tags are then its own retention's work.

        Raises:
            TransientError: The registry cannot be reached or fails.
        """
        _check(build)
        if self._settings.image_store == "registry":
            try:
                RegistryStore(self._settings).remove(self.name(build))
            except ConfigError as error:
                _logger.info("%s stays: %s", self.name(build), error.detail)
        else:
            shutil.rmtree(self.folder(build), ignore_errors=True)

    def folder(self, build: BuildName) -> Path:
        """The staging folder of a build, where images live in this machine's storage."""
        return self._settings.staging_folder / build

    def name(self, build: BuildName) -> ImageName:
        """Name and tag of a build's staged image, where images live in a registry."""
        return ImageName(f"{self._settings.image_prefix}staging/{build}:{REF}")


def _check(build: BuildName) -> None:
    # Before it reaches a path or a reference.
    if not is_build_name(build):
        raise InternalError(detail=f"not a build's name: {build!r}")


def _move(layout: Path, target: Path) -> None:
    """Put a layout in its place so that nobody ever sees half of it there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        try:
            layout.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The workspace is on another file system: copy beside, then rename.
            beside = target.with_name(f".{target.name}.new")
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(layout, beside, symlinks=True)
            beside.rename(target)
            shutil.rmtree(layout, ignore_errors=True)
    except OSError as error:
        raise of_disk(error, f"cannot stage {layout}") from error
