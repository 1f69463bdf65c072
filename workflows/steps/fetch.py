"""fetch: the repository at its commit, without its history, with its submodules, into the workspace."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from workflows import providers
from workflows.errors import BuildError, NotFoundError, SpecError
from workflows.events import printable
from workflows.git.allowance import Allowance, readable
from workflows.git.checkout import Checkout, Module
from workflows.git.command import Git, has_lfs
from workflows.image import CommitSHA
from workflows.repo import check_ref, check_url
from workflows.settings import Settings

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_MODULES = 200
_MAX_DEPTH = 8
"""Submodules, and how deep they lie in one another: a repository can be its own submodule."""

_REMOVALS = 10
_PAUSE_SECONDS = 0.1
"""How often a folder is removed: a helper of git that was killed may have made one more file meanwhile."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build")
    parser.add_argument("--clone-url", required=True, help="address that git fetches from")
    parser.add_argument("--commit", required=True, help="the commit, 40 hexadecimal digits")
    parser.add_argument("--ref", default="", help="where the commit was found, for hosts that know only refs")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Lay the commit out in ``source``; nothing is left of git's own files.

    Raises:
        SpecError: Address, commit or ref is none.
        NotFoundError: Repository or commit does not exist, or is private.
        TooLargeError: Over a limit of size, while downloading or before it is laid out.
        BuildError: A submodule cannot be fetched, or a path or link leads out of the tree.
        TransientError: The host does not answer, or has a fault.
        StepTimeoutError: It took too long.
    """
    url = check_url(options.clone_url, settings.git_protocols)
    ref = check_ref(options.ref) if options.ref else ""
    if not _COMMIT.fullmatch(options.commit):
        raise SpecError("The commit is none.", detail=f"commit {options.commit!r}")
    source, work = settings.workspace / "source", settings.workspace / ".fetch"
    _remove(source, work)
    work.mkdir(parents=True)
    try:
        fetching = _Fetching(settings, source, work)
        fetching.add(url, CommitSHA(options.commit), ref, source)
        _check_links(source)
    finally:
        _remove(work)
    print(f"Fetched {fetching.summary()}.", flush=True)


class _Fetching:
    """A repository and its submodules, all under one allowance."""

    def __init__(self, settings: Settings, root: Path, work: Path) -> None:
        self._protocols = settings.git_protocols
        self._git = Git(settings, providers.credentials(providers.create(settings).values()))
        self._allowance = Allowance(settings)
        self._root = root
        self._work = work
        self._count = 0

    def summary(self) -> str:
        """What was fetched, for people."""
        return f"{self._allowance.files} files, {readable(self._allowance.laid_out_bytes)}"

    def add(self, url: str, commit: CommitSHA, ref: str, folder: Path, depth: int = 0) -> None:
        """Lay out one repository in `folder`, and its submodules in theirs."""
        print(f"Fetching {_title(url)} at {commit[:7]} …", flush=True)
        self._count += 1
        checkout = Checkout(self._git, self._allowance, self._work / str(self._count), url, commit)
        checkout.download(ref)
        modules = checkout.modules()
        checkout.lay_out(folder)
        if _uses_lfs(folder):
            _fill(checkout, folder)
        urls = checkout.module_urls() if modules else {}
        for module in modules:
            self._add_module(module, urls.get(module.path), url, folder, depth + 1)

    def _add_module(self, module: Module, address: str | None, parent: str, folder: Path, depth: int) -> None:
        name = printable(module.path)
        if address is None:
            print(f"The submodule {name} has no address: its folder stays empty.", flush=True)
            return
        if depth > _MAX_DEPTH or self._count > _MAX_MODULES:
            raise BuildError(f"The repository's submodules are too many, or too deep in one another, at {name}.")
        target = folder / module.path
        if not target.resolve().is_relative_to(self._root.resolve()) or target.is_symlink():
            raise BuildError(f"The submodule {name} leads out of the repository.")
        try:
            url = check_url(relative_to(parent, address), self._protocols)
            self.add(url, module.commit, "", target, depth)
        except NotFoundError as error:
            # The repository is there; that it names what is not is its own fault.
            raise BuildError(f"The submodule {name} cannot be fetched: {error}", detail=error.detail) from error


def relative_to(parent: str, address: str) -> str:
    """A submodule's address, where it is relative to its parent's: ``../other`` lies beside it.

    Source: https://git-scm.com/docs/git-submodule, *add*
    """
    if not address.startswith(("./", "../")):
        return address
    base, rest = parent.rstrip("/"), address
    while rest.startswith(("./", "../")):
        step, _, rest = rest.partition("/")
        if step == "..":
            base = base.rpartition("/")[0]
    return f"{base}/{rest}"


def _fill(checkout: Checkout, folder: Path) -> None:
    if not has_lfs():
        print("Files in Git LFS stay pointers: this service has no Git LFS.", flush=True)
    elif not checkout.fill(folder):
        print("Some files in Git LFS could not be fetched: they stay pointers.", flush=True)


def _uses_lfs(folder: Path) -> bool:
    try:
        handle = os.open(folder / ".gitattributes", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as attributes:
        return b"filter=lfs" in attributes.read()


def _check_links(source: Path) -> None:
    """Raise where a link leads out of the tree: what follows it later does so with other rights than its author's."""
    root = os.path.realpath(source)
    for parent, folders, files in os.walk(source):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118  # may be hundreds of thousands
            if os.path.islink(path) and os.path.commonpath((os.path.realpath(path), root)) != root:  # noqa: PTH114
                shown = printable(os.path.relpath(path, source))
                raise BuildError(f"The link {shown} leads out of the repository.", detail=os.readlink(path))  # noqa: PTH115


def _remove(*folders: Path) -> None:
    for folder in folders:
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_PAUSE_SECONDS)
        else:
            shutil.rmtree(folder)


def _title(url: str) -> str:
    return urlsplit(url).path.strip("/").removesuffix(".git") or url
