"""Known images: those that launch without a build."""

from __future__ import annotations

import logging
import time
from typing import Literal

from web.concurrency import off_loop
from workflows.image import ImageDigest, ImageName
from workflows.providers.flight import Flights
from workflows.stores.catalogue import Catalogue, Entry
from workflows.stores.images import ImageStore

_logger = logging.getLogger(__name__)

CONFIRMED_SECONDS = 5
"""How long the image store's word holds. A wrong guess starts nothing else: the Hub starts by digest."""

_CONFIRMED_LIMIT = 1000


class Known:
    """Which images are in the catalogue and truly there.

    Args:
        catalogue: What may start.
        images: Where images live.
    """

    def __init__(self, catalogue: Catalogue, images: ImageStore) -> None:
        self._catalogue = catalogue
        self._images = images
        self._flights: Flights[Entry | None] = Flights(reuse_seconds=0)
        self._confirmed: dict[ImageName, tuple[ImageDigest, float]] = {}

    def find(self, image: ImageName) -> Entry | None:
        """The entry of an image that the image store confirms; None where it must be built.

        An image that only the catalogue holds is withdrawn.

        Raises:
            TransientError: Catalogue or image store do not answer.
        """
        return self._flights.run(image, lambda: self._find(image))

    def held(self, image: ImageName) -> ImageDigest | Literal[""]:
        """The digest of an image that only the image store holds, which needs no build; empty where it must be built.

        An older BinderHub left it there, or a crash between push and publish.

        Raises:
            TransientError: The image store does not answer.
        """
        return self._images.digest(image) or ""

    def _find(self, image: ImageName) -> Entry | None:
        digest = self._confirmed_digest(image) or self._ask(image)
        entry = off_loop(lambda: self._catalogue.get(image, digest)) if digest else None
        return entry or self._other(image)

    def _other(self, image: ImageName) -> Entry | None:
        """The entry under a digest that the image store confirms only now; any other is withdrawn."""
        entry = off_loop(lambda: self._catalogue.get(image))
        if entry is None:
            return None
        # Asked again, after the catalogue: what is in it by then was in the image store before.
        held = self._ask(image)
        if held == entry.digest:
            return entry
        _logger.warning("%s is withdrawn: the catalogue says %s, the image store %s", image, entry.digest, held)
        off_loop(lambda: self._catalogue.remove(image))
        return None

    def _ask(self, image: ImageName) -> ImageDigest | None:
        held = self._images.digest(image)
        if held is not None:
            if len(self._confirmed) >= _CONFIRMED_LIMIT:
                self._confirmed.clear()
            self._confirmed[image] = held, time.monotonic()
        return held

    def _confirmed_digest(self, image: ImageName) -> ImageDigest | None:
        digest, at = self._confirmed.get(image, (None, 0.0))
        return digest if time.monotonic() - at < CONFIRMED_SECONDS else None
