"""The end of an attempt: what it leaves is cleared away, then its status says how it ended."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import subprocess
import time
from pathlib import Path

from workflows.build import BuildStatus, State, StepStatus
from workflows.engines.attempt.folder import BuildFolder
from workflows.engines.attempt.job import WORKSPACE
from workflows.errors import DISK_FULL, EXIT_CODES, SENTENCES, SKIPPED, SKIPPED_EXIT_CODES, Reason
from workflows.pipeline import Half, Step, reason_of
from workflows.run.tree import end_marked

_logger = logging.getLogger(__name__)

_MESSAGE_BYTES = 4096

_FULL_BYTES = 64 * 1024
"""A disk with less than this takes no more of a log, which is written in pieces of this size."""

_ROUND_SECONDS = 0.05
_ROUNDS = 20
"""How often the machine is looked through for what was left: one that forks may be a step ahead of every look."""


def finish(folder: BuildFolder, steps: tuple[Step, ...], outside: Reason | None, *, is_lost: bool = False) -> None:
    """Clear away what the attempt leaves, then say how it ended.

    Args:
        folder: The attempt.
        steps: Its plan.
        outside: The reason, if it was not a step that ended it.
        is_lost: Whether what ran it was killed.
    """
    is_full = _is_full(folder)
    _clear(folder)

    def change(status: BuildStatus) -> BuildStatus | None:
        if status.state.ended:
            return None
        ended = _ended(folder, status, steps, outside)
        if is_full and ended.reason is Reason.TRANSIENT:
            # Not even the log could take what the step said last.
            ended = dataclasses.replace(ended, message=DISK_FULL)
        return dataclasses.replace(ended, lost=is_lost and ended.reason is Reason.TRANSIENT)

    folder.change(change)


def _ended(folder: BuildFolder, status: BuildStatus, steps: tuple[Step, ...], outside: Reason | None) -> BuildStatus:
    codes = {step.name: step.exit_code for step in status.steps if step.exit_code is not None}
    well = bool(steps) and all(codes.get(step.name) == 0 for step in steps if step.gates)
    reason = None if well else outside or reason_of(codes, steps) or Reason.INTERNAL
    message = ""
    if reason:
        failed = next(
            (step.name for step in steps if step.gates and codes.get(step.name, 0) not in SKIPPED_EXIT_CODES), ""
        )
        message = (not outside and _last_line(folder.log(failed))) or SENTENCES[reason]
    now = time.time()
    return dataclasses.replace(
        status,
        state=State.FAILED if reason else State.SUCCEEDED,
        reason=reason,
        message=message,
        queue_position=0,
        ended=now,
        # Where a runner died, steps that it could not ask are over all the same.
        steps=tuple(_over(step, now) for step in status.steps),
    )


def _over(step: StepStatus, now: float) -> StepStatus:
    if step.exit_code is not None:
        return step
    if not step.started:
        return dataclasses.replace(step, exit_code=SKIPPED)
    return dataclasses.replace(step, ended=now, exit_code=EXIT_CODES[Reason.TRANSIENT])


def _is_full(folder: BuildFolder) -> bool:
    return shutil.disk_usage(folder.path).free < _FULL_BYTES


def _clear(folder: BuildFolder) -> None:
    # Processes first: they could write anew what is removed.
    for clear in (_sweep_builder, _end_left, _remove_workspaces, _discard_staging):
        try:
            clear(folder)
        except Exception:  # the outermost edge of a process: what cannot be cleared must not keep the rest
            _logger.exception("%s: %s failed", folder.name, clear.__name__)


def _sweep_builder(folder: BuildFolder) -> None:
    # The imports stand here because nobody waits for them by now.
    from workflows.builder.isolation import sweep  # noqa: PLC0415

    sweep(folder.name)


def _end_left(folder: BuildFolder) -> None:
    # Whatever has slipped away from its parents carries its workspace in its environment still.
    for half in Half:
        mark = f"{WORKSPACE}={folder.workspace(half)}".encode()
        for _ in range(_ROUNDS):
            if not (found := end_marked(mark)):
                break
            _logger.warning("%s: ended %d processes that were left", folder.name, found)
            time.sleep(_ROUND_SECONDS)


def _remove_workspaces(folder: BuildFolder) -> None:
    for path in (folder.workspace(Half.STRANGERS), folder.workspace(Half.OURS) / "tmp"):
        _remove(path)


def _discard_staging(folder: BuildFolder) -> None:
    from workflows.settings import load  # noqa: PLC0415
    from workflows.stores.staging import Staging  # noqa: PLC0415

    Staging(load()).discard(folder.name)


def _remove(path: Path) -> None:
    # Not shutil.rmtree, which a stranger's tree of a thousand levels brings down.
    done = subprocess.run(["rm", "-rf", "--one-file-system", "--", path], capture_output=True, text=True, check=False)
    if done.returncode:
        _logger.warning("%s stays: %s", path, done.stderr.strip()[:1000])


def _last_line(path: Path) -> str:
    """The last line of a log, or an empty string."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MESSAGE_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
