"""The last lines of a running build, as the bytes that go to everybody who follows it.

One thread appends; any number read without a lock: an append is whole between threads, and what is dropped is dropped
by putting a new list in the old one's place.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

RING_BYTES = 8 * 1024**2
"""What one build's ring may hold: as much as the longest log of one step."""

PIECE_BYTES = 64 * 1024
"""What a follower takes at a time: a thousand who join late must not hold a log each."""


class Position(NamedTuple):
    """Where a line stands in a build's log; positions compare as the log reads.

    Args:
        step: The step's index in `workflows.pipeline.STEPS`.
        line: From 1 in its step.
    """

    step: int
    line: int


START = Position(0, 0)
"""Before the first line."""


class Piece(NamedTuple):
    """Some lines together.

    Args:
        last: The last of them.
        data: Their events; empty where the lines up to `last` were dropped and must be read elsewhere.
    """

    last: Position
    data: bytes


@dataclass(slots=True)
class _Span:
    """The lines that the ring holds, and the last that it dropped."""

    dropped: Position = START
    positions: list[Position] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)


class Ring:
    """Encoded events in the order of the log.

    Args:
        limit_bytes: How much of them is held; the oldest are dropped beyond that.
    """

    def __init__(self, limit_bytes: int = RING_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._span = _Span()
        self._latest: tuple[Position, int, Piece] | None = None

    @property
    def last(self) -> Position:
        """The last line of all."""
        span = self._span
        return span.positions[-1] if span.positions else span.dropped

    def append(self, position: Position, event: bytes) -> None:
        """Adds a line; one thread alone may call this."""
        span = self._span
        # The position first: readers count the events, and each of those has its position then.
        span.positions.append(position)
        span.events.append(event)
        self._size_bytes += len(event)
        if self._size_bytes > self._limit_bytes:
            self._shrink()

    def after(self, position: Position) -> Piece | None:
        """The lines after `position`, no more than a piece; None where there are none yet."""
        span = self._span
        if position < span.dropped:
            return Piece(span.dropped, b"")
        held = len(span.events)
        if not held or span.positions[held - 1] <= position:
            return None
        latest = self._latest
        # Everybody who keeps up asks for the same, so it is put together once.
        if latest is not None and latest[0] == position and latest[1] == held:
            return latest[2]
        piece = _piece(span, bisect_right(span.positions, position, 0, held), held)
        self._latest = (position, held, piece)
        return piece

    def _shrink(self) -> None:
        span, keep_bytes = self._span, self._limit_bytes * 3 // 4
        count = 0
        while self._size_bytes > keep_bytes and count < len(span.events) - 1:
            self._size_bytes -= len(span.events[count])
            count += 1
        if count:
            self._span = _Span(span.positions[count - 1], span.positions[count:], span.events[count:])


def _piece(span: _Span, begin: int, end: int) -> Piece:
    size_bytes, stop = 0, begin
    while stop < end and (size_bytes < PIECE_BYTES or stop == begin):
        size_bytes += len(span.events[stop])
        stop += 1
    return Piece(span.positions[stop - 1], b"".join(span.events[begin:stop]))
