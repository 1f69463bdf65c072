"""A build's control groups: limits that bind all of its processes together, and their end.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html (``oom_control``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from workflows.errors import ConfigError
from workflows.settings import MIB

_ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "cpu", "pids")
_PERIOD_MICROSECONDS = 100_000
_OWN_BYTES = 64 * MIB
_OWN_PIDS = 128
"""What our own tools (buildah, runc) may take beside the build's commands: they are in the same group."""
_KILL_SECONDS = 10


class ControlGroup:
    """The control group of one build, in version 2 or, where the machine still has it, in version 1."""

    def __init__(self, name: str) -> None:
        self._unified = (_ROOT / "cgroup.controllers").exists()
        self._oom = -1
        self.folders = folders(name)

    def create(self, *, memory_bytes: int, cpus: float, pids: int) -> None:
        """Make it, with its limits.

        Raises:
            ConfigError: The machine does not let us.
        """
        quota = max(1000, int(cpus * _PERIOD_MICROSECONDS))
        limit, processes = str(memory_bytes + _OWN_BYTES), str(pids + _OWN_PIDS)
        try:
            if self._unified:
                self._create_unified(limit, f"{quota} {_PERIOD_MICROSECONDS}", processes)
            else:
                self._create_legacy(limit, str(quota), processes)
        except OSError as error:
            raise ConfigError(detail=f"control groups: {error}") from error

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended one of its processes because the limit was reached."""
        if not self._unified:
            if self._oom < 0:
                return False
            with contextlib.suppress(BlockingIOError):
                return os.eventfd_read(self._oom) > 0
            return False
        with contextlib.suppress(OSError):
            text = (self.folders[0] / "memory.events").read_text(encoding="ascii")
            return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())
        return False

    def remove(self) -> None:
        """End every process in it, and take it away."""
        if self._oom >= 0:
            os.close(self._oom)
            self._oom = -1
        remove(self.folders)

    def _create_unified(self, memory: str, cpu: str, pids: str) -> None:
        (folder,) = self.folders
        for parent in (_ROOT, folder.parent):
            parent.mkdir(exist_ok=True)
            for controller in _V1:
                _write(parent / "cgroup.subtree_control", f"+{controller}")
        folder.mkdir(exist_ok=True)
        _write(folder / "memory.max", memory)
        _write(folder / "cpu.max", cpu)
        _write(folder / "pids.max", pids)
        with contextlib.suppress(FileNotFoundError):
            _write(folder / "memory.swap.max", "0")

    def _create_legacy(self, memory: str, quota: str, pids: str) -> None:
        group, cpu, processes = self.folders
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        _write(group / "memory.limit_in_bytes", memory)
        with contextlib.suppress(FileNotFoundError):
            _write(group / "memory.memsw.limit_in_bytes", memory)
        _write(cpu / "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS))
        _write(cpu / "cpu.cfs_quota_us", quota)
        _write(processes / "pids.max", pids)
        # Version 1 counts a kill in the victim's group, which may be gone then; but it tells whose limit it was.
        self._oom = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(group / "memory.oom_control", os.O_RDONLY)
        try:
            _write(group / "cgroup.event_control", f"{self._oom} {control}")
        finally:
            os.close(control)


def folders(name: str) -> tuple[Path, ...]:
    """Where a build's groups lie: one in version 2, one of each controller in version 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return (_ROOT / "argosy" / name,)
    # Below our own: whatever limits us limits our builds.
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    fields = (line.split(":", 2) for line in lines)
    own = {controller: path for _, names, path in fields for controller in names.split(",")}
    return tuple(_ROOT / controller / own.get(controller, "/").strip("/") / "argosy" / name for controller in _V1)


def remove(groups: tuple[Path, ...]) -> None:
    """End every process in the groups, and take these away; nothing happens where they do not exist."""
    give_up_at = time.monotonic() + _KILL_SECONDS
    for group in groups:
        while group.exists() and time.monotonic() < give_up_at:
            for process in _processes(group):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            try:
                for folder in sorted(group.rglob("*/"), reverse=True):
                    folder.rmdir()
                group.rmdir()
            except FileNotFoundError:
                continue  # a group below went by itself
            except OSError as error:
                if error.errno != errno.EBUSY:
                    break
                time.sleep(0.02)


def _processes(group: Path) -> set[int]:
    found: set[int] = set()
    # Groups below it may go meanwhile; `os.walk` passes over them.
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in Path(folder, "cgroup.procs").read_text(encoding="ascii").split()}
    return found - {os.getpid()}


def _write(path: Path, text: str) -> None:
    # One write(2): the kernel reads each as a whole.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
