"""One commit of a git repository, laid out in a folder without its history, within limits of size and time."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from workflows.errors import DISK_FULL, BuildError, NotFoundError, TooLargeError, TransientError
from workflows.events import printable
from workflows.git.allowance import Allowance
from workflows.git.command import Ended, Git
from workflows.image import CommitSHA
from workflows.repo import host_of
from workflows.settings import MIB

_REFUSES_COMMITS = re.compile(r"unadvertised object|not support shallow", re.IGNORECASE)
_TREE_BYTES = 64 * MIB
"""Of a list of files: more than half a million of them. A small commit can name billions (a git bomb)."""

_ENTRY = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40}) +(\d+|-)\t(.+)", re.DOTALL)
_LFS_FILTER = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
"""Told for the one command that needs it, so that no checkout runs it."""

_MODULE_MODE = b"160000"
_FORBIDDEN_NAMES = frozenset({"", ".", "..", ".git"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A submodule as its parent's tree names it.

    Args:
        path: In the tree, checked: nothing but names of folders.
        commit: The commit that belongs there.
    """

    path: str
    commit: CommitSHA


class Checkout:
    """One commit on its way from a host to a folder.

    Args:
        git: Runs git.
        allowance: What may be taken.
        git_folder: Where git keeps its own files; not made yet.
        url: Checked address of the repository.
        commit: The commit, 40 hexadecimal digits.
    """

    def __init__(self, git: Git, allowance: Allowance, git_folder: Path, url: str, commit: CommitSHA) -> None:
        self._git = git
        self._allowance = allowance
        self._folder = git_folder
        self._url = url
        self._commit = commit

    def download(self, ref: str) -> None:
        """Get the commit without its history; with it, where the host knows only refs.

        Args:
            ref: Where the commit was found, for such hosts; empty where that is not known.

        Raises:
            NotFoundError: Repository or commit does not exist, or is private.
            TooLargeError: It is over the limit; the download was stopped.
            TransientError: The host does not answer, or has a fault.
            StepTimeoutError: It took too long.
        """
        self._run("init", "--quiet", "--template=")
        ended = self._fetch("--depth=1", wanted=(self._commit,))
        if ended.code and _REFUSES_COMMITS.search(ended.complaint):
            ended = self._download_by_ref(ref)
        if ended.code:
            raise self._error(ended)
        if not self._has_commit():
            raise self._gone("the commit is on none of its branches and tags")
        self._allowance.add_download(self._folder)

    def modules(self) -> list[Module]:
        """The submodules of the commit, once every file of it is counted and every path is checked.

        Raises:
            TooLargeError: The files would be over the limit when laid out, or are too many.
            BuildError: A path leads elsewhere.
        """
        ended = self._run("ls-tree", "-r", "-l", "-z", "--full-tree", self._commit, output_bytes=_TREE_BYTES)
        if len(ended.output) >= _TREE_BYTES:
            raise TooLargeError("The repository holds more files than this service allows.")
        if ended.code:
            raise BuildError("The repository's list of files is broken.", detail=ended.complaint)
        found = []
        for entry in ended.output.split(b"\0")[:-1]:
            match = _ENTRY.fullmatch(entry)
            if not match:
                raise BuildError("The repository's list of files is broken.", detail=repr(entry[:200]))
            mode, _, commit, size, path = match.groups()
            checked = _checked(os.fsdecode(path))
            if mode == _MODULE_MODE:
                found.append(Module(path=checked, commit=CommitSHA(commit.decode())))
            else:
                self._allowance.add_file(int(size))
        return found

    def module_urls(self) -> dict[str, str]:
        """Addresses of submodules by path, as ``.gitmodules`` gives them; those that are not to be fetched left out."""
        # Read from the commit, not from the folder, where the name could be a link.
        arguments = ("config", "-z", "--no-includes", "--blob", f"{self._commit}:.gitmodules", "--list")
        fields: dict[str, dict[str, str]] = {}
        for entry in self._run(*arguments).output.decode(errors="replace").split("\0"):
            key, _, value = entry.partition("\n")
            section, _, field = key.rpartition(".")
            if section.startswith("submodule."):
                fields.setdefault(section, {})[field] = value
        wanted = (each for each in fields.values() if each.get("update") != "none")
        return {each["path"]: each["url"] for each in wanted if "path" in each and "url" in each}

    def lay_out(self, folder: Path) -> None:
        """Write the commit's files to `folder`. Nothing of the repository is run or obeyed for it.

        Raises:
            BuildError: They cannot be written: two names that are one, a name that is none.
            TransientError: The disk has no room for them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        ended = self._run(f"--work-tree={folder}", "checkout", "--quiet", "--force", "--detach", self._commit)
        if ended.code and shutil.disk_usage(folder).free < self._allowance.laid_out_bytes:
            # git does not say of each file why it could not be written.
            raise TransientError(DISK_FULL, detail=ended.complaint)
        if ended.code:
            raise BuildError("The repository's files cannot be laid out.", detail=ended.complaint)

    def fill(self, folder: Path) -> bool:
        """Replace the pointers of Git LFS in `folder` by the files that they stand for; whether all of them could be.

        Raises:
            TooLargeError: They are over the limit.
        """
        # The repository's own .lfsconfig may name any host, or a folder of this machine: ours stands before it.
        endpoint = f"{self._url.removesuffix('/').removesuffix('.git')}.git/info/lfs"
        config = {"lfs.url": endpoint} | _LFS_FILTER
        options = [option for key, value in config.items() for option in ("-c", f"{key}={value}")]

        def look(_: str = "") -> None:
            self._allowance.check_laid_out(self._folder / "lfs")
            self._allowance.check_laid_out(folder)

        command = (f"--git-dir={self._folder}", f"--work-tree={folder}", *options, "lfs", "pull")
        try:
            ended = self._git.run(*command, seconds=self._allowance.seconds(), look=look)
        except TimeoutError as error:
            raise self._allowance.late() from error
        look()
        return ended.code == 0

    def _download_by_ref(self, ref: str) -> Ended:
        ended = self._fetch("--depth=1", wanted=(ref,)) if ref else None
        if ended and ended.code == 0 and self._has_commit():
            return ended
        whole = ("--unshallow",) if (self._folder / "shallow").exists() else ()
        return self._fetch(*whole, wanted=("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"))

    def _fetch(self, *options: str, wanted: tuple[str, ...]) -> Ended:
        """One ``git fetch``, ended as soon as it is over a limit or nothing comes any more."""
        seen: tuple[int, str] = (0, "")
        moved = time.monotonic()

        def look(said: str) -> None:
            nonlocal seen, moved
            now = (self._allowance.check_download(self._folder), said)
            if now != seen:
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved > self._allowance.silent_seconds:
                raise self._silent()

        arguments = (f"--git-dir={self._folder}", "fetch", "--no-tags", "--progress", *options, "--", self._url)
        try:
            return self._git.run(*arguments, *wanted, seconds=self._allowance.seconds(), look=look)
        except TimeoutError as error:
            raise self._allowance.late() from error

    def _run(self, *arguments: str, output_bytes: int | None = None) -> Ended:
        try:
            return self._git.run(
                f"--git-dir={self._folder}", *arguments, seconds=self._allowance.seconds(), output_bytes=output_bytes
            )
        except TimeoutError as error:
            raise self._allowance.late() from error

    def _has_commit(self) -> bool:
        return self._run("cat-file", "-e", f"{self._commit}^{{commit}}").code == 0

    def _silent(self) -> TransientError:
        return TransientError(
            f"{host_of(self._url)} sent nothing for {self._allowance.silent_seconds:g} seconds. Try again later."
        )

    def _error(self, ended: Ended) -> NotFoundError | TransientError:
        if ended.missing:
            return self._gone(ended.complaint)
        sentence = f"{host_of(self._url)} cannot be reached, or has a fault. Try again later."
        return TransientError(sentence, detail=ended.complaint)

    def _gone(self, detail: str) -> NotFoundError:
        return NotFoundError(
            f"{self._url} or its commit {self._commit[:7]} does not exist (any more), or is private.", detail=detail
        )


def _checked(path: str) -> str:
    # git refuses these names when it lays files out; whoever reads the list must not depend on that.
    if any(part.lower() in _FORBIDDEN_NAMES for part in path.split("/")):
        raise BuildError(f"The repository holds a path that leads elsewhere: {printable(path)}")
    return path
