"""The walls of a build in a cluster: the container that it runs in, root of a user namespace of its own.

Whoever breaks out of a line owns this container, and with it nothing that is not the build's: no secret, no token, no
file of another build. Its limits are the container's. So nothing is walled off here a second time, and buildah runs
lines in chroot isolation, which asks for no more than the container has.

Source: https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from workflows.builder.machine import kernel
from workflows.builder.walls import Overlay, started
from workflows.errors import ConfigError

_KILLS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
"""Where a container's own control group counts what was killed for want of memory: version 2, version 1."""

_KILLED = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Pod:
    """The container that this process runs in; to be used as a context. One of the two `Walls`.

    Args:
        overlays: Folders that seem writable: what is written goes elsewhere.
    """

    options: ClassVar[tuple[str, ...]] = ("--isolation=chroot",)

    def __init__(self, overlays: tuple[Overlay, ...] = ()) -> None:
        self._overlays = overlays
        self._killed_before = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._killed_before = _killed()
        with contextlib.ExitStack() as stack:
            for overlay in self._overlays:
                try:
                    kernel.overlay(overlay.lowers, overlay.upper, overlay.target)
                except OSError as error:
                    raise ConfigError(detail=f"the container of the build may not mount an overlay: {error}") from error
                stack.callback(kernel.unmount, overlay.target)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """See `Walls.start`; what is left behind ends with the step, by the step runner."""
        return started(command, environment)

    def ran_out_of_memory(self) -> bool:
        """See `Walls.ran_out_of_memory`; where the whole container is killed, nobody is left to ask."""
        return _killed() > self._killed_before


def _killed() -> int:
    for path in _KILLS:
        with contextlib.suppress(OSError):
            if found := _KILLED.search(path.read_text(encoding="ascii")):
                return int(found[1])
    return 0
