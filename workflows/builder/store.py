"""The storage in which one repository's images are built, and who may use it now.

Layers are cached per repository, so that nothing that one repository's build writes is read by another's. One build at
a time holds a repository's storage; a second one beside it works in a storage that is thrown away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workflows.errors import of_disk
from workflows.image import ImageName, split_tag
from workflows.settings import Settings
from workflows.stores.containers import Containers

_logger = logging.getLogger(__name__)

_MAX_LAYERS = 300
"""A repository's cache with more layers than this begins anew: nobody else ever cleans it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStore:
    """A storage that this build alone uses.

    Args:
        graph: Its graph root.
        scratch: Folder for temporary files and for ``RUN --mount=type=cache``; on disk, because a build's own ``/tmp``
            is memory.
        leaked: Whether an earlier build was killed and left working containers.
    """

    graph: Path
    scratch: Path
    leaked: bool = False


def key_of(image: ImageName) -> str:
    """What a repository's storage is called: the image's name without its tag, which BinderHub's rule makes unique."""
    name, _ = split_tag(image)
    readable = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-")[:40] or "repository"
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def build_store(settings: Settings, key: str) -> Iterator[BuildStore]:
    """The storage of a repository, or a throwaway below the workspace while another build has it.

    Raises:
        TransientError: The disk does not take it.
    """
    graph = Containers(settings).repository(key)
    with store_lock(graph) as is_ours:
        if not is_ours:
            _logger.info("another build has %s: this one caches nothing", key)
            with _throwaway(settings.workspace / "store") as store:
                yield store
            return
        if _layers(graph) > _MAX_LAYERS:
            shutil.rmtree(graph)
        # By this time the least recently used storages are found.
        os.utime(graph.with_name(f"{key}.lock"))
        scratch = graph.with_name(f"{key}.tmp")
        _clear(scratch)
        yield BuildStore(graph=_made(graph), scratch=_made(scratch), leaked=_has_containers(graph))


@contextlib.contextmanager
def store_lock(graph: Path) -> Iterator[bool]:
    """The lock of a repository's storage, for as long as the context lasts; the time of its file says who came last.

    Returns:
        Whether it is ours; not, where somebody else has it.

    Raises:
        TransientError: The disk does not take it.
    """
    lock = _take(graph.with_name(f"{graph.name}.lock"))
    if lock is None:
        yield False
        return
    with lock:
        yield True


def _take(path: Path) -> IO[str] | None:
    """The lock as an open file; None where somebody else has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = path.open("a", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return None
            # Whoever cleans removes the file while the lock is held: then this one is nobody's, and there is another.
            if _is_same_file(path, lock.fileno()):
                return lock
            lock.close()
    except OSError as error:
        raise of_disk(error, str(path)) from error


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _throwaway(folder: Path) -> Iterator[BuildStore]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield BuildStore(graph=_made(folder / "graph"), scratch=_made(folder / "tmp"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(scratch: Path) -> None:
    # What buildah keeps for RUN --mount=type=cache stays; anything else is a killed build's.
    if scratch.exists():
        for path in scratch.iterdir():
            if not path.name.startswith("buildah-cache"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _layers(graph: Path) -> int:
    return len(_records(graph / "overlay-layers" / "layers.json"))


def _has_containers(graph: Path) -> bool:
    return bool(_records(graph / "overlay-containers" / "containers.json"))


def _records(path: Path) -> list[object]:
    try:
        found = json.loads(path.read_bytes() or b"[]")
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
