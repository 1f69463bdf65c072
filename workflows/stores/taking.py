"""Takes a layout out of the reach of whoever wrote it, before anything else looks at it.

In a pod the strangers' containers share the workspace with `stage`, and may still run while it reads: what was checked
could be swapped before it is used, or turned into a link to the credentials of `stage`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from workflows.errors import TooLargeError, of_disk
from workflows.settings import MIB
from workflows.stores.layout import unusable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Without waiting: a pipe that nobody writes to is no file."""

_CHUNK_BYTES = 16 * MIB


@contextmanager
def taken(layout: Path, scratch: Path, limit_bytes: int) -> Iterator[Path]:
    """A copy of a layout that nobody else can change, for as long as the context lasts.

    (1) Each folder and file is opened by its name in the folder before it, and never through a link.
    (2) What is read is what was opened, whatever stands there by then: a plain file, in all within the limit.

    Args:
        layout: Anybody's.
        scratch: Where the copy is put; nobody else may write there.
        limit_bytes: What all files together may have.

    Raises:
        BuildError: It is no layout.
        TooLargeError: It is larger than the limit.
        TransientError: The disk does not take it.
    """
    copy = scratch / "taken"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        _Taker(limit_bytes).take(layout, copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


class _Taker:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def take(self, layout: Path, copy: Path) -> None:
        with ExitStack() as stack:
            top = _opened(str(layout), _FOLDER, None, stack)
            blobs = _opened("sha256", _FOLDER, _opened("blobs", _FOLDER, top, stack), stack)
            for name in ("index.json", "oci-layout"):
                self._file(name, top, copy)
            for name in _names(blobs):
                self._file(name, blobs, copy / "blobs" / "sha256")

    def _file(self, name: str, folder: int, target: Path) -> None:
        with ExitStack() as stack:
            source = _opened(name, _FILE, folder, stack)
            if not stat.S_ISREG(os.fstat(source).st_mode):  # (2)
                raise unusable(f"{name} is no file")
            try:
                target.mkdir(parents=True, exist_ok=True)
                with (target / name).open("xb") as file:
                    self._copy(source, file.fileno())
            except OSError as error:
                raise of_disk(error, f"cannot copy {name}") from error

    def _copy(self, source: int, target: int) -> None:
        # Counted as it goes, because the file may grow meanwhile.
        while copied := os.sendfile(target, source, None, _CHUNK_BYTES):
            self._left_bytes -= copied
            if self._left_bytes < 0:
                raise TooLargeError(
                    f"The image is larger than the {self._limit_bytes // MIB} MiB that this service allows."
                )


def _opened(name: str, flags: int, folder: int | None, stack: ExitStack) -> int:
    try:
        descriptor = os.open(name, flags, dir_fd=folder)  # (1)
    except OSError as error:
        raise unusable(f"{name}: {error.strerror}") from error
    stack.callback(os.close, descriptor)
    return descriptor


def _names(folder: int) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise unusable(f"blobs: {error.strerror}") from error
