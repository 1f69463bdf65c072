"""Watches over one step: time, silence, output, retries, and the end of everything that it started."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workflows.errors import EXIT_CODES, SENTENCES, Reason
from workflows.run import OPERATOR_MARK
from workflows.run.child import become_step
from workflows.run.output import Output
from workflows.run.pod import NOTICE, leave_notice
from workflows.run.tree import adopt_orphans, end_descendants

_LOOK_SECONDS = 0.5
"""How often is looked whether our own parent is still there."""

_VERDICT_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step may take.

    Args:
        seconds: Of the step, all its tries together.
        silent_seconds: Without any output.
        max_log_bytes: Of output that is kept.
        tries: How often a transient end is tried in all.
        backoff_seconds: Before the second try; twice as long before each further one.
        grace_seconds: Between SIGTERM and SIGKILL.
    """

    seconds: float
    silent_seconds: float
    max_log_bytes: int
    tries: int = 3
    backoff_seconds: float = 2
    grace_seconds: float = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    code: int
    sentence: str = ""
    final: bool = False  # told from outside to end, or out of time: no further try


class Supervisor:
    """Runs one step, with its tries. One per process, because it owns the process's signals and children.

    Args:
        limits: What the step may take.
        sink: Descriptor of the log.
        notice: Where the sentence of a failure goes, too.
    """

    def __init__(self, limits: Limits, sink: int = 1, notice: Path = NOTICE) -> None:
        self._limits = limits
        self._notice = notice
        self._output = Output(sink, limits.max_log_bytes)
        self._parent = os.getppid()
        self._told = False
        self._wake, alarm = os.pipe()
        for handle in (self._wake, alarm):
            os.set_blocking(handle, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        adopt_orphans()

    def run(self, step: Callable[[], None]) -> int:
        """Run `step` in a child process until it ends well or for good.

        Returns:
            The contract's exit code. The log's last line is then the sentence for the visitor, unless it is 0.
        """
        deadline = time.monotonic() + self._limits.seconds
        ending = self._try(step, deadline)
        for number in range(1, self._limits.tries):
            if ending.final or ending.code != EXIT_CODES[Reason.TRANSIENT]:
                break
            pause = self._limits.backoff_seconds * 2 ** (number - 1)
            self._output.say(f"Try {number} of {self._limits.tries}: {ending.sentence} Next try in {pause:g} s.")
            if time.monotonic() + pause >= deadline or self._pause(pause):
                break
            ending = self._try(step, deadline)
        if ending.code:
            self._output.say(ending.sentence)
            leave_notice(ending.sentence, self._notice)
        self._output.close()
        return ending.code

    def _try(self, step: Callable[[], None], deadline: float) -> _Ending:
        if self._told:
            return _told_to_end()
        killed_before = _killed_for_memory()
        child, output, verdict = _fork(step)
        try:
            ending = self._follow(child, output, deadline)
            if not ending:
                ending = _ending_of(child, verdict, for_memory=_killed_for_memory() > killed_before)
            self._end_all()
            self._drain(output)
            return ending
        finally:
            os.close(output)
            os.close(verdict)

    def _follow(self, child: int, output: int, deadline: float) -> _Ending | None:
        """Relay output until the child ends (None) or must be ended."""
        handle = os.pidfd_open(child)
        poll = select.poll()
        for descriptor in (handle, output, self._wake):
            poll.register(descriptor, select.POLLIN)
        silent_at = time.monotonic() + self._limits.silent_seconds
        try:
            while True:
                wait = min(deadline, silent_at, time.monotonic() + _LOOK_SECONDS) - time.monotonic()
                ready = {descriptor for descriptor, _ in poll.poll(max(0, wait) * 1000)}
                # First of all: what the step left behind may write for ever.
                if handle in ready:
                    return None
                if output in ready:
                    if chunk := os.read(output, self._output.chunk_bytes):
                        self._output.feed(chunk)
                        silent_at = time.monotonic() + self._limits.silent_seconds
                    else:
                        # The step closed its output and goes on: it counts as silent.
                        poll.unregister(output)
                if ending := self._must_end(deadline, silent_at):
                    return ending
        finally:
            os.close(handle)

    def _must_end(self, deadline: float, silent_at: float) -> _Ending | None:
        now = time.monotonic()
        if self._told or os.getppid() != self._parent:
            return _told_to_end()
        if now >= deadline:
            return _final(Reason.TIMEOUT)
        if now >= silent_at:
            return _final(Reason.SILENT)
        return None

    def _end_all(self) -> None:
        if left := end_descendants(grace_seconds=self._limits.grace_seconds):
            print(f"{OPERATOR_MARK}{left} processes cannot be ended", file=sys.stderr, flush=True)  # noqa: T201

    def _drain(self, output: int) -> None:
        # Everything that could write is gone, so this ends; where the kernel holds a process, it must not wait.
        os.set_blocking(output, False)
        try:
            while chunk := os.read(output, self._output.chunk_bytes):
                self._output.feed(chunk)
        except BlockingIOError:
            return

    def _pause(self, seconds: float) -> bool:
        """Wait; whether we were told to end meanwhile."""
        select.select([self._wake], [], [], seconds)
        return self._told

    def _tell(self, number: int, frame: object) -> None:  # noqa: ARG002  # a signal handler's form
        self._told = True


def _fork(step: Callable[[], None]) -> tuple[int, int, int]:
    output, output_end = os.pipe()
    verdict, verdict_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        become_step(step, parent=parent, output=output_end, verdict=verdict_end)
    os.close(output_end)
    os.close(verdict_end)
    return child, output, verdict


def _ending_of(child: int, verdict: int, *, for_memory: bool) -> _Ending:
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and for_memory:
        return _because(Reason.OUT_OF_MEMORY)
    if code in {-signal.SIGKILL, -signal.SIGTERM}:
        # Neither we nor the kernel for want of memory: an operator, or a machine that goes down.
        return _because(Reason.TRANSIENT)
    os.set_blocking(verdict, False)
    try:
        sentence = json.loads(os.read(verdict, _VERDICT_BYTES) or b'""')
    except (BlockingIOError, ValueError):
        sentence = ""
    if code and code not in EXIT_CODES.values():
        return _because(Reason.INTERNAL)
    return _Ending(code=code, sentence=" ".join(sentence.split()) or SENTENCES[_reason(code)])


def _reason(code: int) -> Reason:
    return next((reason for reason, known in EXIT_CODES.items() if known == code), Reason.INTERNAL)


def _because(reason: Reason) -> _Ending:
    return _Ending(code=EXIT_CODES[reason], sentence=SENTENCES[reason])


def _final(reason: Reason) -> _Ending:
    return _Ending(code=EXIT_CODES[reason], sentence=SENTENCES[reason], final=True)


def _told_to_end() -> _Ending:
    return _Ending(
        code=EXIT_CODES[Reason.TRANSIENT], sentence="The service ended this step before it was done.", final=True
    )


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory, since it started."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
