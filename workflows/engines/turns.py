"""One round of a queue, the same for every engine: who waited too long, who may run, who stands where.

Source: ../../shared/design.md, *Engines*.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from workflows.build import BuildStatus, State
from workflows.errors import ArgosyError, Reason
from workflows.image import BuildName
from workflows.queue import Limits, Running, Waiting, admissible, positions
from workflows.settings import Settings

_logger = logging.getLogger(__name__)


class Queue(Protocol):
    """An engine's queue, as whoever moves it sees it."""

    def statuses(self) -> Iterable[BuildStatus]:
        """Everything that is known, as it is now."""
        ...

    def tend(self, status: BuildStatus) -> None:
        """Looks after one that waits or runs: what its engine alone knows to be overdue or dead is ended."""
        ...

    def admit(self, name: BuildName) -> None:
        """One that waits may run now."""
        ...

    def stop(self, name: BuildName, reason: Reason) -> None:
        """Ends one."""
        ...


class Turns:
    """Moves a queue.

    Args:
        queue: The queue.
        settings: The farm's, for the caps and the queue's clock.
    """

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._queue = queue
        self._timeout_seconds = settings.queue_timeout_seconds
        self._limits = Limits(
            farm=settings.parallel_builds,
            owner=settings.parallel_builds_per_owner,
            network=settings.parallel_builds_per_network,
        )

    def move(self) -> None:
        """One round: tends to each, ends what waited for too long, admits whose turn it is."""
        overdue = time.time() - self._timeout_seconds
        for status in [known for known in self._queue.statuses() if not known.state.ended]:
            attempt(partial(self._queue.tend, status), status.name)
            if status.state is State.QUEUED and status.created < overdue:
                attempt(partial(self._queue.stop, status.name, Reason.QUEUE_TIMEOUT), status.name)
        waiting, running, served = _line(self._queue.statuses())
        for name in admissible(waiting, running, self._limits, served):
            attempt(partial(self._queue.admit, name), name)


def attempt(job: Callable[[], None], name: BuildName) -> None:
    """Does something for one build: its trouble is logged and holds up no other. The next round tries again."""
    try:
        job()
    except (ArgosyError, OSError) as error:
        _logger.warning("%s: %s", name, getattr(error, "detail", "") or error)


def places(statuses: Iterable[BuildStatus]) -> dict[BuildName, int]:
    """The place of each build that waits, from 1."""
    return positions(*_line(statuses))


def _line(statuses: Iterable[BuildStatus]) -> tuple[list[Waiting], list[Running], dict[str, float]]:
    waiting: list[Waiting] = []
    running: list[Running] = []
    served: dict[str, float] = {}
    for status in statuses:
        owner, network = status.request.owner, status.request.network
        if status.started:
            served[owner] = max(served.get(owner, 0), status.started)
        if status.state is State.RUNNING:
            running.append(Running(owner=owner, network=network))
        elif status.state is State.QUEUED:
            lane, name, created = status.request.lane, status.name, status.created
            waiting.append(Waiting(name=name, lane=lane, owner=owner, network=network, created=created))
    return waiting, running, served
