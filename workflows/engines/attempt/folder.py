"""One attempt on disk: its status, its logs, its workspaces, and the two locks that order who touches them.

::

    <builds>/<name>/
    ├── request.json   what was asked for
    ├── status.json    replaced whole at each change
    ├── job.json       what the runner executes, written when the attempt is admitted
    ├── stop           the reason, once somebody wants the attempt to end
    ├── lock           held for a moment by whoever changes the status
    ├── runner         held by the runner for as long as it lives, by the kernel's own bookkeeping
    ├── operator.log   what no visitor reads
    ├── logs/<step>.log
    ├── strangers/     workspace of the strangers' half; gone once the attempt has ended
    └── ours/          workspace of our half: what the recorder files stays until `LocalEngine.forget`
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from workflows.build import BuildRequest, BuildStatus
from workflows.engines.attempt.journal import tell
from workflows.errors import NotFoundError, Reason, of_disk
from workflows.image import BuildName, is_build_name
from workflows.pipeline import Half
from workflows.stores.files import write_whole

_PRIVATE = 0o600
_UNFINISHED = ".new-"


class BuildFolder:
    """One attempt's folder.

    Args:
        builds: The folder of all attempts.
        name: The attempt.

    Raises:
        NotFoundError: No attempt can be named so.
    """

    def __init__(self, builds: Path, name: BuildName) -> None:
        if not is_build_name(name):
            raise NotFoundError("There is no such build.", detail=f"not a build's name: {name[:100]!r}")
        self.builds = builds
        self.name = name
        self.path = builds / name
        self.operator_log = self.path / "operator.log"

    @staticmethod
    def create(builds: Path, status: BuildStatus) -> bool:
        """Make an attempt's folder with its first status; False where it exists already.

        Raises:
            TransientError: The disk is full, or the like.
        """
        folder = BuildFolder(builds, status.name)
        if folder.path.exists():
            return False
        try:
            # Filled first and renamed then: nobody ever sees a folder without a status, and one of many wins.
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=builds))
            try:
                (unfinished / "logs").mkdir()
                write_whole(unfinished / "request.json", status.request.to_json(), mode=_PRIVATE)
                write_whole(unfinished / "status.json", status.to_json(), mode=_PRIVATE)
                unfinished.rename(folder.path)
            except FileExistsError:
                return False
            except OSError:
                if folder.path.exists():
                    return False
                raise
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise of_disk(error, f"cannot make {folder.path}") from error
        tell(builds, status.name)
        return True

    # --- status ---

    def status(self) -> BuildStatus | None:
        """The attempt's status; None where there is no such attempt."""
        try:
            return BuildStatus.from_json((self.path / "status.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def stamp(self) -> tuple[int, int]:
        """What changes with every change of the status; cheap to ask for."""
        try:
            found = (self.path / "status.json").stat()
        except OSError:
            return (0, 0)
        return found.st_ino, found.st_mtime_ns

    def change(self, change: Callable[[BuildStatus], BuildStatus | None]) -> BuildStatus | None:
        """Change the status while nobody else does.

        Args:
            change: Given the status, returns the new one, or None to leave it.

        Returns:
            The status afterwards; None where there is no such attempt.

        Raises:
            TransientError: The disk is full, or the like.
        """
        with self._locked() as there:
            status = self.status() if there else None
            changed = change(status) if status else None
            if changed is None or changed == status:
                return status
            write_whole(self.path / "status.json", changed.to_json(), mode=_PRIVATE)
        tell(self.builds, self.name)
        return changed

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        try:
            handle = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
        except (FileNotFoundError, NotADirectoryError):
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(handle)

    # --- runner ---

    def take_runner_lock(self) -> int | None:
        """The runner's lock as an open descriptor, for its next holder; None while a runner lives."""
        try:
            handle = os.open(self.path / "runner", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    def ask_to_stop(self, reason: Reason) -> None:
        """Leave word for the runner, which looks several times a second. The first reason stays."""
        if not self.stop_reason():
            write_whole(self.path / "stop", reason.value, mode=_PRIVATE)

    def stop_reason(self) -> Reason | None:
        """Why somebody wants the attempt to end; None while nobody does."""
        try:
            return Reason((self.path / "stop").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    # --- files ---

    def request(self) -> BuildRequest:
        """What was asked for."""
        return BuildRequest.from_json((self.path / "request.json").read_text(encoding="utf-8"))

    def log(self, step: str) -> Path:
        """A step's log; it exists once the step has started."""
        return self.path / "logs" / f"{step}.log"

    def workspace(self, half: Half) -> Path:
        """The folder in which the steps of one half work."""
        return self.path / half.value

    def remove(self) -> None:
        """Remove the whole folder; its name is free at once, however much there is to delete."""
        doomed = self.builds / f"{_UNFINISHED}{self.name}-{os.getpid()}"
        with self._locked() as there:
            if there:
                self.path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        tell(self.builds, self.name)


def remove_unfinished(builds: Path, older_than: float) -> None:
    """Remove what processes that were killed left half made or half removed, folders and files.

    Args:
        builds: The folder of all attempts.
        older_than: Seconds since the epoch.
    """
    for entry in os.scandir(builds):
        if entry.name.startswith(_UNFINISHED):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime >= older_than:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
