"""The engine of one machine: a detached process per build, its state and logs on disk.

Every method may be called by any number of processes at once: what orders them are the locks in the attempt's folder.

Source: ../../shared/design.md, *Engines*.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator

from workflows.build import BuildRequest, BuildStatus, LogEnd, LogLine, State, StepStatus
from workflows.engines.attempt.detached import start_runner
from workflows.engines.attempt.environment import engine_environment, step_environment
from workflows.engines.attempt.folder import BuildFolder, remove_unfinished
from workflows.engines.attempt.job import Job
from workflows.engines.attempt.journal import Changes
from workflows.engines.attempt.log import follow
from workflows.errors import SENTENCES, SKIPPED, Reason, TransientError
from workflows.image import BuildName, is_build_name
from workflows.pipeline import RUNNER, Half, Step, ours_of, plan
from workflows.settings import Settings
from workflows.stores.files import write_whole

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_UNFINISHED_SECONDS = 60
"""Making or removing a folder takes milliseconds; what is older has nobody any more."""
_OUTPUTS = ("sbom.cdx.json", "findings.json", "pushed.json")


class LocalEngine:
    """Executes builds as processes of this machine.

    Args:
        settings: The farm's.
        steps: The pipeline; None: the one that the settings ask for.
        command: What stands before a step's name and arguments.
        sleep: How a thread that watches or follows waits. A server that gevent has patched passes one that does not
            make an event loop for every thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        steps: tuple[Step, ...] | None = None,
        command: tuple[str, ...] = (sys.executable, *RUNNER[1:]),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._steps = steps or plan(
            policy=settings.scan_policy, attach=settings.image_store == "registry", warm=settings.wheel_cache
        )
        self._command = command
        self._sleep = sleep
        self.builds = settings.builds_folder
        self.builds.mkdir(parents=True, exist_ok=True, mode=0o700)

    def submit(self, request: BuildRequest) -> BuildStatus:
        """Queue a build, or join the one of the same name: idempotent by name, from any number of processes.

        Raises:
            TransientError: The disk is full, or the like.
        """
        steps = tuple(StepStatus(name=step.name) for step in self._plan(request))
        status = BuildStatus(request=request, state=State.QUEUED, created=time.time(), steps=steps)
        if BuildFolder.create(self.builds, status):
            return status
        # Only one that was forgotten in this very moment is not there; then it ended long ago.
        return self.status(request.name) or status

    def status(self, name: BuildName) -> BuildStatus | None:
        """What is known of one attempt; None where there never was one, or it is forgotten."""
        return self._folder(name).status() if is_build_name(name) else None

    def watch(self) -> Iterator[BuildStatus]:
        """Everything that is known, then every change, for ever. Changes of one moment are told as one."""
        changes = Changes(self.builds)
        try:
            while True:
                yield from changes.poll()
                self._sleep(_LOOK_SECONDS)
        finally:
            changes.close()

    def logs(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        """From the first line of the first step, then as they come, until the attempt ends; after each step its end."""
        yield from follow(self._folder(name), self._sleep)

    def outputs(self, name: BuildName) -> dict[str, bytes]:
        """What our half left behind, by file name: ``sbom.cdx.json`` and ``findings.json`` once there was a scan."""
        folder = self._folder(name).workspace(Half.OURS)
        found = (folder / output for output in _OUTPUTS)
        return {path.name: path.read_bytes() for path in found if path.is_file()}

    def admit(self, name: BuildName) -> None:
        """A queued build may run now; nothing happens where it runs already or has ended.

        Raises:
            TransientError: No process can be started now; the build stays queued.
        """
        folder = self._folder(name)
        # The lock is held from before the status says so, and passes to the runner: at no moment does a build that
        # runs look like one whose runner died.
        if (lock := folder.take_runner_lock()) is None:
            return
        status = folder.status()
        if status is None or status.state is not State.QUEUED:
            os.close(lock)
            return
        job = self._job(folder, status.request)
        write_whole(folder.path / "job.json", job.to_json(), mode=0o600)
        started = folder.change(_start)
        if started is None or started.state is not State.RUNNING:
            # Stopped or forgotten in between.
            os.close(lock)
            return
        try:
            start_runner(folder, "run", lock, engine_environment(self._settings))
        except TransientError:
            folder.change(lambda _: status)
            raise

    def stop(self, name: BuildName, reason: Reason) -> None:
        """End an attempt for `reason`, in every state; nothing happens where it has ended.

        Returns at once: that it has ended is told by `watch`.
        """
        folder = self._folder(name)
        status = folder.change(lambda status: _refuse(status, reason) if status.state is State.QUEUED else None)
        if status is not None and status.state is State.RUNNING:
            folder.ask_to_stop(reason)
            self.bury(name)

    def bury(self, name: BuildName) -> None:
        """End an attempt whose runner died; nothing happens where it lives, or where the attempt has ended.

        Raises:
            TransientError: No process can be started now.
        """
        folder = self._folder(name)
        if (lock := folder.take_runner_lock()) is None:
            return
        status = folder.status()
        if status is None or status.state is not State.RUNNING:
            os.close(lock)
            return
        _logger.warning("%s: its runner died", name)
        start_runner(folder, "bury", lock, engine_environment(self._settings))

    def place(self, name: BuildName, position: int) -> None:
        """Note a queued build's place in the queue."""
        self._folder(name).change(
            lambda status: (
                dataclasses.replace(status, queue_position=position) if status.state is State.QUEUED else None
            )
        )

    def forget(self, name: BuildName) -> None:
        """Delete what is left of an ended attempt; nothing happens where nothing is, or where it goes on."""
        status = self.status(name)
        if status is not None and status.state.ended:
            self._folder(name).remove()

    def tidy(self) -> None:
        """Remove what processes that were killed left half made or half removed."""
        remove_unfinished(self.builds, older_than=time.time() - _UNFINISHED_SECONDS)

    def _plan(self, request: BuildRequest) -> tuple[Step, ...]:
        return ours_of(self._steps) if request.held else self._steps

    def _job(self, folder: BuildFolder, request: BuildRequest) -> Job:
        steps = self._plan(request)
        return Job(
            steps=steps,
            command=self._command,
            parameters=request.parameters(),
            environments={
                step.name: step_environment(step, folder.workspace(step.half), self._settings) for step in steps
            },
            timeout_seconds=self._settings.build_timeout_seconds,
        )

    def _folder(self, name: BuildName) -> BuildFolder:
        return BuildFolder(self.builds, name)


def _start(status: BuildStatus) -> BuildStatus | None:
    if status.state is not State.QUEUED:
        return None
    return dataclasses.replace(status, state=State.RUNNING, started=time.time(), queue_position=0)


def _refuse(status: BuildStatus, reason: Reason) -> BuildStatus:
    return dataclasses.replace(
        status,
        state=State.FAILED,
        reason=reason,
        message=SENTENCES[reason],
        queue_position=0,
        ended=time.time(),
        steps=tuple(dataclasses.replace(step, exit_code=SKIPPED) for step in status.steps),
    )
