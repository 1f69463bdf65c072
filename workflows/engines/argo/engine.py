"""The engine of a cluster: each build is a Workflow, and the Workflow is the truth.

Any number of processes may have one, and none keeps anything that the others need: the queue is suspended Workflows,
the lock of a name is the Workflow of that name, and what is known of running ones is a watch that can be begun anew.

Source: ../../../shared/design.md, *Engines*, and ../../../shared/reference/argo.md.
"""

from __future__ import annotations

import dataclasses
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from workflows.build import BuildRequest, BuildStatus, LogEnd, LogLine, State
from workflows.cluster.connection import Cluster
from workflows.cluster.lease import KubernetesLease
from workflows.cluster.watch import Change, Watch
from workflows.engines import cancelled
from workflows.engines.argo import order
from workflows.engines.argo.reading.log import Log
from workflows.engines.argo.reading.outputs import outputs
from workflows.engines.argo.reading.seen import Seen, read
from workflows.engines.argo.site import LABEL, RECORDED
from workflows.engines.lease import Lease
from workflows.engines.turns import places
from workflows.errors import Reason, TransientError
from workflows.image import BuildName, is_build_name
from workflows.settings import Settings
from workflows.stores.staging import Staging

SELECTOR = f"{LABEL}=true,{RECORDED}!=true"
"""What is filed is not looked at again: neither by a watch nor after a restart."""


class ArgoEngine:
    """Executes builds as Argo Workflows.

    Args:
        settings: The farm's.
        cluster: Kubernetes; None: the one that this process finds.
        sleep: How a thread that watches or follows waits. A server that gevent has patched passes one that does not
            make an event loop for every thread.
    """

    def __init__(
        self, settings: Settings, cluster: Cluster | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._settings = settings
        self._cluster = cluster or Cluster()
        # A pod's name alone could come again after a crash, while the lease of the one before still runs.
        self._holder = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        kinds = f"namespaces/{settings.builds_namespace}"
        self._path = f"/apis/argoproj.io/v1alpha1/{kinds}/workflows"
        self._log = Log(self._cluster, f"/api/v1/{kinds}/pods", self._look, sleep)
        self._watch = Watch(self._cluster, self._path, SELECTOR, sleep=sleep)
        # Single operations on this dictionary are whole between threads, and the watch's thread alone changes it.
        self._known: dict[BuildName, Seen] = {}

    def known(self) -> list[BuildStatus]:
        """What the watch knows now; any thread may ask."""
        return [seen.status for seen in tuple(self._known.values())]

    def seen(self, name: BuildName) -> Seen | None:
        """What the watch knows of one Workflow; any thread may ask."""
        return self._known.get(name)

    @property
    def is_current(self) -> bool:
        """Whether the watch knows everything, as far as anybody can tell."""
        return self._watch.is_current

    def submit(self, request: BuildRequest) -> BuildStatus:
        """Queue a build, or join the one of the same name: idempotent by name, from any number of processes.

        Raises:
            TransientError: Kubernetes does not answer.
            ConfigError: It does not let us.
        """
        body = order.workflow(request, self._settings.workflow_template, time.time())
        found = self._cluster.create(self._path, body)
        if found is None:
            found = self._get(request.name)
        seen = read(found, self._settings) if found is not None else None
        if seen is None:
            # Deleted in this very moment; or somebody has given a Workflow of theirs the name of a build.
            raise TransientError(detail=f"the Workflow {request.name} is none of ours, or was deleted just now")
        return seen.status

    def status(self, name: BuildName) -> BuildStatus | None:
        """What is known of one attempt; None where there never was one, or it is filed, or deleted.

        Raises:
            TransientError: Kubernetes does not answer.
        """
        seen = self._look(name)
        return seen.status if seen else None

    def watch(self) -> Iterator[BuildStatus]:
        """Everything that is known, then every change, for ever. One thread at a time.

        Raises:
            ConfigError: Kubernetes does not let us.
        """
        for change in self._watch.changes():
            is_moved = change is None
            if change is not None:
                before = self._known.get(BuildName(change.name))
                yield from self._changed(change, before)
                after = self._known.get(BuildName(change.name))
                is_moved = (before and before.status.state) != (after and after.status.state)
            if is_moved and self.is_current:
                yield from self._placed()

    def logs(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        """From the first line of the first step, then as they come, until the attempt ends; after each step its end.

        Raises:
            TransientError: It has ended, and Kubernetes does not answer.
        """
        return self._log.follow(name) if is_build_name(name) else iter(())

    def outputs(self, name: BuildName) -> dict[str, bytes]:
        """What our half left behind, by file name; see `Engine`.

        Raises:
            TransientError: Kubernetes or the registry does not answer.
        """
        status = self.status(name)
        return outputs(status, self._log, self._settings) if status else {}

    def admit(self, name: BuildName) -> None:
        """A queued build may run now; nothing happens where it runs already or has ended.

        Raises:
            TransientError: Kubernetes does not answer; the build stays queued.
        """
        status = self.status(name)
        if status is not None and status.state is State.QUEUED:
            self._cluster.patch(self._of(name), order.admission(time.time()))

    def stop(self, name: BuildName, reason: Reason) -> None:
        """End an attempt for `reason`, in every state; nothing happens where it has ended.

        Returns at once: that it has ended is told by `watch`.

        Raises:
            TransientError: Kubernetes does not answer.
        """
        status = self.status(name)
        if status is not None and not status.state.ended:
            self._cluster.patch(self._of(name), order.stopping(reason))

    def forget(self, name: BuildName) -> None:
        """Mark an ended attempt as filed, and clear its staging place; nothing happens where it goes on.

        The Workflow itself stays, for whoever uses Argo's UI, until its own time is over.

        Raises:
            TransientError: Kubernetes or the registry does not answer.
        """
        status = self.status(name)
        if status is not None and status.state.ended:
            Staging(self._settings).discard(name)
            self._cluster.patch(self._of(name), order.recording(status.request, status.message))

    def check(self) -> None:
        """Whether builds can be submitted.

        Raises:
            TransientError: Kubernetes does not answer.
            ConfigError: It does not let us.
        """
        self._cluster.get(self._path, {"limit": "1"})

    def lease(self, name: str) -> Lease:
        """What one replica does alone; of each name ask for one only."""
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self._settings.builds_namespace}/leases"
        return KubernetesLease(self._cluster, leases, name, self._holder)

    # --- what is known ---

    def _look(self, name: BuildName) -> Seen | None:
        known = self._known.get(name)
        if known is not None:
            return known
        found = self._get(name)
        seen = read(found, self._settings) if found is not None else None
        return seen if seen is not None and not seen.is_recorded else None

    def _changed(self, change: Change, before: Seen | None) -> Iterator[BuildStatus]:
        name = BuildName(change.name)
        after = read(change.found, self._settings) if change.found is not None else None
        if after is None:
            self._known.pop(name, None)
            if before is not None and not before.status.state.ended:
                # Only what has ended is ever marked as filed, so somebody deleted it.
                yield cancelled(before.status)
            return
        place = before.status.queue_position if before else 0
        if after.status.state is State.QUEUED:
            after = _at(after, place)
        self._known[name] = after
        yield after.status

    def _placed(self) -> Iterator[BuildStatus]:
        """Those whose place in the queue has changed. Every process counts by itself: all of them see the same."""
        for name, place in places(self.known()).items():
            seen = self._known[name]
            if seen.status.queue_position != place:
                self._known[name] = _at(seen, place)
                yield self._known[name].status

    def _get(self, name: BuildName) -> dict[str, Any] | None:
        # Asked before it reaches a path.
        return self._cluster.get(self._of(name)) if is_build_name(name) else None

    def _of(self, name: BuildName) -> str:
        return f"{self._path}/{name}"


def _at(seen: Seen, place: int) -> Seen:
    return dataclasses.replace(seen, status=dataclasses.replace(seen.status, queue_position=place))
