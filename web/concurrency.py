"""Waiting, in a process with gevent's event loop or with plain threads alike.

Under gunicorn a request is a greenlet and one native thread runs them all: what blocks on files or SQLite must leave
that thread, and what a native thread has to say must come back to it. In a test a request is a thread, and all of this
is plain. Nobody else needs to know which of the two it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import gevent
from gevent import monkey
from gevent.event import Event

from web import native

Result = TypeVar("Result")
Item = TypeVar("Item")

GATHER_SECONDS = 0.05
"""Shortest time between two wake-ups by rings: nobody sees it, and ten lines cost one wake-up instead of ten. A ring
after silence wakes at once."""

GATHER_SECONDS_PER_WAITER = 0.00005
"""Waking a thousand takes tens of milliseconds itself: the more wait, the more is gathered for them."""

_PENDING_LIMIT = 2000
"""Items that `relay` holds for one slow consumer before the producer waits."""


def is_cooperative() -> bool:
    """Whether gevent runs this process."""
    return bool(monkey.is_module_patched("threading"))


def off_loop(job: Callable[[], Result]) -> Result:
    """What `job` returns or raises; the event loop goes on meanwhile.

    For what blocks on files or SQLite. What waits for the network waits for gevent already, and stays where it is.
    """
    if not is_cooperative():
        return job()
    result: Result = gevent.get_hub().threadpool.apply(job)
    return result


class Signal(Protocol):
    """Wakes everybody who waits for it.

    Whoever waits reads `version` first, looks at what it waits for, and hands that version to `wait`: a ring in between
    is not missed.
    """

    version: int

    def ring(self) -> None:
        """Wakes all who wait, soon; any native thread may call, as often as it likes."""
        ...

    def wait(self, seen: int, timeout_seconds: float | None = None) -> None:
        """Returns after a ring that came after version `seen`, after the timeout, or after a tick; at once if late."""
        ...

    def close(self) -> None:
        """Lets the loop forget it; whoever still waits is woken."""
        ...


def signal(tick_seconds: float) -> Signal:
    """A signal that rings by itself every `tick_seconds`, so that those who wait need no clock of their own each."""
    return _LoopSignal(tick_seconds) if is_cooperative() else _ThreadSignal(tick_seconds)


class _ThreadSignal:
    """A signal between threads."""

    def __init__(self, tick_seconds: float) -> None:
        self.version = 0
        self._tick_seconds = tick_seconds
        self._condition = threading.Condition()

    def ring(self) -> None:
        with self._condition:
            self.version += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_seconds: float | None = None) -> None:
        with self._condition:
            if self.version == seen:
                self._condition.wait(min(timeout_seconds or self._tick_seconds, self._tick_seconds))

    def close(self) -> None:
        self.ring()


class _LoopSignal:
    """A signal from any native thread to the greenlets of the loop on which it was made.

    `ring` may run anywhere; everything else runs on the loop, one thing at a time, and needs no lock. No ring is lost:
    a thread stores what it has to say before it looks at `_is_rung`, and the loop clears that before anybody looks at
    what was stored.
    """

    def __init__(self, tick_seconds: float) -> None:
        self.version = 0
        loop = gevent.get_hub().loop
        self._event = Event()
        self._waiting = 0
        self._is_rung = False
        self._is_closed = False
        self._loop = loop
        self._gathering: Any = None
        self._gathered_at = float("-inf")
        self._call = loop.async_()
        self._call.start(self._gather)
        self._clock = loop.timer(tick_seconds, tick_seconds)
        self._clock.start(self._wake)

    def ring(self) -> None:
        if not self._is_rung and not self._is_closed:
            self._is_rung = True
            self._call.send()

    def wait(self, seen: int, timeout_seconds: float | None = None) -> None:
        if self.version != seen or self._is_closed:
            return
        self._waiting += 1
        try:
            self._event.wait(timeout_seconds)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._is_closed = True
        # Stopped and not closed: a thread may be on its way to `send` at this very moment.
        self._call.stop()
        self._clock.close()
        self._end_gathering()

    def _gather(self) -> None:
        if self._gathering is None and not self._is_closed:
            due = self._gathered_at + GATHER_SECONDS + GATHER_SECONDS_PER_WAITER * self._waiting
            self._gathering = self._loop.timer(max(0.0, due - time.monotonic()))
            self._gathering.start(self._end_gathering)

    def _end_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.close()
            self._gathering = None
            self._gathered_at = time.monotonic()
        self._is_rung = False
        self._wake()

    def _wake(self) -> None:
        self.version += 1
        event, self._event = self._event, Event()
        event.set()


def relay(items: Iterable[Item], *, idle_seconds: float, is_native: bool) -> Iterator[list[Item]]:
    """What `items` gives, as it comes; an empty list wherever nothing came for `idle_seconds`.

    When the consumer leaves, `items` is closed at its next item.

    Args:
        items: An iterator that may block; it runs in a thread of its own.
        idle_seconds: Greatest time between two lists.
        is_native: Whether that thread is native even under gevent, as waiting for files needs; waiting for the network
            does without.
    """
    flow = _Flow(items, signal(idle_seconds), native.sleep if is_native else gevent.sleep)
    if is_native:
        native.start(flow.run, "relay")
    else:
        threading.Thread(target=flow.run, name="relay", daemon=True).start()
    return flow.consume()


class _Flow(Generic[Item]):
    """Items on their way from one thread to another, in order."""

    def __init__(self, items: Iterable[Item], bell: Signal, sleep: Callable[[float], object]) -> None:
        self._items = items
        self._signal = bell
        self._sleep = sleep
        self._pending: list[Item] = []
        self._error: BaseException | None = None
        self._is_done = False
        self._is_abandoned = False

    def run(self) -> None:
        """The producer's thread."""
        try:
            for item in self._items:
                self._pending.append(item)
                self._signal.ring()
                while len(self._pending) > _PENDING_LIMIT and not self._is_abandoned:
                    self._sleep(0.05)
                if self._is_abandoned:
                    break
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001  # it is raised again, where the consumer waits
            self._error = error
        finally:
            self._is_done = True
            self._signal.ring()

    def consume(self) -> Iterator[list[Item]]:
        """The consumer's side."""
        try:
            yield from self._consume()
        finally:
            self._is_abandoned = True
            self._signal.close()

    def _consume(self) -> Iterator[list[Item]]:
        while True:
            # Asked before the items are taken: what came last is then among them.
            seen, is_done = self._signal.version, self._is_done
            taken = self._pending[:]
            del self._pending[: len(taken)]
            if taken:
                yield taken
            elif is_done:
                break
            else:
                self._signal.wait(seen)
                if not self._pending and not self._is_done:
                    yield []
        if self._error is not None:
            raise self._error
