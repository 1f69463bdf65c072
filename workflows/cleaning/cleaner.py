"""Rounds of cleaning: kind by kind what must leave is removed, and what fails is tried again next time."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from workflows.cleaning.choice import Limits, Thing, leaving, total
from workflows.settings import MIB

_logger = logging.getLogger(__name__)


class Kind(Protocol):
    """One kind of thing that fills up."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    @property
    def limits(self) -> Limits:
        """How much of it may stay."""
        ...

    @property
    def is_hasty(self) -> bool:
        """Whether builds make it grow so fast that it is looked at after each."""
        ...

    @property
    def is_spare(self) -> bool:
        """Whether it may leave although it is within its limits, where the disk itself is nearly full."""
        ...

    def things(self) -> Sequence[Thing]:
        """All of it."""
        ...

    def remove(self, things: Sequence[Thing]) -> None:
        """Remove some of it; what cannot be removed now stays, and is met again in the next round."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What a round did to one kind.

    Args:
        kind: Its name.
        chosen: The things that were to leave, in order.
        size: Of what should be left then.
    """

    kind: str
    chosen: tuple[str, ...]
    size: int


class Cleaner:
    """Cleans kind after kind.

    Args:
        kinds: In the order in which they are cleaned, and give way where the disk is nearly full: what costs least
            to make again comes first.
        missing_bytes: How many bytes too few the disk has free; 0 where all is well.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, kinds: Sequence[Kind], missing_bytes: Callable[[], int], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._kinds = tuple(kinds)
        self._missing_bytes = missing_bytes
        self._clock = clock

    def round(self, *, is_whole: bool = True) -> list[Cleaned]:
        """Clean once.

        Args:
            is_whole: Whether all kinds are looked at, or only those that builds fill.
        """
        is_short = self._missing_bytes() > 0
        cleaned = [self._clean(kind, 0) for kind in self._kinds if is_whole or is_short or kind.is_hasty]
        # Asked anew each time: what the kinds before it gave is free by now.
        cleaned += [
            self._clean(kind, missing) for kind in self._kinds if kind.is_spare and (missing := self._missing_bytes())
        ]
        return [each for each in cleaned if each is not None]

    def _clean(self, kind: Kind, missing: int) -> Cleaned | None:
        try:
            things = kind.things()
            limits = kind.limits
            if missing:
                limits = dataclasses.replace(limits, size=min(limits.size, max(0, total(things) - missing)))
            chosen = leaving(things, limits, self._clock())
            if chosen:
                _logger.info("%s: %d of %d leave", kind.name, len(chosen), len(things))
                kind.remove(chosen)
        except Exception as error:  # the outermost edge: one kind's trouble is not the others', and ends no thread
            _logger.warning(
                "%s cannot be cleaned now: %s", kind.name, getattr(error, "detail", "") or error, exc_info=True
            )
            return None
        names = {thing.name for thing in chosen}
        size = total([thing for thing in things if thing.name not in names])
        if size > limits.size:
            _logger.warning("%s: %d are in use and %.0f are allowed", kind.name, size, limits.size)
        elif missing:
            _logger.warning("the disk is nearly full: %s gave way, %d MiB were missing", kind.name, missing // MIB)
        return Cleaned(kind=kind.name, chosen=tuple(thing.name for thing in chosen), size=size)
