"""The one watch of a process: learns what the engine does, tells whoever subscribed, admits, and files.

Three native threads, so that none of the three waits for another: the watch must not wait for a database, and a queue
must move on while the archive is away. Of several processes one files, the one that holds the recording lease; the
others know the same, and take over.

Source: ../shared/design.md, *Where state lives*.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

from web import native
from web.ledger import Ledger
from web.native import Stop
from web.recording.archive import Archive
from web.recording.desk import KEEP_SECONDS, Desk, backoff
from workflows.build import BuildStatus
from workflows.engines import Engine
from workflows.engines.lease import Lease, Unshared
from workflows.image import BuildName

_logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How long the queue may stand still where nothing happens: caps and clocks depend on time alone, too."""

Subscriber = Callable[[BuildStatus], None]


class Admitting(Protocol):
    """Moves the queue."""

    def tick(self) -> None:
        """Admits whatever may run now."""
        ...

    def close(self) -> None:
        """Lets another process do it."""
        ...


class Recorder:
    """Records one engine's attempts for as long as the process lives.

    Args:
        engine: What is watched.
        ledger: Remembers rows.
        archive: Keeps files.
        admission: Moves the queue.
        lease: Says which of several processes files; None: each does, and what is filed twice is the same.
        keep_seconds: How long the engine keeps what is filed.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        archive: Archive,
        admission: Admitting,
        *,
        lease: Lease | None = None,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._lease = lease or Unshared()
        self._is_over = False
        # Single operations on these dictionaries are whole between threads, and nothing here needs more.
        self._statuses: dict[BuildName, BuildStatus] = {}
        self._subscribers: dict[object, Subscriber] = {}
        self._desk = Desk(engine, ledger, archive, keep_seconds=keep_seconds, dropped=self._forget)
        self._wakes: native.Channel[BuildName] = native.channel()

    @property
    def statuses(self) -> Mapping[BuildName, BuildStatus]:
        """What is known now, by name; any thread may ask."""
        return MappingProxyType(dict(self._statuses))

    @property
    def is_filing(self) -> bool:
        """Whether this process is the one of several that files."""
        return self._desk.is_open

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Calls `subscriber` with every status from now on, in the watch's own native thread; it must not block.

        Who needs what is known already subscribes first and reads `statuses` then.

        Returns:
            What ends the subscription.
        """
        ticket = object()
        self._subscribers[ticket] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(ticket, None)

        return unsubscribe

    def run(self, stop: Stop) -> None:
        """Watches, admits and files until `stop`; call it in a native thread of its own."""
        native.start(lambda: self._watch(stop), "watch")
        native.start(lambda: self._desk.run(stop), "filing")
        while not stop.is_set():
            _survive(self._admission.tick, "admission")
            # Renewed here, where nothing waits for an archive.
            _survive(self._renew, "the recording lease")
            native.drain(self._wakes, wait_seconds=TICK_SECONDS)
        _survive(self._admission.close, "giving the admission back")
        _survive(self._lease.release, "giving the recording lease back")
        self._is_over = True

    def await_end(self, seconds: float) -> None:
        """Returns once `run` has given back what others wait for, or when the time is over."""
        deadline = time.monotonic() + seconds
        while not self._is_over and time.monotonic() < deadline:
            native.sleep(0.05)

    def _renew(self) -> None:
        self._desk.is_open = self._lease.held()

    # --- the watch ---

    def _watch(self, stop: Stop) -> None:
        failures = 0
        while not stop.is_set():
            try:
                for status in self._engine.watch():
                    failures = 0
                    self._take(status)
                    if stop.is_set():
                        return
            except Exception:  # the thread's outermost edge: without a watch nothing would ever be seen again
                _logger.exception("the engine's watch broke off")
            native.sleep(backoff(failures))
            failures += 1

    def _take(self, status: BuildStatus) -> None:
        before = self._statuses.get(status.name)
        self._statuses[status.name] = status
        for subscriber in tuple(self._subscribers.values()):
            _survive(partial(subscriber, status), "a subscriber")
        self._desk.put(status)
        if before is None or before.state is not status.state:
            self._wakes.put(status.name)

    def _forget(self, name: BuildName) -> None:
        self._statuses.pop(name, None)


def _survive(job: Callable[[], None], what: str) -> None:
    try:
        job()
    except Exception:  # somebody else's code in our thread: its trouble must not end the thread
        _logger.exception("%s failed", what)
