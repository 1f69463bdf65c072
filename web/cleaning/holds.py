"""Images that somebody is about to launch: cleaning leaves them alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workflows.image import ImageName

LINGER_SECONDS = 60
"""How long an image is held after a visitor's stream: whoever lost it comes back within this time."""


class Holds:
    """Which images are held.

    Any thread may call: everything here is a single operation on a dictionary.

    Args:
        clock: Seconds.
        linger_seconds: See `LINGER_SECONDS`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, linger_seconds: float = LINGER_SECONDS) -> None:
        self._clock = clock
        self._linger_seconds = linger_seconds
        self._until: dict[object, tuple[ImageName, float]] = {}

    @contextmanager
    def hold(self, image: ImageName) -> Iterator[None]:
        """Hold an image for as long as the context lasts, and a while longer.

        To be entered before the catalogue is looked at: cleaning withdraws first and looks for holders then, so one of
        the two always sees the other.
        """
        ticket = object()
        self._until[ticket] = (image, math.inf)
        try:
            yield
        finally:
            self._until[ticket] = (image, self._clock() + self._linger_seconds)

    def held(self) -> frozenset[ImageName]:
        """All images that are held now."""
        now = self._clock()
        held = self._until.copy()
        for ticket in [ticket for ticket, (_, until) in held.items() if until <= now]:
            del self._until[ticket]
        return frozenset(image for image, until in held.values() if until > now)
