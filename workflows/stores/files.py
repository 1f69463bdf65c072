"""Files that are written whole or not at all, and leave nothing behind even where the writer is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from workflows.errors import of_disk


def write_whole(path: Path, text: str, *, mode: int = 0o644, durable: bool = True) -> None:
    """Put `text` at `path`: a reader sees what was there before or all of the new text, also after a power cut.

    Args:
        path: Its folder is made where it is missing.
        text: Written as UTF-8.
        mode: The file's permissions.
        durable: Whether to wait for the disk; without, a power cut may take the text, and nothing else does.

    Raises:
        TransientError: The disk is full, or the like.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=mode, durable=durable) as part:
            data = text.encode()
            while data:
                data = data[os.write(part, data) :]
    except OSError as error:
        raise of_disk(error, f"cannot write {path}") from error


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644, durable: bool = True) -> Iterator[int]:
    """An empty file beside `path`, as a descriptor, that takes its place once the context ends well.

    Its name follows from that of `path`: what a killed writer left is taken over by the next one, and nobody has to
    look for it. Several writers take turns.

    Raises:
        OSError: The disk is full, or the like.
    """
    part = path.with_name(f".{path.name}.new")
    with _alone(part) as handle:
        try:
            yield handle
            os.fchmod(handle, mode)
            if durable:
                os.fsync(handle)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[int]:
    while True:
        handle = os.open(part, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever held it before us has most often put it in its place by now; then another one is ours.
            if _is_there(part, handle):
                os.ftruncate(handle, 0)
                yield handle
                return
        finally:
            os.close(handle)


def _is_there(part: Path, handle: int) -> bool:
    try:
        return os.path.samestat(part.stat(follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False
