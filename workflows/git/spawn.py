"""How a program is started whose output goes to files, and what is left to do with it then.

A step forks as usual. A server with an event loop has a way of its own (``web/spawn.py``): it is large, and a fork
holds up everybody whom it serves.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import IO, Protocol


class Process(Protocol):
    """A program that was started, the first of a session and a group of its own: what of `subprocess.Popen` is used."""

    @property
    def pid(self) -> int:
        """Its process, and its group."""
        ...

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: negative where a signal ended it; None where it has not been waited for."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its code once it has ended.

        Raises:
            subprocess.TimeoutExpired: It runs for longer than `timeout` seconds.
        """
        ...


class Spawn(Protocol):
    """Starts a program."""

    def __call__(
        self, command: list[str], *, environment: Mapping[str, str], output: IO[bytes], complaint: IO[bytes]
    ) -> Process:
        """Start it, with nothing on its stdin.

        Args:
            command: The program, by its name in ``PATH``, and its arguments.
            environment: All that it has of one.
            output: Where its stdout goes.
            complaint: Where its stderr goes.

        Raises:
            FileNotFoundError: There is no such program.
        """
        ...


def popen(
    command: list[str], *, environment: Mapping[str, str], output: IO[bytes], complaint: IO[bytes]
) -> subprocess.Popen[bytes]:
    """A `Spawn` for every process that no event loop runs."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=complaint,
        start_new_session=True,
        umask=0o022,
    )
