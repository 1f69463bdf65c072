"""Small disks: real file systems, each in a file of its own, that a test fills and empties."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PIECES = (1024 * 1024, 4096, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system with little room.

    Args:
        folder: Where it is mounted.
    """

    folder: Path

    def fill(self, *, leave: int = 0) -> None:
        """Take all the room that is left, to the last byte but `leave`."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in _PIECES:
                with suppress(OSError):
                    while ballast.write(bytes(size)):
                        pass
            ballast.truncate(ballast.tell() - leave)

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Disk]:
    """A new ext4 file system, mounted at a folder that is made for it."""
    image = folder.with_name(f"{folder.name}.ext4")
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # Without a share that only root could write: root is who fills it.
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield Disk(folder=folder)
    finally:
        # Lazily: what a test that failed has left open must not keep it.
        subprocess.run(["umount", "--lazy", folder], check=True)
        image.unlink()
