"""Walls around strangers' commands: one `Sandbox` for each build.

What runs in it cannot see this machine's files, processes or services, is nobody on this machine, has limits of memory,
CPU and processes, and ends as a whole. buildah itself runs inside, not only the lines that it executes: who breaks out
of a line's container is still behind these walls.

Only for this machine's root; anybody else is refused rather than served with less.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from workflows.builder.machine import cgroup, network
from workflows.builder.walls import Overlay, started
from workflows.errors import ConfigError
from workflows.settings import Settings

_RUN = Path("/run/argosy/builds")
_FIRST_USER = 1_000_000_000
_USERS = 65_536
"""Users of a build, a range for each slot: far from those that people, services and other containers have."""


class Sandbox:
    """The walls around one build; to be used as a context. One of the two `Walls`.

    Args:
        name: The build's name.
        settings: Limits.
        readable: Folders that are seen inside, at the same place, and cannot be written.
        writable: Folders that are seen inside, at the same place.
        overlays: Folders that seem writable inside: what is written goes elsewhere.

    Raises:
        ConfigError: The machine does not let us.
        TransientError: Too many builds run already.
    """

    options: ClassVar[tuple[str, ...]] = ("--isolation=oci", "--runtime=runc")

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        readable: tuple[Path, ...] = (),
        writable: tuple[Path, ...] = (),
        overlays: tuple[Overlay, ...] = (),
    ) -> None:
        self._group = cgroup.ControlGroup(name)
        self._settings = settings
        self._readable = readable
        self._writable = writable
        self._overlays = overlays
        self._stack = contextlib.ExitStack()
        self._folder = _RUN / name
        self._cable: network.Cable | None = None

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise ConfigError(
                "Builds on one machine need root, to be walled off.", detail="run Argosy as root, or use another engine"
            )
        settings = self._settings
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            stack.callback(self._group.remove)
            self._group.create(
                memory_bytes=settings.build_memory_bytes, cpus=settings.build_cpus, pids=settings.build_pids
            )
            self._cable = stack.enter_context(network.cable())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """See `Walls.start`."""
        walls = [sys.executable, "-I", "-m", "workflows.builder.machine.enter", self._specification(environment)]
        own = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return started([*walls, *command], own)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended one of its processes because the memory limit was reached."""
        return self._group.ran_out_of_memory()

    def _specification(self, environment: Mapping[str, str]) -> str:
        if self._cable is None:
            raise RuntimeError("a sandbox is used as a context")
        servers = "".join(f"nameserver {server}\n" for server in network.name_servers())
        return json.dumps({
            "root": str(self._folder),
            "groups": [str(group) for group in self._group.folders],
            "first_user": _FIRST_USER + self._cable.slot * _USERS,
            "users": _USERS,
            "link": self._cable.link,
            "host_address": self._cable.host_address,
            "address": self._cable.address,
            "readable": [str(path) for path in self._readable],
            "writable": [str(path) for path in self._writable],
            "overlays": [
                {"lowers": [str(path) for path in each.lowers], "upper": str(each.upper), "target": str(each.target)}
                for each in self._overlays
            ],
            "files": {
                "/etc/hosts": "127.0.0.1 localhost build\n",
                "/etc/resolv.conf": servers,
                "/etc/passwd": "root:x:0:0:root:/tmp:/bin/sh\n",
                "/etc/group": "root:x:0:\n",
            },
            "folder": "/",
            "environment": dict(environment),
        })  # fmt: skip


def sweep(build: str) -> None:
    """End whatever a build that was killed has left on this machine: processes, limits, mounts.

    Mounts and the network's cable go with the last process that sees them.
    """
    cgroup.remove(cgroup.folders(build))
    shutil.rmtree(_RUN / build, ignore_errors=True)
