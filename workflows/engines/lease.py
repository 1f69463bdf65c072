"""What one of many processes does alone: whoever holds the lease."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol


class Lease(Protocol):
    """Held by one process at a time."""

    def held(self) -> bool:
        """Whether this process holds it, or takes it now. To be asked every second or so."""
        ...

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        ...


class FileLease:
    """A lease between the processes of one machine, which ends with its holder.

    Args:
        path: A file that nobody else uses; made at the first question.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1

    def held(self) -> bool:
        """See `Lease`."""
        if self._lock >= 0:
            return True
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def release(self) -> None:
        """See `Lease`."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Unshared:
    """A lease where nobody else could want it, or where it may be held by all at the same time."""

    def held(self) -> bool:
        """See `Lease`."""
        return True

    def release(self) -> None:
        """See `Lease`."""
