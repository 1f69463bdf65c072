"""Processes as a test sees them from outside."""

from __future__ import annotations

from contextlib import suppress

import psutil


def lives(pid: int) -> bool:
    """Whether a process is there, and is more than an entry that nobody has waited for yet."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
