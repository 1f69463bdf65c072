"""Moves the local engine's queue: admits, counts places, ends what waited too long, notices runners that died."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial

from workflows.build import BuildStatus, State
from workflows.engines.attempt.journal import Changes
from workflows.engines.lease import FileLease
from workflows.engines.local import LocalEngine
from workflows.engines.turns import Turns, attempt, places
from workflows.errors import Reason
from workflows.image import BuildName
from workflows.settings import Settings

_TIDY_SECONDS = 30


class Admission:
    """Whoever admits. Of many processes that have one, the first to hold the lease does the work until it ends.

    Args:
        engine: Whose queue it is.
        settings: The farm's, for the caps and the queue's clock.
    """

    def __init__(self, engine: LocalEngine, settings: Settings) -> None:
        self._engine = engine
        self._queue = _LocalQueue(engine)
        self._turns = Turns(self._queue, settings)
        self._lease = FileLease(engine.builds / ".admission")
        self._tidy_at = 0.0

    def tick(self) -> None:
        """Move the queue once. To be called when something changes, and every second or so. Not for several threads."""
        if not self._lease.held():
            return
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_SECONDS
            self._engine.tidy()
        self._turns.move()
        self._queue.count()

    def close(self) -> None:
        """Give the lease back."""
        self._queue.close()
        self._lease.release()


class _LocalQueue:
    """The queue that is the folders of attempts."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._changes = Changes(engine.builds)
        self.admit = engine.admit

    def statuses(self) -> Collection[BuildStatus]:
        self._changes.poll()
        return self._changes.known.values()

    def tend(self, status: BuildStatus) -> None:
        if status.state is State.RUNNING:
            self._engine.bury(status.name)

    def stop(self, name: BuildName, reason: Reason) -> None:
        self._engine.stop(name, reason)

    def count(self) -> None:
        """Notes the places of those who wait, for every process to read."""
        statuses = self.statuses()
        for name, place in places(statuses).items():
            if self._changes.known[name].queue_position != place:
                attempt(partial(self._engine.place, name, place), name)

    def close(self) -> None:
        self._changes.close()
