"""Tells every process which attempts changed, without anybody looking through hundreds of folders.

Whoever changed an attempt adds its name to one file; whoever watches reads what was added. Adding a name is a wish to
be looked at, not the truth: that is the attempt's own status.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

from workflows.build import BuildStatus
from workflows.image import BuildName, is_build_name

_NAME = ".changes"
_MAX_BYTES = 256 * 1024
_SCAN_SECONDS = 30
"""How often everything is looked at anyway: a process may die after its change and before it told."""


def tell(builds: Path, name: BuildName) -> None:
    """Say that an attempt's status has changed. To be called after the change."""
    path = builds / _NAME
    # Where it cannot be written (disk full), the next scan finds the change.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, f"{name}\n".encode())
            too_large = os.fstat(handle).st_size > _MAX_BYTES
        finally:
            os.close(handle)
        if too_large:
            # Readers notice that theirs has lost its name, and look at everything once.
            handle, fresh = tempfile.mkstemp(dir=builds, prefix=".new-")
            os.close(handle)
            Path(fresh).replace(path)


class Changes:
    """What changed since it was last asked; at first, everything. Not for several threads.

    Args:
        builds: The folder of all attempts.
    """

    def __init__(self, builds: Path) -> None:
        self._builds = builds
        self._handle = -1
        self._scan_at = 0.0
        self._rest = b""
        self.known: dict[BuildName, BuildStatus] = {}

    def poll(self) -> list[BuildStatus]:
        """The attempts whose status is another than when it was last returned, each as it is now."""
        now = time.monotonic()
        if self._is_stale() or now >= self._scan_at:
            self._reopen()
            self._scan_at = now + _SCAN_SECONDS
            names = self._all()
        else:
            names = self._added()
        return [status for name in names if (status := self._look(name))]

    def close(self) -> None:
        """Give the journal back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _is_stale(self) -> bool:
        return self._handle < 0 or os.fstat(self._handle).st_nlink == 0

    def _reopen(self) -> None:
        # Before the scan, so that nothing falls between the two.
        self.close()
        self._handle = os.open(self._builds / _NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.lseek(self._handle, 0, os.SEEK_END)
        self._rest = b""

    def _all(self) -> list[BuildName]:
        found = [BuildName(entry.name) for entry in os.scandir(self._builds) if is_build_name(entry.name)]
        for name in self.known.keys() - set(found):
            del self.known[name]
        return sorted(found)

    def _added(self) -> list[BuildName]:
        lines = self._rest
        while chunk := os.read(self._handle, 64 * 1024):
            lines += chunk
        *whole, self._rest = lines.split(b"\n")
        names = dict.fromkeys(line.decode("ascii", "replace") for line in whole)
        return [BuildName(name) for name in names if is_build_name(name)]

    def _look(self, name: BuildName) -> BuildStatus | None:
        try:
            status = BuildStatus.from_json((self._builds / name / "status.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            self.known.pop(name, None)
            return None
        if self.known.get(name) == status:
            return None
        self.known[name] = status
        return status
