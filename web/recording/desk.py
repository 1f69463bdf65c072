"""When what is filed: attempts as they go on, whole ones as they end, and again what could not be filed yet.

Of several processes one files. The others keep the same list, and begin where the one that fell has left off.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from web import native
from web.ledger import Ledger
from web.native import Stop
from web.recording.archive import Archive
from web.recording.attempts import status_of, successor
from web.recording.filing import Filing
from workflows.build import BuildStatus
from workflows.engines import Engine, cancelled
from workflows.image import BuildName

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

KEEP_SECONDS = 600
"""How long the engine keeps an attempt that is filed: whoever follows its log ends there, and not in the middle."""

STAND_BY_SECONDS = 5.0
"""How often a process that does not file asks whether somebody else has."""

SWEEP_SECONDS = 600.0
"""How often is looked for builds that the ledger holds as open and that the engine has no more."""

SETTLE_SECONDS = 60.0
"""A build that is younger may just not have been seen yet."""

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 60.0
"""Waits double from the first to the last: a ledger that comes back is noticed within a minute."""


@runtime_checkable
class Forgetting(Protocol):
    """An engine that wants to be told what is filed."""

    def forget(self, name: BuildName) -> None:
        """Knows no more of an ended attempt; nothing happens where it knew nothing."""
        ...


@dataclass(slots=True)
class _Task:
    """What is to be done for one attempt, and when."""

    status: BuildStatus
    due: float
    failures: int = 0
    is_filed: bool = False


class Desk:
    """Files one engine's attempts.

    Args:
        engine: Whose attempts they are.
        ledger: Remembers rows.
        archive: Keeps files.
        keep_seconds: How long the engine keeps what is filed.
        dropped: Is told of each attempt that nothing is left to be done for.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        archive: Archive,
        *,
        keep_seconds: float,
        dropped: Callable[[BuildName], object],
    ) -> None:
        self.is_open = False  # whether this process is the one that files; whoever knows sets it
        self._engine = engine
        self._ledger = ledger
        self._filing = Filing(engine, ledger, archive)
        self._keep_seconds = keep_seconds
        self._dropped = dropped
        self._sweep_at = 0.0
        self._tasks: dict[BuildName, _Task] = {}
        self._news: native.Channel[BuildStatus] = native.channel()

    def put(self, status: BuildStatus) -> None:
        """What became of an attempt; any native thread may say it, and is not kept waiting."""
        self._news.put(status)

    def run(self, stop: Stop) -> None:
        """Files until `stop`; call it in a native thread of its own."""
        was_open = False
        while not stop.is_set():
            if self.is_open and not was_open:
                self._take_over()
            was_open = self.is_open
            for status in native.drain(self._news, wait_seconds=self._pause()):
                self._note(status)
            if stop.is_set():
                # The ledger may be closed by now.
                return
            # Oldest first and one at a time, so that what arrives meanwhile is heard.
            due = [task for task in self._tasks.values() if task.due <= time.monotonic()]
            if due:
                self._attend(min(due, key=lambda task: task.due))
            elif self.is_open and self._sweep_at <= time.monotonic():
                self._sweep_at = time.monotonic() + SWEEP_SECONDS
                self._sweep()

    def _take_over(self) -> None:
        # Whoever filed before may have fallen anywhere: everything is looked at once.
        self._sweep_at = 0.0
        for task in self._tasks.values():
            task.due = time.monotonic()

    def _sweep(self) -> None:
        try:
            for status in self._gone():
                self._note(status)
        except Exception:  # the thread's outermost edge: the next time is soon enough
            _logger.exception("builds that are gone are looked for again")

    def _gone(self) -> Iterator[BuildStatus]:
        """What is open in the ledger and gone everywhere else, as after somebody deleted it: how it ended."""
        for record in self._ledger.open_builds():
            is_young = record.created > time.time() - SETTLE_SECONDS
            if record.name not in self._tasks and not is_young and self._engine.status(record.name) is None:
                status = status_of(record)
                yield status if status.state.ended else cancelled(status)

    def _pause(self) -> float:
        now = time.monotonic()
        return max(0.0, min([LOOK_SECONDS, *(task.due - now for task in self._tasks.values())]))

    def _note(self, status: BuildStatus) -> None:
        task = self._tasks.get(status.name)
        if task is None:
            self._tasks[status.name] = _Task(status=status, due=time.monotonic())
        elif _settled(task.status) != _settled(status):
            task.status, task.due = status, time.monotonic() + (backoff(task.failures) if task.failures else 0)

    def _attend(self, task: _Task) -> None:
        name = task.status.name
        try:
            self._advance(task)
        except Exception as error:  # the thread's outermost edge: one attempt's trouble is not the others'
            level = logging.WARNING if task.failures else logging.ERROR
            _logger.log(level, "%s is not filed yet: %s", name, getattr(error, "detail", "") or error, exc_info=True)
            task.due = time.monotonic() + backoff(task.failures)
            task.failures += 1

    def _advance(self, task: _Task) -> None:
        status = task.status
        if not self.is_open:
            self._stand_by(task)
        elif not status.state.ended:
            self._filing.note(status)
            task.due, task.failures = float("inf"), 0
        elif not task.is_filed:
            # Whoever follows it does the same; but a build that nobody follows is tried again, too.
            if status.lost and (following := successor(status, self._engine, self._ledger)):
                _logger.warning("%s was lost and is tried again as %s", status.name, following.name)
            self._filing.file(status)
            task.due, task.failures, task.is_filed = time.monotonic() + self._keep_seconds, 0, True
        else:
            self._forget(status.name)

    def _stand_by(self, task: _Task) -> None:
        if not task.status.state.ended:
            task.due = float("inf")
        elif self._engine.status(task.status.name) is None:
            # Somebody else has filed it.
            self._drop(task.status.name)
        else:
            task.due = time.monotonic() + STAND_BY_SECONDS

    def _forget(self, name: BuildName) -> None:
        if isinstance(self._engine, Forgetting):
            self._engine.forget(name)
        self._drop(name)

    def _drop(self, name: BuildName) -> None:
        self._dropped(name)
        self._tasks.pop(name, None)


def _settled(status: BuildStatus) -> BuildStatus:
    """The part of a status that the ledger keeps."""
    return dataclasses.replace(status, queue_position=0)


def backoff(failures: int) -> float:
    """Seconds until the next try."""
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures, 10), LAST_RETRY_SECONDS))
