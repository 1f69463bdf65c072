"""The attempts of builds: the engine's while it knows them, the ledger's later."""

from __future__ import annotations

import dataclasses
import time

from web.ledger import BuildRecord, Ledger
from web.ledger.ledger import REMEMBERED_FAILURES
from workflows.build import BuildRequest, BuildStatus, State
from workflows.engines import Engine
from workflows.errors import NotFoundError, Reason
from workflows.image import BuildName, attempt_of, with_attempt


class Attempts:
    """Finds attempts and begins new ones. Every method blocks on files or the ledger: call it off the event loop.

    Args:
        engine: Executes builds.
        ledger: Remembers them.
        failure_memory_seconds: How long a failure by the repository's own fault answers the next visitor.
    """

    def __init__(self, engine: Engine, ledger: Ledger, *, failure_memory_seconds: float) -> None:
        self._engine = engine
        self._ledger = ledger
        self._failure_memory_seconds = failure_memory_seconds

    def find(self, name: BuildName) -> BuildStatus | None:
        """What is known of one attempt; None where there never was one."""
        status = self._engine.status(name)
        if status is None:
            record = self._ledger.build(name)
            status = status_of(record) if record else None
        return status

    def latest(self, name: BuildName) -> BuildStatus | None:
        """The last attempt of the build that `name` is one of; None where there was none."""
        number = max(1, self._ledger.last_attempt(name))
        # The engine's word is newer than the ledger's.
        while self._engine.status(with_attempt(name, number + 1)) is not None:
            number += 1
        return self.find(with_attempt(name, number))

    def begin(self, request: BuildRequest, latest: BuildStatus | None) -> BuildStatus:
        """The attempt that answers a visitor: the one that runs, a failure that is remembered, or a new one.

        Args:
            request: What is wished for.
            latest: What `latest` said of it.
        """
        if latest is None:
            return self._submit(request)
        if not latest.state.ended or self.is_remembered(latest):
            return latest
        return self._next(request, latest)

    def retry(self, name: BuildName) -> BuildStatus:
        """A new attempt of a build; the one that runs, if one does.

        Raises:
            NotFoundError: There never was such a build, or it ended before anybody knew of which commit it was.
        """
        latest = self.latest(name)
        if latest is None:
            raise NotFoundError("There is no build of this name.")
        if not latest.state.ended:
            return latest
        request = latest.request
        if request.named:
            # A Workflow of somebody's own: a further attempt is a build like any other, and joins those of visitors.
            return self._retry_as_usual(dataclasses.replace(request, named="", attempt=1))
        if latest.reason is Reason.POLICY:
            # What the rules refuse in an image that was there already, a build of today may have mended.
            request = dataclasses.replace(request, held="")
        return self._next(request, latest)

    def successor(self, status: BuildStatus) -> BuildStatus | None:
        """The attempt that tries again what was lost; see `successor`."""
        return successor(status, self._engine, self._ledger)

    def is_remembered(self, status: BuildStatus) -> bool:
        """Whether a failure answers the next visitor without another attempt."""
        is_own_fault = status.state is State.FAILED and status.reason in REMEMBERED_FAILURES
        return is_own_fault and status.ended >= time.time() - self._failure_memory_seconds

    def _retry_as_usual(self, request: BuildRequest) -> BuildStatus:
        if not request.commit:
            raise NotFoundError("This build ended before its commit was known. Open the repository's own link instead.")
        latest = self.latest(request.name)
        if latest is None or not latest.state.ended:
            return latest or self._submit(request)
        return self._next(request, latest)

    def _next(self, request: BuildRequest, latest: BuildStatus) -> BuildStatus:
        # A name is never used twice. Two who ask at the same time ask for the same name, and get one attempt.
        return self._submit(dataclasses.replace(request, attempt=attempt_of(latest.name) + 1))

    def _submit(self, request: BuildRequest) -> BuildStatus:
        """The attempt of a request, or the first after it whose name is not that of one that ended before."""
        asked = time.time()
        status = self._engine.submit(request)
        # What neither ledger nor engine speak of any more may still have its name: Workflows outlive their recording.
        while status.state.ended and status.created < asked and not self.is_remembered(status):
            request = dataclasses.replace(request, attempt=request.attempt + 1)
            status = self._engine.submit(request)
        return status


def successor(status: BuildStatus, engine: Engine, ledger: Ledger) -> BuildStatus | None:
    """The attempt that tries again what was lost, begun here where nobody has done so yet; once, and never in a row.

    Args:
        status: An attempt.
        engine: Executes builds.
        ledger: Remembers those that the engine has forgotten: a name is never used twice.

    Returns:
        None where the attempt goes on, ended otherwise, or is itself the second.

    Raises:
        TransientError: The ledger does not answer, or the engine cannot take it.
    """
    if not status.state.ended or status.reason is not Reason.TRANSIENT or status.request.again:
        return None
    if status.request.named:
        # A Workflow of somebody's own: whoever submitted it knows whether it is to be tried again.
        return None
    request = dataclasses.replace(status.request, attempt=status.request.attempt + 1, again=True)
    following = engine.status(request.name)
    if following is None and (record := ledger.build(request.name)):
        following = status_of(record)
    if following is not None:
        return following if following.request.again or status.lost else None
    return engine.submit(request) if status.lost else None


def status_of(record: BuildRecord) -> BuildStatus:
    """What the engine said last, as the ledger remembers it."""
    return BuildStatus(
        request=record.request,
        state=record.state,
        reason=record.reason,
        message=record.message,
        created=record.created,
        started=record.started,
        ended=record.ended,
        published=record.published,
        steps=record.steps,
    )
