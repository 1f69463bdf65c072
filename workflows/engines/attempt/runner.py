"""The detached process of one attempt: executes its steps as a graph, and leaves nothing behind.

It outlives whoever started it. That it lives is said by the kernel alone, which holds its lock on the attempt's folder
for exactly as long. It imports little, because every build waits for it to start.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from workflows.build import BuildStatus, StepStatus
from workflows.engines.attempt.ending import finish
from workflows.engines.attempt.folder import BuildFolder
from workflows.engines.attempt.job import Job
from workflows.errors import EXIT_CODES, SKIPPED, Reason, TransientError
from workflows.image import BuildName
from workflows.pipeline import PUBLISH, Half, Step, reason_of
from workflows.run.tree import adopt_orphans, end_descendants

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
"""How often is looked whether somebody wants the attempt to end."""

_GRACE_SECONDS = 20
"""For a step's runner to end all of its own, which it gives 5 s and then kills, repeatedly for 10 s more."""


class Runner:
    """Executes one attempt.

    Args:
        folder: The attempt.
        job: What to execute.
    """

    def __init__(self, folder: BuildFolder, job: Job) -> None:
        self._folder = folder
        self._job = job
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._codes: dict[str, int] = {}
        self._deadline = time.monotonic() + job.timeout_seconds
        self._told = False
        self._killed = False
        signal.signal(signal.SIGTERM, self._tell)
        adopt_orphans()

    @property
    def is_lost(self) -> bool:
        """Whether it was killed, or told to end, from outside: this process, or what runs a step that gates."""
        return self._told or self._killed

    def run(self) -> Reason | None:
        """Execute the steps.

        Returns:
            The reason from outside, if it was one that ended the attempt, and not a step.
        """
        for half in Half:
            (self._folder.workspace(half) / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            self._start_ready()
            if not self._processes:
                return None
            self._wait()
            reason = self._reason_to_end()
            if reason or reason_of(self._codes, self._job.steps):
                self._end_all()
                return reason

    def _start_ready(self) -> None:
        for step in self._job.steps:
            if step.name in self._codes or step.name in self._processes:
                continue
            codes = [self._codes.get(need) for need in step.needs]
            if any(code not in {None, 0} for code in codes):
                self._record(step.name, exit_code=SKIPPED)
            elif None not in codes:
                self._start(step)

    def _start(self, step: Step) -> None:
        command = [*self._job.command, *step.command(self._job.parameters)]
        self._record(step.name, started=time.time())
        with self._folder.log(step.name).open("ab") as log, self._folder.operator_log.open("ab") as operator:
            self._processes[step.name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=operator,
                cwd=self._folder.workspace(step.half),
                env=dict(self._job.environments[step.name]),
            )

    def _wait(self) -> None:
        """Wait until a step ends, or a moment."""
        handles = [os.pidfd_open(process.pid) for process in self._processes.values()]
        try:
            poll = select.poll()
            for handle in handles:
                poll.register(handle, select.POLLIN)
            poll.poll(_LOOK_SECONDS * 1000)
        finally:
            for handle in handles:
                os.close(handle)
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._end(name, process.returncode)

    def _end(self, name: str, code: int) -> None:
        del self._processes[name]
        if code < 0:
            # Its runner was killed, so it could not end what it had started; that is ours now.
            end_descendants(grace_seconds=1, keep={process.pid for process in self._processes.values()})
            code = EXIT_CODES[Reason.TRANSIENT]
            self._killed |= any(step.name == name and step.gates for step in self._job.steps)
        self._codes[name] = code
        self._record(name, ended=time.time(), exit_code=code)

    def _reason_to_end(self) -> Reason | None:
        if reason := self._folder.stop_reason():
            return reason
        if self.is_lost:
            return Reason.TRANSIENT
        return Reason.TIMEOUT if time.monotonic() >= self._deadline else None

    def _end_all(self) -> None:
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for name, process in list(self._processes.items()):
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _logger.warning("%s: %s does not end, killing it", self._folder.name, name)
                process.kill()
                process.wait()
            self._end(name, process.returncode)

    def _record(self, name: str, *, started: float = 0, ended: float = 0, exit_code: int | None = None) -> None:
        def change(status: BuildStatus) -> BuildStatus:
            steps = tuple(
                StepStatus(name=name, started=started or step.started, ended=ended, exit_code=exit_code)
                if step.name == name
                else step
                for step in status.steps
            )
            published = ended if name == PUBLISH.name and exit_code == 0 else status.published
            return dataclasses.replace(status, steps=steps, published=published)

        self._folder.change(change)

    def _tell(self, number: int, frame: object) -> None:  # noqa: ARG002  # a signal handler's form
        self._told = True


def main() -> None:
    """Execute the attempt that the command line names, or, after ``bury``, end what a dead runner left of one."""
    mode, builds, name = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = BuildFolder(Path(builds), BuildName(name))
    steps: tuple[Step, ...] = ()
    outside: Reason | None = Reason.INTERNAL
    is_lost = False
    try:
        job = Job.from_json((folder.path / "job.json").read_text(encoding="utf-8"))
        steps = job.steps
        if mode == "run":
            runner = Runner(folder, job)
            outside, is_lost = runner.run(), runner.is_lost
        else:
            outside, is_lost = folder.stop_reason() or Reason.TRANSIENT, True
    except TransientError as error:
        # The status cannot be written: the disk is full, perhaps of what this very build laid there.
        _logger.warning("%s: %s", name, error.detail)
        outside = Reason.TRANSIENT
    except Exception:  # the outermost edge of a process
        _logger.exception("%s: the runner failed", name)
    finally:
        end_descendants(grace_seconds=1)
        finish(folder, steps, outside, is_lost=is_lost)
