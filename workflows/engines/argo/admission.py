"""Moves the queue of suspended Workflows; of all replicas, the one that holds the lease does."""

from __future__ import annotations

import time
from collections.abc import Collection

from workflows.build import BuildStatus, State
from workflows.engines.argo.engine import ArgoEngine
from workflows.engines.lease import Lease
from workflows.engines.turns import Turns
from workflows.errors import Reason
from workflows.image import BuildName
from workflows.settings import Settings


class ArgoAdmission:
    """Whoever admits, while it holds the lease.

    Args:
        engine: Whose queue it is.
        settings: The farm's, for the caps and the clocks.
        lease: Says which of the replicas it is.
    """

    def __init__(self, engine: ArgoEngine, settings: Settings, lease: Lease) -> None:
        self._engine = engine
        self._lease = lease
        self._turns = Turns(_ArgoQueue(engine, settings), settings)

    def tick(self) -> None:
        """Move the queue once. To be called when something changes, and every second or so. Not for several threads."""
        # Who does not know how things stand neither admits nor keeps the lease from somebody who does.
        if self._engine.is_current and self._lease.held():
            self._turns.move()

    def close(self) -> None:
        """Give the lease back."""
        self._lease.release()


class _ArgoQueue:
    """The queue that is the suspended Workflows."""

    def __init__(self, engine: ArgoEngine, settings: Settings) -> None:
        self._engine = engine
        self._start_seconds = settings.start_timeout_seconds
        self._build_seconds = settings.build_timeout_seconds
        self.admit = engine.admit

    def statuses(self) -> Collection[BuildStatus]:
        return self._engine.known()

    def tend(self, status: BuildStatus) -> None:
        seen = self._engine.seen(status.name)
        if seen is None:
            return
        now = time.time()
        if status.state is State.QUEUED:
            if seen.is_told_to_end:
                # Argo does not look at it while the Workflow is suspended (`argo terminate`, or its UI).
                self.stop(status.name, Reason.CANCELLED)
        elif seen.is_told_to_end:
            return
        elif seen.pending_since and now - seen.pending_since > self._start_seconds:
            self.stop(status.name, Reason.START_TIMEOUT)
        elif status.started and now - status.started > self._build_seconds:
            self.stop(status.name, Reason.TIMEOUT)

    def stop(self, name: BuildName, reason: Reason) -> None:
        self._engine.stop(name, reason)
