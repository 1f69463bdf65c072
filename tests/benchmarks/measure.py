"""What a whole farm takes up, process by process and kind by kind, and how much more of it still counts as flat."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.invariants import StateFolder
from tests.local.farm import Farm
from web.recording.desk import KEEP_SECONDS
from workflows.cleaning.tool import sizes
from workflows.settings import MIB, Settings
from workflows.stores.containers import Containers

COMPONENTS = {
    "web": "web.server",
    "hub": "jupyterhub",
    "proxy": "configurable-http-proxy",
    "podman": "podman",
    "githost": "git-daemon",
}
"""The processes of `make run`, and what their command lines hold."""

LIMITS: Mapping[str, int] = {
    "image_limit_bytes": 60 * MIB,
    "build_cache_limit_bytes": 60 * MIB,
    "archive_limit_bytes": 15 * MIB,
    "ledger_limit_rows": 120,
}
"""Reached within minutes by those who live in `tests.benchmarks.soak`."""

_SLACK = 1.1
"""Folders, and what a storage notes of each layer, count in no limit."""

_MEMORY_SHARE, _MEMORY_BYTES = 0.15, 8 * MIB
"""By which memory may grow: allocators give back little, and Python's caches fill for a while."""

_HEAPS = {"proxy": 100 * MIB}
"""Node.js lets its heap grow in steps before it collects. A proxy alone had 18 MiB, 38 after 70 routes that came and
went, 52 after 4,000, and 90 after 5,000 and 6,000."""

_FEW = 4
"""Threads of a pool, connections that are kept: they come and go."""

_KEPT = {"web": 25, "hub": 25, "podman": 50}
"""Docker's client keeps a connection for each of the last 25 addresses that it asked: of images in web, of containers
in the Hub, both of them at podman."""

_LATE_SECONDS = 120
_BUILDS_BYTES = 32 * MIB
"""Of the builds of the last ten minutes, which the engine keeps."""

_WAL_BYTES = 8 * MIB
"""SQLite folds it into the ledger at 4 MiB, when nobody reads."""

_LOG_BYTES = len(COMPONENTS) * 64 * MIB
"""Up to which cleaning lets them grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number of the farm.

    Args:
        name: What it is of.
        unit: What it counts; ``MiB`` is shown so and counted in bytes.
        value: How many.
        more: How many more may be there later.
        limit: Up to which any number is right.
    """

    name: str
    unit: str
    value: float
    more: float = 0
    limit: float = 0

    def is_flat(self, later: Measured) -> bool:
        """Whether a later number of the same thing is no more than it may be."""
        return later.value <= max(self.value + self.more, self.limit)

    def __str__(self) -> str:
        return f"{self.value / MIB:.1f}" if self.unit == "MiB" else f"{self.value:.0f}"


def measure(farm: Farm) -> list[Measured]:
    """All numbers of a farm at this moment."""
    return [*_processes(farm), *_things(farm), *_rows(farm), *_bytes(farm)]


def compare(before: Sequence[Measured], after: Sequence[Measured]) -> list[str]:
    """Prints both side by side; the names of what is not flat."""
    growing, known = [], {(each.name, each.unit): each for each in before}
    for second in after:
        first = known.get((second.name, second.unit)) or dataclasses.replace(second, value=0)
        is_flat = first.is_flat(second)
        growing += [] if is_flat else [f"{first.name} ({first.unit})"]
        print(f"{first.name:24} {first.unit:8} {first!s:>9} -> {second!s:>9}{'' if is_flat else '   NOT FLAT'}")
    return growing


def _processes(farm: Farm) -> Iterator[Measured]:
    for name, command in COMPONENTS.items():
        process = farm.component(command)
        assert process is not None, f"{name} does not run"
        tree = [process, *process.children(recursive=True)]
        memory = sum(each.memory_full_info().uss for each in tree)
        yield Measured(
            name=name, unit="MiB", value=memory, more=_MEMORY_SHARE * memory + _MEMORY_BYTES, limit=_HEAPS.get(name, 0)
        )
        files = sum(each.num_fds() for each in tree)
        yield Measured(name=name, unit="files", value=files, more=_FEW + _KEPT.get(name, 0))
        yield Measured(name=name, unit="threads", value=sum(each.num_threads() for each in tree), more=_FEW)


def _things(farm: Farm) -> Iterator[Measured]:
    settings, names = Settings(state=farm.state), set(COMPONENTS.values())
    ours = {
        each.pid for name in names if (process := farm.component(name)) for each in process.children(recursive=True)
    }
    left = [each for pid, each in farm.processes().items() if pid not in ours]
    late = time.time() - KEEP_SECONDS - _LATE_SECONDS
    ended = [status for status in StateFolder(farm.state).statuses() if 0 < status.ended < late]
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").count(str(farm.state))
    yield Measured(name="other processes", unit="", value=len(left), more=0)
    yield Measured(name="users of the Hub", unit="", value=len(farm.users()))
    yield Measured(name="containers", unit="", value=len(farm.servers()))
    yield Measured(name="launches in flight", unit="", value=len(list(settings.launches_folder.glob("*"))))
    yield Measured(name="staged images", unit="", value=len(list(settings.staging_folder.glob("*"))))
    yield Measured(name="builds kept for too long", unit="", value=len(ended))
    yield Measured(name="mounts", unit="", value=mounts)


def _rows(farm: Farm) -> Iterator[Measured]:
    with closing(sqlite3.connect(farm.state / "ledger.sqlite")) as connection:
        count = sum(
            connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in ("builds", "findings", "launches")
        )
    yield Measured(name="ledger", unit="rows", value=count, limit=LIMITS["ledger_limit_rows"])


def _bytes(farm: Farm) -> Iterator[Measured]:
    containers = Containers(Settings(state=farm.state))
    limits = {
        containers.images: LIMITS["image_limit_bytes"] * _SLACK,
        containers.repository("any").parent: LIMITS["build_cache_limit_bytes"] * _SLACK,
        farm.state / "archive": LIMITS["archive_limit_bytes"] * _SLACK,
        farm.state / "builds": _BUILDS_BYTES,
        farm.state / "log": _LOG_BYTES,
        farm.state / "ledger.sqlite-wal": _WAL_BYTES,
    }
    paths = set(farm.state.iterdir())
    for parent in (containers.images.parent, containers.repository("any").parent.parent):
        paths = paths - {parent} | set(parent.iterdir())
    # One after the other, because what is linked into two of them would be counted in the first alone.
    for path in sorted(paths):
        for size in sizes([path]).values():
            # With a slash: one of the processes is called like its folder.
            name = f"{path.relative_to(farm.state)}{'/' * path.is_dir()}"
            yield Measured(name=name, unit="MiB", value=size, more=MIB, limit=limits.get(path, 0))
