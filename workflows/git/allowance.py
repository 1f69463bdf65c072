"""What one fetch may take of time and space, its submodules included."""

from __future__ import annotations

import os
import time
from pathlib import Path

from workflows.errors import StepTimeoutError, TooLargeError
from workflows.settings import GIB, MIB, Settings


class Allowance:
    """What one fetch may still take, its submodules included.

    Args:
        settings: The farm's; the clock starts now.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_bytes = settings.max_source_bytes
        self.silent_seconds = settings.resolve_timeout_seconds
        self.files = 0
        self.laid_out_bytes = 0
        self._downloaded_bytes = 0
        self._timeout_seconds = settings.fetch_timeout_seconds
        self._deadline = time.monotonic() + settings.fetch_timeout_seconds

    def seconds(self) -> float:
        """What is left of the time.

        Raises:
            StepTimeoutError: Nothing.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> StepTimeoutError:
        """The error of a fetch that takes too long."""
        return StepTimeoutError(
            f"Fetching the repository took longer than the {self._timeout_seconds:g} seconds that this service allows."
        )

    def check_download(self, folder: Path) -> int:
        """Bytes below `folder`, once they are within what is left for downloads.

        Raises:
            TooLargeError: They are not.
        """
        size = _size_of(folder)
        self._check(self._downloaded_bytes + size)
        return size

    def add_download(self, folder: Path) -> None:
        """Count what was downloaded to `folder` for good."""
        self._downloaded_bytes += self.check_download(folder)

    def check_laid_out(self, folder: Path) -> None:
        """Nothing, once what lies in `folder` is within the limit.

        Raises:
            TooLargeError: It is not.
        """
        self._check(_size_of(folder))

    def add_file(self, size_bytes: int) -> None:
        """Count one file that will be laid out.

        Raises:
            TooLargeError: It is one too many.
        """
        self.files += 1
        self.laid_out_bytes += size_bytes
        self._check(self.laid_out_bytes)

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self.max_bytes:
            raise TooLargeError(
                f"The repository is larger than the {readable(self.max_bytes)} that this service allows."
            )


def readable(size_bytes: int) -> str:
    """A size for people."""
    if size_bytes >= GIB:
        return f"{size_bytes / GIB:.1f} GiB"
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB else f"{size_bytes} bytes"


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # five times a second
            except FileNotFoundError:
                continue  # git renames its files when they are whole
    return total
