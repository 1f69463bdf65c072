"""Base images and foundations that nothing stands on any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from workflows.builder.seed import lock
from workflows.cleaning import storage
from workflows.cleaning.choice import Limits, Thing
from workflows.cleaning.storage import Storage, StoredImage
from workflows.settings import Settings
from workflows.stores.containers import Containers

_logger = logging.getLogger(__name__)

UNUSED_SECONDS = 14 * 86400
"""After which a foundation is taken for one of an older Jupyter, or of a Python that nobody asks for any more."""


class BaseImages:
    """The images in the storage that all others read.

    Their layers are parents of layers in other storages, which that storage knows nothing of. So an image stays here as
    long as any layer that it alone holds is stood on anywhere, or a build may be about to stand on it.

    Args:
        settings: The farm's.
        unused_seconds: How long one is kept for nobody.
    """

    name = "base images"
    is_hasty = False
    is_spare = True

    def __init__(self, settings: Settings, *, unused_seconds: float = UNUSED_SECONDS) -> None:
        self.limits = Limits(size=settings.base_limit_bytes, age_seconds=unused_seconds)
        self._settings = settings
        self._containers = Containers(settings)

    def things(self) -> list[Thing]:
        """See `Kind`."""
        kept = self._read()
        stood_on = self._stood_on()
        ours = {layer for image in kept.images if self._is_ours(image) for layer in image.layers}
        return [
            Thing(
                name=image.id,
                used=image.kept,
                parts={layer: kept.sizes[layer] for layer in image.layers},
                is_held=self._is_ours(image)
                or image.id in kept.in_use
                or not stood_on.isdisjoint(set(image.layers) - ours),
            )
            for image in kept.images
        ]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`. While it does, nobody makes a base image; what a build has begun to use since then stays."""
        with lock(self._settings.cache_folder / "base.lock"):
            free = {thing.name: thing for thing in self.things() if not thing.is_held}
            names = {image.id: image.names or (image.id,) for image in self._read().images}
            doomed = [thing for thing in things if thing.name in free and free[thing.name].used == thing.used]
            wanted = [name for thing in doomed for name in names.get(thing.name, ())]
            said = storage.remove_images(self._containers, self._containers.base, wanted)
            left = {image.id for image in self._read().images} & {thing.name for thing in doomed}
            if left:
                _logger.warning("%d base images stay: %s", len(left), said[-2000:])

    def _is_ours(self, image: StoredImage) -> bool:
        return self._settings.base_image in image.names

    def _stood_on(self) -> frozenset[str]:
        repositories = self._containers.repository("any").parent
        graphs = [self._containers.images, *(path.parent for path in repositories.glob("*/overlay-layers"))]
        return frozenset().union(*(storage.read(graph, self._containers.runroot(graph)).foreign for graph in graphs))

    def _read(self) -> Storage:
        return storage.read(self._containers.base, self._containers.runroot(self._containers.base))
