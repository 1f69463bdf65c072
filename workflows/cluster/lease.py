"""A lease that one of many processes holds, in the cluster.

Who holds it says so every few seconds. Who has not for as long as the lease lasts has lost it: another takes it, and
the API server lets only one of several do so, because each names the version that it read. Nobody's clock is compared
with anybody else's: how long a holder has been silent is measured by who watches it.

Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from workflows.cluster.connection import Cluster, Json
from workflows.errors import ArgosyError

_logger = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""How long nobody does a dead holder's work. Renewed at a third of it, given up at two thirds without an answer."""


class KubernetesLease:
    """One lease, as one process sees it. Not for several threads.

    Args:
        cluster: Where it is.
        path: Of leases in a namespace.
        name: The lease's.
        holder: This process's name, of its own.
        seconds: How long it lasts without being renewed.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        name: str,
        holder: str,
        *,
        seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._path = path
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._clock = clock
        self._is_ours = False
        self._said_at = float("-inf")
        self._looked_at = float("-inf")
        self._others = ""
        self._others_at = 0.0

    def held(self) -> bool:
        """Whether this process holds it. Takes and renews it where it is time to; to be called every second or so."""
        now = self._clock()
        if now - self._looked_at >= self._seconds / 3:
            self._looked_at = now
            try:
                self._is_ours = self._take(now)
            except ArgosyError as error:
                _logger.warning("lease %s: %s", self._name, error.detail)
        # Long before anybody else may take it: what was begun under it has time to end.
        return self._is_ours and self._clock() - self._said_at < self._seconds * 2 / 3

    def release(self) -> None:
        """Give it back, so that nobody has to wait; nothing happens where it is not held."""
        if not self._is_ours:
            return
        self._is_ours, self._looked_at = False, float("-inf")
        try:
            found = self._cluster.get(f"{self._path}/{self._name}")
            if found is not None and found["spec"].get("holderIdentity") == self._holder:
                self._cluster.replace(f"{self._path}/{self._name}", found | {"spec": self._spec(found, "")})
        except ArgosyError as error:
            _logger.warning("lease %s: %s", self._name, error.detail)

    def _take(self, now: float) -> bool:
        found = self._cluster.get(f"{self._path}/{self._name}")
        if found is None:
            about = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
            taken = self._cluster.create(self._path, about | {"spec": self._spec({}, self._holder)})
        elif self._is_free(found, now):
            taken = self._cluster.replace(
                f"{self._path}/{self._name}", found | {"spec": self._spec(found, self._holder)}
            )
        else:
            return False
        if taken is None:
            return False
        if not self._is_ours:
            _logger.info("lease %s: taken by %s", self._name, self._holder)
        # From before the request: others count from when they saw it.
        self._said_at = now
        return True

    def _is_free(self, found: Json, now: float) -> bool:
        holder = found["spec"].get("holderIdentity")
        if holder in {self._holder, "", None}:
            return True
        version = found["metadata"]["resourceVersion"]
        if version != self._others:
            self._others, self._others_at = version, now
        return now - self._others_at >= float(found["spec"].get("leaseDurationSeconds") or self._seconds)

    def _spec(self, found: Json, holder: str) -> Json:
        before = found.get("spec", {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_new = before.get("holderIdentity") != holder
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "renewTime": now,
            "acquireTime": now if is_new else before.get("acquireTime", now),
            "leaseTransitions": int(before.get("leaseTransitions", 0)) + is_new,
        }
