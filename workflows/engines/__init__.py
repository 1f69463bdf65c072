"""What executes builds: the seam, held by `workflows.engines.local` and `workflows.engines.argo`.

Source: ../../shared/design.md, *Engines*.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Protocol

from workflows.build import BuildRequest, BuildStatus, LogEnd, LogLine, State
from workflows.errors import SENTENCES, Reason
from workflows.image import BuildName


class Engine(Protocol):
    """Executes builds; every method may block, none needs an event loop."""

    def submit(self, request: BuildRequest) -> BuildStatus:
        """Queue a build, or join the one of the same name: idempotent by name, from any number of processes."""
        ...

    def status(self, name: BuildName) -> BuildStatus | None:
        """What is known of one attempt; None where there never was one, or it is gone."""
        ...

    def watch(self) -> Iterator[BuildStatus]:
        """Everything that is known, then every change, for ever; reconnects by itself."""
        ...

    def logs(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        """From the first line of the first step, then as they come, until the attempt ends; after each step its end."""
        ...

    def outputs(self, name: BuildName) -> dict[str, bytes]:
        """What our half left behind, by file name.

        ``pushed.json`` once there was a push; ``sbom.cdx.json`` and ``findings.json`` once there was a scan.
        """
        ...

    def admit(self, name: BuildName) -> None:
        """A queued build may run now; nothing happens where it runs already or has ended."""
        ...

    def stop(self, name: BuildName, reason: Reason) -> None:
        """End an attempt for `reason`, in every state; nothing happens where it has ended."""
        ...


def cancelled(status: BuildStatus) -> BuildStatus:
    """An attempt that somebody has taken away from its engine: it ends now, and by no fault of its own."""
    return dataclasses.replace(
        status,
        state=State.FAILED,
        reason=Reason.CANCELLED,
        message=SENTENCES[Reason.CANCELLED],
        queue_position=0,
        ended=time.time(),
    )
