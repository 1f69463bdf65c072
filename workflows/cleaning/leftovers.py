"""What processes that were killed left behind: nobody would ever look for it again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from workflows.cleaning.choice import GRACE_SECONDS, Limits, Thing
from workflows.cleaning.tool import delete, run
from workflows.image import BuildName, is_build_name
from workflows.settings import MIB, Settings
from workflows.stores.containers import STORE_MARK, Containers

_BUILD_GRACE_SECONDS = 600
_MAX_LOG_BYTES = 64 * MIB
"""Of a process that runs for weeks; the last half of it stays."""

_BLOCK_BYTES = 512
_GRAPH_ROOT = re.compile(r'^graphroot = (".*")$', re.MULTILINE)


class Leftovers:
    """Files and folders of one kind, each left behind by somebody.

    Args:
        name: For the log.
        find: All that there are at this moment.
        grace_seconds: How old one must be.
    """

    is_hasty = False
    is_spare = False

    def __init__(self, name: str, find: Callable[[], Iterable[Path]], *, grace_seconds: float = GRACE_SECONDS) -> None:
        self.name = name
        self.limits = Limits(grace_seconds=grace_seconds)
        self._find = find

    def things(self) -> list[Thing]:
        """See `Kind`."""
        return [Thing(name=str(path), used=_changed(path), is_orphan=True) for path in self._find()]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        delete([Path(thing.name) for thing in things])


class Logs:
    """Logs of processes that run on and on: of one that grew too large the first part gives its room back.

    Its writer goes on at the place where it was, so the file keeps its length; what is punched out reads as zeros.
    """

    name = "logs"
    is_hasty = False
    is_spare = False
    limits = Limits(size=0)

    def __init__(self, settings: Settings, *, max_bytes: int = _MAX_LOG_BYTES) -> None:
        self._folder = settings.state / "log"
        self._max_bytes = max_bytes

    def things(self) -> list[Thing]:
        """See `Kind`."""
        found = [(path, path.stat()) for path in self._folder.glob("*.log")]
        large = [(path, stat) for path, stat in found if stat.st_blocks * _BLOCK_BYTES > self._max_bytes]
        return [Thing(name=path.name, used=stat.st_mtime, parts={path.name: stat.st_size}) for path, stat in large]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        for thing in things:
            first = sum(thing.parts.values()) - self._max_bytes // 2
            run(["fallocate", "--punch-hole", "--offset=0", f"--length={first}", str(self._folder / thing.name)])


def leftovers(settings: Settings, is_live: Callable[[BuildName], bool]) -> tuple[Leftovers, ...]:
    """Everything of the state folder that has no owner, kind by kind.

    Args:
        settings: The farm's.
        is_live: Whether an engine still has something to do for a build of this name.
    """
    containers = Containers(settings)
    return (
        Leftovers("staging", partial(_staged, settings, is_live), grace_seconds=_BUILD_GRACE_SECONDS),
        Leftovers("build folders", partial(_broken_builds, settings), grace_seconds=24 * GRACE_SECONDS),
        Leftovers("unfinished files", partial(_unfinished, settings)),
        Leftovers("configurations", partial(_configurations, settings)),
        Leftovers("run roots", partial(_run_roots, containers)),
    )


def _staged(settings: Settings, is_live: Callable[[BuildName], bool]) -> Iterator[Path]:
    for path in settings.staging_folder.glob("*"):
        # Half of a copy is called .<name>.new.
        name = path.name.removeprefix(".").removesuffix(".new")
        if not (is_build_name(name) and is_live(BuildName(name))):
            yield path


def _broken_builds(settings: Settings) -> Iterator[Path]:
    # A folder is filled before it gets its name, so one without a status is no build's. Those that are being deleted
    # begin with a dot: the engine itself clears them.
    for path in settings.builds_folder.glob("[!.]*"):
        if path.is_dir() and not (is_build_name(path.name) and (path / "status.json").is_file()):
            yield path


def _unfinished(settings: Settings) -> Iterator[Path]:
    # What `write_whole` begins and a killed process never renamed.
    configuration = Containers(settings).policy.parent
    for folder in (settings.catalogue_folder, configuration, settings.cache_folder / "base", settings.state / "hub"):
        yield from folder.glob(".*.new")


def _configurations(settings: Settings) -> Iterator[Path]:
    containers = Containers(settings)
    for path in containers.policy.parent.glob("storage-*.conf"):
        found = _GRAPH_ROOT.search(path.read_text(encoding="utf-8"))
        root = Path(json.loads(found[1])) if found else containers.images
        if root not in {containers.images, containers.base} and not root.exists():
            yield path
            yield path.with_name(path.name.replace("storage-", "containers-", 1))


def _run_roots(containers: Containers) -> Iterator[Path]:
    containers.mark_runroots()
    for mark in containers.runroot().parent.glob(f"*/{STORE_MARK}"):
        store = Path(mark.read_text(encoding="utf-8"))
        if store.is_absolute() and not store.exists():
            yield mark.parent


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        # Somebody else has just removed it.
        return time.time()
