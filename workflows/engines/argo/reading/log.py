"""A build's log as one sequence of lines, read from the containers of its pods while they print.

Which pod and which container a step has follows from its name, so the reading may begin before there is a pod. Where it
breaks off (API server, network) it begins again at the first line and leaves out what it has told already: the step
runner keeps a container's log below what the kubelet rotates.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from workflows.build import LogEnd, LogLine, State
from workflows.cluster.connection import Cluster
from workflows.engines.argo.reading.lines import is_end, own
from workflows.engines.argo.reading.nodes import Place, places
from workflows.engines.argo.reading.seen import Seen
from workflows.errors import SKIPPED, RefusedError, TransientError
from workflows.image import BuildName

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 5
_IMPATIENCE = 1.1
"""Argo says a second or two late that a container runs, and in a large Workflow nothing at all: a log is tried anyhow,
after a pause that grows by this factor with each try."""
_IDLE_SECONDS = 60
"""A silent log is asked for anew after so long: whether its build goes on is known by then."""
_SETTLE_SECONDS = 10
"""A container that has ended is told by the next event; one that has not by then was cut off in the middle."""
_DYING_SECONDS = 2
"""What a container prints that is told to end comes after Argo has called the build ended."""
_LOG_BYTES = 16 * 1024**2
"""Twice what the step runner lets through. A stranger's program can write past it, as far as the kubelet keeps."""
_LINE_BYTES = 256 * 1024

Look = Callable[[BuildName], Seen | None]


class Log:
    """The logs of one cluster's builds.

    Args:
        cluster: Where the pods are.
        path: Of pods in the builds' namespace.
        look: What is known of a build.
        sleep: How a thread waits.
    """

    def __init__(self, cluster: Cluster, path: str, look: Look, sleep: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._path = path
        self._look = look
        self._sleep = sleep

    def follow(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        """Each line of each step and then the step's end, in pipeline order and once, until the build has ended."""
        seen = self._look(name)
        for step, place in places(name, seen.plan).items() if seen else ():
            yield from self._follow_step(name, step, place)
            yield LogEnd(step=step)

    def tail(self, name: BuildName, step: str, count: int) -> list[str]:
        """What there is for visitors in the last lines of a step."""
        seen = self._look(name)
        place = places(name, seen.plan).get(step) if seen else None
        return [line for line, is_own in own(self._tail(place, count)) if is_own] if place else []

    def _follow_step(self, name: BuildName, step: str, place: Place) -> Iterator[LogLine]:
        told, is_whole, pause = 0, False, _LOOK_SECONDS
        while not is_whole:
            # Asked before the log is read: what was printed by then is in it.
            is_over = self._await(name, step, place, pause)
            if is_over and self._is_left_out(name, step):
                return
            pause = min(pause * _IMPATIENCE, _PATIENCE_SECONDS)
            number, last, is_ended = 0, "", False
            try:
                for last, is_own in own(self._lines(place, follow=not is_over)):
                    number += is_own
                    is_ended = is_ended or (not is_own and is_end(last))
                    if is_own and number > told:
                        told = number
                        yield LogLine(step=step, number=number, text=last)
            except (RefusedError, TransientError) as error:
                is_whole = self._is_gone(name, error, is_over=is_over)
            else:
                is_whole = is_over or is_ended or self._has_ended(name, step, place, last)

    def _await(self, name: BuildName, step: str, place: Place, pause: float) -> bool:
        """Wait until there may be something to read, or for a pause; whether the step has already said all."""
        next_try = time.monotonic() + pause
        while not self._is_over(name, step):
            seen = self._look(name)
            if seen is None or seen.status.state is not State.RUNNING:
                next_try = time.monotonic() + pause
            elif _is_begun(name, seen, place) or time.monotonic() >= next_try:
                return False
            self._sleep(_LOOK_SECONDS)
        return True

    def _is_gone(self, name: BuildName, error: RefusedError | TransientError, *, is_over: bool) -> bool:
        """Whether a log that could not be read, or not to its end, never will be; waits a moment where it may."""
        # No such pod, or a container that has not started: not yet, or not any more.
        is_absent = isinstance(error, RefusedError) and error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}
        if not is_absent and (is_over or isinstance(error, RefusedError)):
            raise error
        if not is_absent:
            _logger.info("%s: a log is read again: %s", name, error.detail)
        if not is_over:
            self._sleep(_LOOK_SECONDS)
        return is_over

    def _has_ended(self, name: BuildName, step: str, place: Place, last: str) -> bool:
        """Whether a log that ended has ended with its container; an API server that goes down ends it, too."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._is_over(name, step):
            if time.monotonic() > deadline:
                return False
            self._sleep(_LOOK_SECONDS)
        return self._tail(place, 1) in ([last], [])

    def _lines(self, place: Place, *, follow: bool) -> Iterator[str]:
        query = self._query(place) | ({"follow": "true"} if follow else {})
        lines = self._cluster.lines(self._of(place), query, idle_seconds=_IDLE_SECONDS, line_bytes=_LINE_BYTES)
        return (line.decode("utf-8", "replace") for line in lines)

    def _tail(self, place: Place, count: int) -> list[str]:
        try:
            text = self._cluster.text(self._of(place), self._query(place) | {"tailLines": str(count)})
        except RefusedError:
            return []
        return [line[:_LINE_BYTES] for line in text.removesuffix("\n").split("\n")]

    def _of(self, place: Place) -> str:
        return f"{self._path}/{place.pod}/log"

    @staticmethod
    def _query(place: Place) -> dict[str, str]:
        return {"container": place.container, "limitBytes": str(_LOG_BYTES)}

    def _is_left_out(self, name: BuildName, step: str) -> bool:
        seen = self._look(name)
        return seen is not None and any(
            known.name == step and known.exit_code == SKIPPED for known in seen.status.steps
        )

    def _is_over(self, name: BuildName, step: str) -> bool:
        """Whether the step will print nothing more."""
        seen = self._look(name)
        if seen is None:
            return True
        if seen.status.state.ended:
            self._sleep(max(0.0, min(_DYING_SECONDS, seen.status.ended + _DYING_SECONDS - time.time())))
            return True
        return any(known.name == step and known.exit_code is not None for known in seen.status.steps)


def _is_begun(name: BuildName, seen: Seen, place: Place) -> bool:
    # All containers of a pod begin at once, and each waits for its turn by itself.
    begun = {known.name for known in seen.status.steps if known.started}
    return any(where.pod == place.pod for step, where in places(name, seen.plan).items() if step in begun)
