"""Grype's database, held still: a scan reads one state of it, whatever an update does to the folder meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.errors import TransientError

_logger = logging.getLogger(__name__)

_TRIES = 20
_PAUSE_SECONDS = 0.05
"""An update takes the old folder away and puts the new one there: for a moment there may be none."""


def default_database() -> Path:
    """Where Grype keeps its database by itself. Source: Grype's ``--help`` (``db.cache-dir``), XDG."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grype" / "db"


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """While this is entered, nobody else who asks in the same way updates the database.

    Raises:
        TransientError: The disk does not take the lock's file.
    """
    path = database.parent / ".argosy.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TransientError(detail=f"cannot lock {database}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hold(database: Path, target: Path) -> Path:
    """A view of a database that no update changes.

    (1) Each folder is opened once, and its files are found through it: an update may rename it meanwhile.
    (2) Files become hard links: an update may delete them meanwhile.
    (3) Afterwards it must still be the folder that the path leads to, with the same files; otherwise all is done again.

    Args:
        database: Its folder, as `GRYPE_DB_CACHE_DIR` names it.
        target: Where the view is made; must not exist.

    Returns:
        `target`; `database` itself where there is none, or where links cannot be made (another file system).
    """
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE_SECONDS)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            before = _listing(database)
            for folder in before:
                _link(database / folder, target / folder)
            if before and _listing(database) == before == _listing(target):  # (3)
                return target
        except FileNotFoundError:
            continue
        except OSError as error:
            _logger.info("%s is read in its place: %s", database, error.strerror)
            break
    return database


def stamp(database: Path) -> object:
    """Changes whenever the database does."""
    with contextlib.suppress(OSError):
        return _listing(database)
    return None


def _link(source: Path, target: Path) -> None:
    target.mkdir()
    handle = os.open(source, os.O_RDONLY | os.O_DIRECTORY)  # (1)
    try:
        for name in os.listdir(handle):  # noqa: PTH208  # a Path would be found anew
            os.link(name, target / name, src_dir_fd=handle)  # (2)
    finally:
        os.close(handle)


def _listing(folder: Path) -> dict[str, dict[str, int]]:
    """Folders, each with its files' inodes."""
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    return {found.name: {file.name: file.inode() for file in _entries(found)} for found in folders}


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
