"""Processes: who ends with whom, and the end of whatever a step left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TURN_SECONDS = 0.05
_KILL_SECONDS = 10
"""How long SIGKILL is repeated: a fork bomb needs several rounds, a process stuck in the kernel never goes."""


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends: none can slip away by a double fork."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """End this process by SIGKILL as soon as `parent`, which must be its parent, is gone."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the kernel knew of our wish.
        os.kill(os.getpid(), signal.SIGKILL)


def has_children() -> bool:
    """Whether this process has any child, ended ones that nobody waited for included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_descendants(*, grace_seconds: float, keep: Collection[int] = ()) -> int:
    """End every descendant: SIGTERM first, SIGKILL once the grace is over.

    Args:
        grace_seconds: Between the two signals.
        keep: Children that are spared with all of theirs. Those that have ended are left for the caller to wait for.

    Returns:
        How many could not be ended: 0, unless the kernel holds one.
    """
    if not has_children():
        return 0
    kill_at = time.monotonic() + grace_seconds
    give_up_at = kill_at + _KILL_SECONDS
    asked: set[int] = set()
    while processes := _descendants(keep):
        now = time.monotonic()
        if now > give_up_at:
            return len(processes)
        for process in processes:
            if now >= kill_at:
                _signal(process, signal.SIGKILL)
            elif process.pid not in asked:
                asked.add(process.pid)
                _signal(process, signal.SIGTERM)
        time.sleep(_TURN_SECONDS)
    return 0


def end_marked(mark: bytes) -> int:
    """End every process of this machine whose environment holds `mark`, at once.

    This finds what outlived a parent that was killed itself.

    Args:
        mark: ``NAME=value``, whole.

    Returns:
        How many were found.
    """
    found = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process that ends meanwhile, or that is not ours to look into, is none of ours.
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(entry.name))
            try:
                with open(f"/proc/{entry.name}/environ", "rb") as environment:  # noqa: PTH123  # hundreds of them
                    if mark in environment.read().split(b"\0"):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        found += 1
            finally:
                os.close(handle)
    return found


def _descendants(keep: Collection[int]) -> list[psutil.Process]:
    # Imported where it is needed: most steps leave nothing behind, and the import costs more than all else here.
    import psutil  # noqa: PLC0415

    found: list[psutil.Process] = []
    waited_for = False
    for child in psutil.Process().children():
        if child.pid in keep:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            found += child.children(recursive=True)
            if child.status() == psutil.STATUS_ZOMBIE:
                waited_for |= os.waitpid(child.pid, os.WNOHANG)[0] != 0
            else:
                found.append(child)
    # The children of one that ended became ours, perhaps after we looked.
    return _descendants(keep) if waited_for else found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
