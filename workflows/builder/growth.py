"""How much a build has written so far: its end comes before the disk's.

Layers have no quota of their own in a storage, so they are counted while they grow, in the folders that were not there
when the build began. What buildah keeps beside them (temporary files, ``RUN --mount=type=cache``) counts too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from workflows.builder.store import BuildStore
from workflows.errors import TooLargeError
from workflows.settings import MIB, Settings

_LOOK_SECONDS = 0.5
"""A disk takes less than 2 GiB in that time."""

_SHARE = 4
"""Between two looks passes at least four times what a look took: a million files take seconds to count."""


class Growth:
    """What one build may still write.

    Args:
        settings: The limits.
        store: Where it writes; what lies there now is not counted, temporary files aside.
    """

    def __init__(self, settings: Settings, store: BuildStore) -> None:
        self._max_bytes = settings.max_image_bytes
        self._max_files = settings.max_image_files
        self._layers = store.graph / "overlay"
        self._scratch = store.scratch
        self._before = frozenset(_names(self._layers))

    @contextlib.contextmanager
    def watch(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """End `process`, and with it the build, as soon as it has written too much.

        Raises:
            TooLargeError: It has.
        """
        excess: list[TooLargeError] = []
        over = threading.Event()
        watcher = threading.Thread(target=self._look, args=(process, over, excess), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            if excess:
                # Whatever else went wrong came of its end.
                raise excess[0]

    def check(self) -> None:
        """Nothing, once all that was written is within the limits.

        Raises:
            TooLargeError: It is not.
        """
        size = 0
        seen: set[int] = set()
        for files, entry in enumerate(self._written(), 1):
            size += 0 if entry.st_ino in seen else max(entry.st_size, entry.st_blocks * 512)
            if entry.st_nlink > 1:
                seen.add(entry.st_ino)
            if size > self._max_bytes:
                allowed = f"{self._max_bytes // MIB} MiB"
                raise TooLargeError(f"What the build writes is larger than the {allowed} that are allowed here.")
            if files > self._max_files:
                raise TooLargeError(f"The build writes more than the {self._max_files} files that are allowed here.")

    def _look(self, process: subprocess.Popen[bytes], over: threading.Event, excess: list[TooLargeError]) -> None:
        took = 0.0
        while not over.wait(max(_LOOK_SECONDS, _SHARE * took)):
            begun = time.monotonic()
            try:
                self.check()
            except TooLargeError as error:
                excess.append(error)
                _end(process)
                return
            took = time.monotonic() - begun

    def _written(self) -> Iterator[os.stat_result]:
        new = set(_names(self._layers)) - self._before
        for folder in (*(self._layers / name for name in new), self._scratch):
            yield from _entries(folder)


def _end(process: subprocess.Popen[bytes]) -> None:
    # With all that it has started: in a pod no namespace of processes ends with the first of them.
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # names, many
    except FileNotFoundError:
        return []


def _entries(folder: Path) -> Iterator[os.stat_result]:
    # By hand: os.walk would look at each twice, and a tree of a thousand levels would bring a recursion down.
    left = [os.fspath(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as found:
                for entry in found:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            left.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            # The build goes on while we look.
            continue
