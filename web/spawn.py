"""Programs that a server with gevent's event loop starts, without the fork that holds up all whom it serves.

gevent's `subprocess` forks, which copies the page tables of a process of a hundred megabytes and runs Python between
fork and exec: 8 to 17 ms in which the loop stands still. ``posix_spawn`` shares the memory until exec and takes 1.5.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from typing import IO, Any

from gevent.event import Event
from gevent.os import fork_and_watch

from web.concurrency import is_cooperative
from workflows.git.spawn import Spawn, popen

_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores; a program that does as well would not end where it should."""


def spawner() -> Spawn:
    """How this process starts programs. On gevent's loop they are for its greenlets alone, not for native threads."""
    return _Spawned if is_cooperative() else popen


class _Spawned:
    """See `Process` and `Spawn`; it has this process's umask."""

    def __init__(
        self, command: list[str], *, environment: Mapping[str, str], output: IO[bytes], complaint: IO[bytes]
    ) -> None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, complaint.fileno(), 2),
        ]

        def spawn() -> int:
            return os.posix_spawnp(
                command[0], command, environment, file_actions=actions, setsid=True, setsigdef=_PYTHONS_OWN
            )

        self.returncode: int | None = None
        self._command = command
        self._ended = Event()
        # The loop waits for all children of this process, so it must know of this one.
        self.pid: int = fork_and_watch(self._end, ref=True, fork=spawn)

    def wait(self, timeout: float | None = None) -> int:
        """See `Process`."""
        if not self._ended.wait(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return self.returncode

    def _end(self, watcher: Any) -> None:
        self.returncode = os.waitstatus_to_exitcode(watcher.rstatus)
        self._ended.set()
