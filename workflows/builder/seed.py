"""Filling a new base storage from one that was kept: by hard links, in a second instead of a minute.

What is linked (the layers' files) is only ever read; what a storage writes in place (its indexes and locks) is copied.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.errors import TransientError
from workflows.settings import Settings
from workflows.stores.containers import Containers

_KEPT = ("base", "blobs")
"""Folders of the cache folder: the storage and its layers as layouts have them (`workflows.stores.layout.Exporter`)."""
_LINKED = "overlay"
_INDEX = Path("overlay-images", "images.json")
_EMPTY = b"[]"


def seed(settings: Settings, kept: Path) -> bool:
    """Fill the base storage from `kept`.

    Args:
        settings: Where the base storage is.
        kept: What `keep` wrote; it need not exist.

    Returns:
        Whether it did; not, where the storage has images already.

    Raises:
        TransientError: The disk does not take it.
    """
    base = Containers(settings).base
    with lock(settings.cache_folder / "base.lock"):
        if not kept.exists() or has_images(base):
            return False
        for name in _KEPT:
            target = settings.cache_folder / name
            new = target.with_name(f"{name}.new")
            _copy(kept / name, new)
            if target.exists():
                shutil.rmtree(target)
            new.rename(target)
        return True


def keep(settings: Settings, folder: Path) -> None:
    """Keep the base storage in `folder`, for `seed`.

    Raises:
        TransientError: The disk does not take it.
    """
    with lock(settings.cache_folder / "base.lock"):
        new = folder.with_name(f"{folder.name}.new")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        for name in _KEPT:
            _copy(settings.cache_folder / name, new / name)
        new.rename(folder)


def has_images(store: Path) -> bool:
    """Whether a storage holds any image."""
    try:
        return (store / _INDEX).read_bytes().strip() not in {b"", _EMPTY}
    except OSError:
        return False


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.iterdir() if source.exists() else ():
        # cp, because Python's copytree keeps neither owners nor device files.
        linked = (path.name == _LINKED or source.name == "blobs") and _cp("--link", path, target / path.name) == 0
        if not linked:
            shutil.rmtree(target / path.name, ignore_errors=True)
            if _cp("--reflink=auto", path, target / path.name) != 0:
                raise TransientError(detail=f"cannot copy {path} to {target}")


def _cp(how: str, source: Path, target: Path) -> int:
    command = ["cp", "--archive", how, "--no-target-directory", str(source), str(target)]
    return subprocess.run(command, capture_output=True, check=False).returncode
