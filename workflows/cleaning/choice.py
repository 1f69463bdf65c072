"""What leaves: pure decisions on values.

Things hold parts, because images share layers: a part is counted once and its room is free when the last thing that
holds it has left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GRACE_SECONDS = 3600
"""For how long nobody may name a thing before it counts as left over: longer than anything is between two names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something that may leave.

    Args:
        name: By which its kind finds it again.
        used: Seconds since the epoch of its last use.
        parts: What it takes up, by part; usually bytes.
        is_held: Whether somebody works with it now.
        is_orphan: Whether nothing names it any more, so that nobody would ever ask for it.
    """

    name: str
    used: float
    parts: Mapping[str, int] = field(default_factory=dict)
    is_held: bool = False
    is_orphan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a kind may stay.

    Args:
        size: Of all parts together, in their own unit.
        age_seconds: Since the last use.
        grace_seconds: Since the last use, for orphans.
    """

    size: float = math.inf
    age_seconds: float = math.inf
    grace_seconds: float = GRACE_SECONDS


def total(things: Sequence[Thing]) -> int:
    """What things take up together, shared parts once."""
    return sum({part: size for thing in things for part, size in thing.parts.items()}.values())


def leaving(things: Sequence[Thing], limits: Limits, now: float) -> list[Thing]:
    """The things that leave, in the order in which they go.

    (1) Nothing leaves that is held, nor an orphan within its grace: it may be on its way to a name.
    (2) Orphans leave, and what was not used for too long.
    (3) Then the least recently used, until the rest is within the limit.
    (4) What made no room, because others still hold all of its parts, stays after all.
    """
    due = [thing for thing in things if not thing.is_held and now - thing.used > _patience(thing, limits)]  # (1), (2)
    names = {thing.name for thing in due}
    spare = [thing for thing in things if not (thing.is_held or thing.is_orphan or thing.name in names)]
    room = _Room([thing for thing in things if thing.name not in names])
    chosen: list[Thing] = []
    for thing in _by_use(spare):  # (3)
        if room.size <= limits.size:
            break
        room.leave(thing)
        chosen.append(thing)
    useless = {thing.name for thing in reversed(chosen) if room.return_for_nothing(thing)}  # (4)
    return [*_by_use(due), *(thing for thing in chosen if thing.name not in useless)]


def _patience(thing: Thing, limits: Limits) -> float:
    return min(limits.age_seconds, limits.grace_seconds) if thing.is_orphan else limits.age_seconds


def _by_use(things: Sequence[Thing]) -> list[Thing]:
    return sorted(things, key=lambda thing: (thing.used, thing.name))


class _Room:
    """What the things that stay take up."""

    def __init__(self, things: Sequence[Thing]) -> None:
        self.size = total(things)
        self._holders = Counter(part for thing in things for part in thing.parts)

    def leave(self, thing: Thing) -> None:
        self._holders.subtract(thing.parts.keys())
        self.size -= sum(size for part, size in thing.parts.items() if not self._holders[part])

    def return_for_nothing(self, thing: Thing) -> bool:
        """Take a thing back if that takes up nothing."""
        if any(size and not self._holders[part] for part, size in thing.parts.items()):
            return False
        self._holders.update(thing.parts.keys())
        return True
