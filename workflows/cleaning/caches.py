"""What only makes builds faster: layers of each repository's builds, wheels, base layers as files.

All of it may be deleted at any time; what a build works with now stays until that build has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workflows.builder.store import store_lock
from workflows.builder.wheels import Wheels
from workflows.cleaning.choice import Limits, Thing
from workflows.cleaning.tool import delete, sizes
from workflows.settings import Settings
from workflows.stores.containers import Containers

_BLOCK_BYTES = 512
"""What ``stat`` counts in."""

LEAVING = ".leaving-"
"""Before the name of a storage that is being deleted: its repository has a new one at once."""


class RepositoryCaches:
    """The storages in which repositories build, with what their ``RUN --mount=type=cache`` kept."""

    name = "build caches"
    is_hasty = True
    is_spare = True

    def __init__(self, settings: Settings) -> None:
        self.limits = Limits(size=settings.build_cache_limit_bytes)
        self._containers = Containers(settings)
        self._folder = self._containers.repository("any").parent
        self._known: dict[Path, tuple[float, int]] = {}

    def things(self) -> list[Thing]:
        """See `Kind`."""
        keys = {path.stem for path in self._folder.glob("*.lock")} | {graph.name for graph in self._graphs()}
        caches = [_Cache.of(self._folder / key) for key in sorted(keys)]
        sizes_by_path = self._measured(caches)
        things = [
            Thing(
                name=cache.graph.name,
                used=cache.used,
                parts={str(path): sizes_by_path[path] for path in cache.folders if path in sizes_by_path},
                is_held=cache.is_in_use,
                is_orphan=not cache.folders,
            )
            for cache in caches
        ]
        # Left where a deletion was ended by force.
        return things + [Thing(name=path.name, used=0, is_orphan=True) for path in self._folder.glob(f"{LEAVING}*")]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        doomed: list[Path] = []
        for thing in things:
            path = self._folder / thing.name
            doomed += [path] if thing.name.startswith(LEAVING) else self._take_away(path)
        delete(doomed)

    def _take_away(self, graph: Path) -> list[Path]:
        """Rename a storage out of the way, while no build has it; what is to be deleted then."""
        found: list[Path] = []
        with store_lock(graph) as is_ours:
            if is_ours:
                there = [path for path in (graph, _scratch(graph)) if path.exists()]
                found = [path.rename(path.with_name(f"{LEAVING}{path.name}")) for path in there]
                found.append(self._containers.runroot(graph))
                graph.with_name(f"{graph.name}.lock").unlink(missing_ok=True)
        return found

    def _graphs(self) -> list[Path]:
        paths = self._folder.glob("[a-z0-9]*")
        return [path for path in paths if path.is_dir() and path.suffix != ".tmp"]

    def _measured(self, caches: Sequence[_Cache]) -> dict[Path, int]:
        """Bytes by folder. To count a hundred thousand files takes a second, so it is done once after each build."""
        at = {path: cache.measured_at for cache in caches for path in cache.folders}
        known = {path: each for path, each in self._known.items() if at.get(path, -1) == each[0]}
        found = sizes([path for path in at if path not in known])
        self._known = known | {path: (at[path], size) for path, size in found.items()}
        return {path: size for path, (_, size) in self._known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """One repository's storage at one moment."""

    graph: Path
    folders: tuple[Path, ...]
    used: float
    is_in_use: bool

    @classmethod
    def of(cls, graph: Path) -> _Cache:
        # First, because the build that has it may end while we look.
        is_in_use = _is_in_use(graph)
        folders = tuple(path for path in (graph, _scratch(graph)) if path.is_dir())
        return cls(graph=graph, folders=folders, used=_used(graph), is_in_use=is_in_use)

    @property
    def measured_at(self) -> float:
        """What stays the same for as long as nobody builds there; equal to nothing while somebody does."""
        return float("nan") if self.is_in_use else self.used


class WheelCache:
    """Wheels of finished builds. They leave all together: one cannot be told to be used less than another."""

    name = "wheels"
    is_hasty = True
    is_spare = True

    def __init__(self, settings: Settings) -> None:
        self.limits = Limits(size=settings.wheel_limit_bytes)
        self._folder = settings.cache_folder / "wheels"
        self._wheels = Wheels(settings)

    def things(self) -> list[Thing]:
        """See `Kind`."""
        if not self._folder.is_dir():
            return []
        self._wheels.remove_unused()
        # An empty folder takes up room, too, which would make it leave again and again.
        size = sum(sizes([self._folder]).values()) if any(self._folder.glob("[0-9]*/*")) else 0
        return [Thing(name="wheels", used=self._folder.stat().st_mtime, parts={"wheels": size})]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        if things:
            self._wheels.renew()


class BaseLayers:
    """Base layers as files, which only save the time of writing them into layouts."""

    name = "base layers"
    is_hasty = False
    is_spare = True
    limits = Limits()

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.cache_folder / "blobs"

    def things(self) -> list[Thing]:
        """See `Kind`."""
        found = [(path, path.stat()) for path in self._folder.glob("*")]
        # One that is linked into a layout frees nothing.
        return [
            Thing(
                name=path.name, used=stat.st_mtime, parts={path.name: stat.st_blocks * 512}, is_held=stat.st_nlink > 1
            )
            for path, stat in found
        ]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        for thing in things:
            (self._folder / thing.name).unlink(missing_ok=True)


def _scratch(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.tmp")


def _used(graph: Path) -> float:
    for path in (graph.with_name(f"{graph.name}.lock"), graph):
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return 0


def _is_in_use(graph: Path) -> bool:
    with store_lock(graph) as is_ours:
        return not is_ours
