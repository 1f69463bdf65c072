"""Images that visitors' servers run from: the least recently launched leave first, out of the catalogue before all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from workflows.cleaning import storage
from workflows.cleaning.choice import Limits, Thing
from workflows.cleaning.storage import StoredImage
from workflows.image import ImageName
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue, Entry
from workflows.stores.containers import Containers

_logger = logging.getLogger(__name__)

SETTLE_SECONDS = 5
"""Between the end of an image's entry and its removal. Whoever read the entry before, the Hub above all, has made a
container by then, or at least is seen to be about to."""


class Usage(Protocol):
    """Who works with images."""

    def last_launches(self) -> Mapping[ImageName, float]:
        """When each image was last launched, in seconds since the epoch; who is not in it never was."""
        ...

    def held(self) -> Collection[ImageName]:
        """The images that are being launched or built now."""
        ...


class Images:
    """The images in this machine's storage.

    Where images live in a registry, what is here are copies: they leave without leaving the catalogue, and the
    registry's own retention is not our work yet.

    Args:
        settings: The farm's.
        catalogue: What may start.
        usage: Who works with them.
        sleep: How this thread waits.
        grace_seconds: For how long an image needs no entry in the catalogue.
    """

    name = "images"
    is_hasty = True
    is_spare = True

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        usage: Usage,
        *,
        sleep: Callable[[float], None] = time.sleep,
        grace_seconds: float = Limits().grace_seconds,
    ) -> None:
        self.limits = Limits(size=settings.image_limit_bytes, grace_seconds=grace_seconds)
        self._catalogue = catalogue
        self._are_copies = settings.image_store == "registry"
        self._usage = usage
        self._sleep = sleep
        self._containers = Containers(settings)

    def things(self) -> list[Thing]:
        """See `Kind`."""
        published = {entry.image: entry.published for entry in self._catalogue.entries()}
        launched = self._usage.last_launches()
        kept = self._read()
        held = self._held(kept)

        def thing(image: StoredImage) -> Thing:
            names = [ImageName(name) for name in image.names]
            return Thing(
                name=image.id,
                used=max([image.kept, *(known.get(name, 0) for known in (published, launched) for name in names)]),
                parts={layer: kept.sizes[layer] for layer in image.layers},
                is_held=image.id in held,
                is_orphan=not self._are_copies and not any(name in published for name in names),
            )

        return [thing(image) for image in kept.images]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`.

        (1) Out of the catalogue: from here on no launch begins that would need the image.
        (2) A while later is looked who began before: that image stays, and its entry comes back.
        (3) Out of the storage, which itself refuses to remove what a container is made from.
        """
        ids = {thing.name for thing in things}
        entries = [] if self._are_copies else self._withdraw(ids)  # (1)
        self._sleep(SETTLE_SECONDS if entries else 0)
        now = self._read()
        held = self._held(now)  # (2)
        doomed = [image for image in now.images if image.id in ids - held]
        saved = {name for image in now.images if image.id in ids & held for name in image.names}
        self._restore([entry for entry in entries if entry.image in saved])
        names = [name for image in doomed for name in image.names or (image.id,)]
        said = storage.remove_images(self._containers, self._containers.images, names) if names else ""  # (3)
        left = {image.id for image in self._read().images} & {image.id for image in doomed}
        if left:
            _logger.warning("%d images stay in the storage: %s", len(left), said[-2000:])

    def _withdraw(self, ids: set[str]) -> list[Entry]:
        names = {ImageName(name) for image in self._read().images if image.id in ids for name in image.names}
        entries = [entry for name in names if (entry := self._catalogue.get(name))]
        for entry in entries:
            self._catalogue.remove(entry.image)
        return entries

    def _restore(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if self._catalogue.get(entry.image) is None:
                _logger.info("%s stays: it is being launched", entry.image)
                self._catalogue.add(entry)

    def _held(self, kept: storage.Storage) -> set[str]:
        names = set(self._usage.held())
        return {*kept.in_use} | {image.id for image in kept.images if names.intersection(image.names)}

    def _read(self) -> storage.Storage:
        return storage.read(self._containers.images, self._containers.runroot())
