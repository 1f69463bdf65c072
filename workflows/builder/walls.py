"""The seam between buildah and what keeps strangers' commands in.

On one machine walls are made around each build (`isolation`); in a cluster the pod is the walls (`pod`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

FAILED = 125
"""What container tools end with when they, and not the command, failed: walls do so, too."""

CANNOT_BE_MADE = "the walls around this build cannot be made"
"""How they begin to say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A folder that seems writable.

    Args:
        lowers: What is read, the upper ones first; they must be seen inside.
        upper: An empty folder that takes what is written; it must be writable inside, and is whoever's to throw away.
        target: Where they are seen as one.
    """

    lowers: tuple[Path, ...]
    upper: Path
    target: Path


class Walls(Protocol):
    """The walls around one build; to be used as a context."""

    options: ClassVar[tuple[str, ...]]
    """How ``buildah build`` is to run a line behind them."""

    def __enter__(self) -> Self:
        """Make them.

        Raises:
            ConfigError: Whoever runs us does not let us.
            TransientError: Too many builds run already.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take them away, with whatever still runs behind them."""
        ...

    def start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command inside; its output and errors come as one stream.

        Args:
            command: As it is called inside.
            environment: All of it: nothing of this process's environment goes along.
        """
        ...

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended one of its processes because the memory limit was reached."""
        ...


def started(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process whose output and errors come as one stream."""
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
