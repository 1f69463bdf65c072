"""The step ``fetch``, run by the step runner as a build runs it, against real git hosts."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.githost import GitHost, SilentHost
from tests.images import write_layout
from workflows.build import BuildRequest, Lane
from workflows.image import ImageDigest
from workflows.pipeline import RESOLVE, Standing
from workflows.settings import MIB, Settings, environment_of
from workflows.stores.catalogue import Entry, catalogue_of
from workflows.stores.layout import REF
from workflows.stores.skopeo import Skopeo

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Step:
    """The step runner with a workspace of its own."""

    settings: Settings
    code: int | None = None
    log: str = ""

    def fetch(self, url: str, commit: str, ref: str = "main") -> int:
        return self._run("fetch", "--build=b", f"--clone-url={url}", f"--commit={commit}", f"--ref={ref}")

    def resolve(self, provider: str, spec: str) -> int:
        return self._run("resolve", "--build=nightly-1", f"--provider={provider}", f"--spec={spec}")

    def output(self, name: str) -> str:
        return (self.settings.workspace / "outputs" / name).read_text(encoding="utf-8")

    def fails(self, code: int, sentence: str, url: str, commit: str, ref: str = "main") -> None:
        assert self.fetch(url, commit, ref) == code, self.log
        assert sentence in self.log
        assert not (self.settings.workspace / ".fetch").exists()

    @property
    def source(self) -> Path:
        return self.settings.workspace / "source"

    def _run(self, *arguments: str) -> int:
        command = [sys.executable, "-I", "-m", "workflows.run", *arguments]
        environment = os.environ | environment_of(self.settings)
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
        self.log = done.stdout + done.stderr
        self.code = done.returncode
        return done.returncode


@pytest.fixture
def step(tmp_path: Path):
    def step(**settings: object) -> Step:
        folder = tmp_path / "workspace"
        folder.mkdir(exist_ok=True)
        given = {"state": tmp_path / "state", "workspace": folder, "resolve_timeout_seconds": 10} | settings
        return Step(Settings(**given))

    return step


@pytest.fixture
def plain_host(tmp_path: Path) -> Iterator[GitHost]:
    """A host that gives the tips of refs alone."""
    host = GitHost(tmp_path / "plain", bare_commits=False).start()
    yield host
    host.stop()


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


def files_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_commit_comes_without_its_history(step, githost: GitHost):
    githost.create("o/r", {"old": noise(4 * MIB), "kept": "1"})
    commit = githost.commit("o/r", {"kept": "2", "folder/file": "3"}, delete=["old"])
    githost.commit("o/r", {"newer": "4"})
    fetch = step(max_source_bytes=MIB)
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert files_in(fetch.source) == {"kept": "2", "folder/file": "3"}
    assert list(fetch.settings.workspace.iterdir()) == [fetch.source]
    assert f"Fetching o/r at {commit[:7]} …" in fetch.log
    assert "Fetched 2 files" in fetch.log


def test_a_second_run_begins_anew(step, githost: GitHost):
    commit = githost.create("o/r", {"a": "1"})
    fetch = step()
    fetch.source.mkdir()
    (fetch.source / "left").write_text("over")
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert files_in(fetch.source) == {"a": "1"}


def test_a_host_that_gives_no_single_commit_is_asked_for_the_ref(step, plain_host: GitHost):
    first = plain_host.create("o/r", {"a": "1"})
    second = plain_host.commit("o/r", {"a": "2"})
    plain_host.commit("o/r", {"b": "3"}, branch="other")
    fetch = step()
    for commit, content in ((second, "2"), (first, "1")):
        assert fetch.fetch(f"{plain_host.url}/o/r", commit) == 0, fetch.log
        assert files_in(fetch.source) == {"a": content}
    # The ref may be a commit itself, may have moved, or may be gone.
    for ref in (first, "other", "gone", ""):
        assert fetch.fetch(f"{plain_host.url}/o/r", first, ref) == 0, fetch.log
        assert files_in(fetch.source) == {"a": "1"}


def test_an_unknown_commit_is_not_found(step, githost: GitHost, plain_host: GitHost):
    for host in (githost, plain_host):
        host.create("o/r", {"a": "1"})
        step().fails(66, "does not exist (any more), or is private", f"{host.url}/o/r", "0" * 39 + "1")


def test_an_unknown_repository_is_not_found(step, githost: GitHost):
    step().fails(66, "does not exist", f"{githost.url}/o/nope", "1" * 40)


@pytest.mark.parametrize(
    ("url", "commit", "ref"),
    [
        ("ext::sh -c id", "1" * 40, "main"),
        ("/etc", "1" * 40, "main"),
        ("file:///etc", "1" * 40, "main"),
        ("--upload-pack=id", "1" * 40, "main"),
        ("https://name:secret@h/o", "1" * 40, "main"),
        ("https://h/o", "HEAD", "main"),
        ("https://h/o", "--all", "main"),
        ("https://h/o", "1" * 40, "--upload-pack=id"),
        ("https://h/o", "1" * 40, "+refs/*:refs/*"),
    ],
)
def test_arguments_are_checked_once_more(step, url, commit, ref):
    fetch = step()
    assert fetch.fetch(url, commit, ref) == 66, fetch.log
    assert "secret" not in fetch.log
    assert not fetch.source.exists()


def test_a_download_over_the_limit_is_stopped_while_it_comes(step, tmp_path: Path):
    host = GitHost(tmp_path / "slow", bytes_per_second=4 * MIB).start()
    commit = host.create("o/r", {"a": noise(32 * MIB)})
    fetch = step(max_source_bytes=2 * MIB)
    largest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            largest.append(size_of(fetch.settings.workspace))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        fetch.fails(67, "larger than the 2.0 MiB that this service allows", f"{host.url}/o/r", commit)
    finally:
        ended.set()
        watcher.join()
        host.stop()
    assert MIB < max(largest) < 16 * MIB


def test_files_that_are_small_only_while_packed_are_not_laid_out(step, githost: GitHost):
    commit = githost.create("o/r", {f"zeros-{number}": bytes(8 * MIB) for number in range(4)})
    fetch = step(max_source_bytes=20 * MIB)
    fetch.fails(67, "larger than the 20.0 MiB", f"{githost.url}/o/r", commit)
    assert not fetch.source.exists()


def test_a_small_commit_that_names_billions_of_files_is_refused(step, githost: GitHost):
    commit = git_bomb(githost)
    fetch = step()
    fetch.fails(67, "more files than this service allows", f"{githost.url}/o/bomb", commit)
    assert not fetch.source.exists()


def test_a_host_that_drips_is_given_up(step, drip_host: SilentHost):
    started = time.monotonic()
    fetch = step(resolve_timeout_seconds=1, fetch_timeout_seconds=120)
    fetch.fails(75, "sent nothing for 1 seconds", f"{drip_host.url}/o/r", "1" * 40)
    assert time.monotonic() - started < 100
    assert not left_over(drip_host.url)


def test_a_download_that_takes_too_long_is_ended(step, tmp_path: Path):
    host = GitHost(tmp_path / "slow", bytes_per_second=MIB // 2).start()
    commit = host.create("o/r", {"a": noise(32 * MIB)})
    step(fetch_timeout_seconds=3).fails(72, "longer than", f"{host.url}/o/r", commit)
    assert not left_over(host.url)
    host.stop()


def test_a_host_that_is_not_there_is_tried_again(step, githost: GitHost):
    url = githost.url
    githost.stop()
    fetch = step()
    fetch.fails(75, "cannot be reached", f"{url}/o/r", "1" * 40)
    assert fetch.log.count("Fetching o/r") == 3


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../outside",
        "../a/../../outside",
        "../folder/up/..",
        "../..",
        "../../source-of-another/x",
        "/",
    ],
)
def test_a_link_that_leaves_the_tree_is_refused(step, githost: GitHost, target):
    githost.create("o/r", {"a/x": "1"})
    commit = githost.commit("o/r", {}, links={"docs/link": target, "folder": "a", "a/up": ".."})
    step().fails(10, "The link docs/link leads out of the repository", f"{githost.url}/o/r", commit)


def test_a_link_to_a_link_that_leaves_the_tree_is_refused(step, githost: GitHost):
    githost.create("o/r", {"a": "1"})
    commit = githost.commit("o/r", {}, links={"one": "two", "two": "three/x", "three": "/"})
    step().fails(10, "leads out of the repository", f"{githost.url}/o/r", commit)


def test_links_within_the_tree_stay(step, githost: GitHost):
    githost.create("o/r", {"a/x": "1"})
    links = {"one": "a/x", "b/two": "../a/x", "dangling": "nowhere", "loop": "loop", "folder": "a", "self": "."}
    commit = githost.commit("o/r", {}, links=links)
    fetch = step()
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert {name: str((fetch.source / name).readlink()) for name in links} == links


def test_nothing_of_the_repository_is_run_or_obeyed(step, githost: GitHost, tmp_path: Path):
    mark = tmp_path / "mark"
    attributes = "* filter=evil diff=evil merge=evil\n*.txt ident\n"
    config = f'[filter "evil"]\n\tsmudge = touch {mark}\n\trequired\n[core]\n\thooksPath = hooks\n'
    files = {".gitattributes": attributes, ".gitconfig": config, "hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n"}
    commit = githost.create("o/r", {**files, "a.txt": "1"})
    fetch = step()
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert files_in(fetch.source)["a.txt"] == "1"
    assert not mark.exists()


@pytest.mark.parametrize("name", [".git", ".GIT", ".."])
def test_a_path_that_leads_elsewhere_is_refused(step, githost: GitHost, name):
    githost.create("o/r", {"a": "1"})
    commit = crooked(githost, "o/r", name)
    fetch = step()
    fetch.fails(10, "path that leads elsewhere", f"{githost.url}/o/r", commit)
    assert not fetch.source.exists()


def test_names_of_files_drive_no_terminal(step, githost: GitHost):
    githost.create("o/r", {"a": "1"})
    commit = githost.commit("o/r", {}, links={"\x1b[2J\x1b]0;owned\x07link": "/"})
    fetch = step()
    fetch.fails(10, "leads out of the repository", f"{githost.url}/o/r", commit)
    assert "\x1b" not in fetch.log


def modules(**urls: str) -> str:
    return "".join(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, url in urls.items())


def test_submodules_come_along_and_theirs_too(step, githost: GitHost):
    inner = githost.create("o/inner", {"i": "inner"})
    githost.create("o/middle", {"m": "middle"})
    middle = githost.commit("o/middle", {".gitmodules": modules(deep="../inner.git")}, modules={"deep": inner})
    githost.create("o/r", {"a": "1"})
    urls = modules(mod=f"{githost.url}/o/middle", beside="../inner")
    commit = githost.commit("o/r", {".gitmodules": urls}, modules={"mod": middle, "beside": inner, "stray": inner})
    fetch = step()
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    found = files_in(fetch.source)
    assert found.pop(".gitmodules")
    assert found.pop("mod/.gitmodules")
    assert found == {"a": "1", "mod/m": "middle", "mod/deep/i": "inner", "beside/i": "inner"}
    assert "The submodule stray has no address" in fetch.log
    assert not list(fetch.source.rglob(".git"))


@pytest.mark.parametrize(
    "url",
    ["file:///etc", "/etc", "ext::sh -c id", "--upload-pack=id", "../../../../etc", "../nope", "https://a:secret@h/o"],
)
def test_a_submodule_that_cannot_be_fetched_is_the_repositorys_fault(step, githost: GitHost, url):
    inner = githost.create("o/inner", {"i": "1"})
    githost.create("o/r", {"a": "1"})
    commit = githost.commit("o/r", {".gitmodules": modules(mod=url)}, modules={"mod": inner})
    fetch = step()
    fetch.fails(10, "The submodule mod cannot be fetched", f"{githost.url}/o/r", commit)
    assert "secret" not in fetch.log


def test_submodules_count_towards_the_limit(step, githost: GitHost):
    inner = githost.create("o/inner", {"i": noise(2 * MIB)})
    githost.create("o/r", {"a": noise(2 * MIB)})
    names = {"one": inner, "two": inner}
    commit = githost.commit("o/r", {".gitmodules": modules(**dict.fromkeys(names, "../inner"))}, modules=names)
    step(max_source_bytes=5 * MIB).fails(67, "larger than the 5.0 MiB", f"{githost.url}/o/r", commit)


def test_submodules_without_end_are_refused(step, githost: GitHost):
    # A commit cannot name itself; a long chain of small ones is as good.
    inner = githost.create("o/0", {"i": "1"})
    for depth in range(1, 11):
        githost.create(f"o/{depth}", {"i": "1"})
        files = {".gitmodules": modules(m=f"../{depth - 1}")}
        inner = githost.commit(f"o/{depth}", files, modules={"m": inner})
    step().fails(10, "too deep in one another", f"{githost.url}/o/10", inner)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3\n"
LFS_FILES = {
    ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    ".lfsconfig": "[lfs]\n\turl = file:///etc\n",
    "a.bin": POINTER,
}


@pytest.fixture
def lfs(tmp_path: Path, monkeypatch):
    """A `git lfs` of this test's own, as a machine may or may not have it."""

    def lfs(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "git-lfs").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "git-lfs").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return lfs


def test_files_in_git_lfs_come_from_the_repositorys_own_host(step, githost: GitHost, lfs):
    lfs('git config lfs.url > "$GIT_WORK_TREE/a.bin"')
    commit = githost.create("o/r", LFS_FILES)
    fetch = step()
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert files_in(fetch.source)["a.bin"] == f"{githost.url}/o/r.git/info/lfs\n"


def test_files_in_git_lfs_count_towards_the_limit(step, githost: GitHost, lfs):
    lfs('while :; do head -c 1000000 /dev/zero >> "$GIT_WORK_TREE/a.bin"; sleep 0.05; done')
    commit = githost.create("o/r", LFS_FILES)
    step(max_source_bytes=2 * MIB).fails(67, "larger than the 2.0 MiB", f"{githost.url}/o/r", commit)


@pytest.mark.parametrize("script", ["", "exit 2"])
def test_files_in_git_lfs_that_do_not_come_stay_pointers_and_the_log_says_so(step, githost: GitHost, lfs, script):
    if script:
        lfs(script)
    commit = githost.create("o/r", LFS_FILES)
    fetch = step()
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert files_in(fetch.source)["a.bin"] == POINTER
    assert not script or "they stay pointers" in fetch.log


def test_a_token_reaches_its_own_host_alone(step, githost: GitHost, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("t0ken")
    commit = githost.create("o/r", {"a": "1"})
    fetch = step(github_token_file=token)
    assert fetch.fetch(f"{githost.url}/o/r", commit) == 0, fetch.log
    assert not any("authorization" in name.lower() for name in githost.headers)
    assert "t0ken" not in fetch.log


def test_resolve_tells_what_a_spec_stands_for_and_how_its_image_stands(
    step, githost: GitHost, registry: str, tmp_path: Path
):
    commit = githost.create("o/r", {"a": "1"})
    resolve = step(image_store="registry", registry_insecure=True, image_prefix=f"{registry}/argosy/")
    spec = quote(f"{githost.url}/o/r", safe="") + "/main"
    assert resolve.resolve("git", spec) == 0, resolve.log
    found = json.loads(resolve.log.splitlines()[-1])
    assert found["commit"] == commit
    assert found["clone_url"] == f"{githost.url}/o/r"
    request = BuildRequest.from_json(resolve.output("request"))
    assert (request.name, request.commit, request.spec, request.lane) == ("nightly-1", commit, spec, Lane.PREBUILD)
    assert {name for name in RESOLVE.outputs if not resolve.output(name)} == {"held"}
    assert {name: resolve.output(name) for name in request.parameters() if name in RESOLVE.outputs} == {
        name: value for name, value in request.parameters().items() if name in RESOLVE.outputs
    }
    assert resolve.output("standing") == Standing.ABSENT

    digest = write_layout(tmp_path / "layout", {"a": "1"}, name=REF)
    Skopeo(resolve.settings).copy(f"oci:{tmp_path}/layout:{REF}", f"docker://{request.image}", print)
    assert resolve.resolve("git", spec) == 0, resolve.log
    assert (resolve.output("standing"), resolve.output("held")) == (Standing.HELD, digest)
    assert BuildRequest.from_json(resolve.output("request")).held == digest

    catalogue_of(resolve.settings).add(
        Entry(
            image=request.image,
            digest=ImageDigest(digest),
            provider="git",
            spec=spec,
            repo_url=request.repo_url,
            commit=request.commit,
            builder="test",
            published=1,
            build=request.name,
        )
    )
    assert resolve.resolve("git", spec) == 0, resolve.log
    assert (resolve.output("standing"), resolve.output("held")) == (Standing.KNOWN, "")


def test_what_resolve_cannot_find_is_not_found(step, githost: GitHost):
    resolve = step()
    assert resolve.resolve("nope", "x") == 66
    assert "No provider found for prefix nope" in resolve.log
    assert resolve.resolve("git", quote(f"{githost.url}/o/nowhere", safe="") + "/main") == 66


def git_bomb(host: GitHost) -> str:
    """A commit of ten levels of folders, each ten times the same: ten billion files in eleven objects."""
    host.create("o/bomb", {"a": "1"})
    line = f"100644 blob {host._blob('o/bomb', 'x')}\t"
    for _ in range(10):
        tree = host._git("o/bomb", "mktree", feed="".join(f"{line}{digit}\n" for digit in range(10)).encode())
        line = f"040000 tree {tree}\t"
    commit = host._git("o/bomb", "commit-tree", "-m", "Boom", tree)
    host._git("o/bomb", "update-ref", "refs/heads/main", commit)
    return commit


def crooked(host: GitHost, name: str, folder: str) -> str:
    """A commit whose tree holds a folder that git's own commands would never write."""
    blob = host._blob(name, "x")
    inner = host._git(name, "mktree", feed=f"100644 blob {blob}\tconfig\n".encode())
    data = b"40000 " + folder.encode() + b"\0" + bytes.fromhex(inner)
    tree = host._git(name, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", feed=data)
    commit = host._git(name, "commit-tree", "-m", "Crooked", tree)
    host._git(name, "update-ref", "refs/heads/crooked", commit)
    return commit


def size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).lstat().st_size
    return total


def left_over(url: str) -> list[str]:
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if url in line and "git" in line]
