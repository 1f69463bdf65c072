"""The provider ``git`` against real hosts on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from pydantic import SecretStr

from tests.githost import GitHost, SilentHost
from workflows import providers
from workflows.errors import NotFoundError, TransientError
from workflows.git import Credentials
from workflows.git.command import Git
from workflows.providers.git import pick
from workflows.settings import Settings, environment_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def git():
    return providers.create(Settings(resolve_timeout_seconds=10))["git"]


def spec_of(host: GitHost | SilentHost, ref: str, name: str = "o/r") -> str:
    return quote(f"{host.url}/{name}", safe="") + "/" + ref


def test_every_kind_of_ref_becomes_its_commit(git, githost: GitHost):
    first = githost.create("o/r", {"a": "1"})
    second = githost.commit("o/r", {"a": "2"}, branch="feature/main")
    third = githost.commit("o/r", {"a": "3"})
    githost.tag("o/r", "v1", first)
    githost.tag("o/r", "v2", second, annotated=True)
    refs = {
        "HEAD": third,
        "main": third,
        "feature/main": second,
        "feature%2Fmain": second,
        "v1": first,
        "v2": second,
        "tags/v2": second,
        "heads/main": third,
        "refs/heads/main": third,
        "refs/tags/v2": second,
        first: first,
    }
    assert {ref: git.resolve(spec_of(githost, ref)).commit for ref in refs} == refs


def test_a_branch_goes_before_a_tag_of_the_same_name(git, githost: GitHost):
    first = githost.create("o/r", {"a": "1"})
    second = githost.commit("o/r", {"a": "2"})
    githost.tag("o/r", "main", first)
    assert git.resolve(spec_of(githost, "main")).commit == second


def test_a_ref_that_only_ends_alike_is_not_taken():
    sha = b"0" * 40
    answer = b"\n".join(sha + b"\trefs/heads/" + name for name in (b"old/main", b"x/refs/heads/main"))
    assert pick(answer, "main") is None
    assert pick(sha + b"\trefs/pull/1/head\n", "pull/1/head") == "0" * 40
    assert pick(b"", "main") is None
    assert pick(b"warning: \xff\n" + sha + b"\tHEAD\n", "HEAD") == "0" * 40


@pytest.mark.parametrize(("name", "ref"), [("o/r", "nope"), ("o/nope", "main"), ("o/r", "0" * 7)])
def test_what_does_not_exist_is_said_in_binderhubs_words(git, githost: GitHost, name, ref):
    githost.create("o/r", {"a": "1"})
    spec = spec_of(githost, ref, name)
    with pytest.raises(NotFoundError) as raised:
        git.resolve(spec)
    assert str(raised.value) == (
        f"Could not resolve ref for git:{spec}. Double check your URL and that your repo is public."
    )


def test_a_host_that_never_answers_is_given_up(silent_host: SilentHost):
    git = providers.create(Settings(resolve_timeout_seconds=0.5))["git"]
    started = time.monotonic()
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+ did not answer within 0\.5 seconds") as raised:
        git.resolve(spec_of(silent_host, "main"))
    assert time.monotonic() - started < 10
    assert str(raised.value).startswith("Error resolving ref for git:")
    assert not left_over(silent_host.url)


def test_a_host_that_drips_is_given_up_too(drip_host: SilentHost):
    git = providers.create(Settings(resolve_timeout_seconds=0.5))["git"]
    with pytest.raises(TransientError, match="did not answer"):
        git.resolve(spec_of(drip_host, "main"))
    assert not left_over(drip_host.url)


def test_a_host_that_is_not_there_is_transient(git, githost: GitHost):
    spec = spec_of(githost, "main")
    githost.stop()
    with pytest.raises(TransientError, match="cannot be reached"):
        git.resolve(spec)


def test_a_hundred_clicks_ask_the_host_once(git, githost: GitHost):
    commit = githost.create("o/r", {"a": "1"})
    spec = spec_of(githost, "main")
    with ThreadPoolExecutor(100) as pool:
        found = {each.commit for each in pool.map(git.resolve, [spec] * 100)}
    assert found == {commit}
    assert sum("info/refs" in path for path in githost.requests) <= 3  # once, and once more where threads come late


def test_a_new_commit_is_seen_by_the_next_click(git, githost: GitHost):
    githost.create("o/r", {"a": "1"})
    git.resolve(spec_of(githost, "main"))
    second = githost.commit("o/r", {"a": "2"})
    time.sleep(0.6)
    assert git.resolve(spec_of(githost, "main")).commit == second


def test_nothing_of_this_machine_changes_what_git_does(githost: GitHost, tmp_path: Path, monkeypatch):
    commit = githost.create("o/r", {"a": "1"})
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "http://127.0.0.1:1/"]\n\tinsteadOf = {githost.url}/\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    git = providers.create(Settings(resolve_timeout_seconds=10))["git"]
    assert git.resolve(spec_of(githost, "main")).commit == commit


def test_credentials_go_to_the_addresses_that_begin_with_theirs_alone(githost: GitHost):
    githost.create("o/r", {"a": "1"})
    header = SecretStr("X-Token: t0ken")
    elsewhere = Credentials(url="http://127.0.0.1:1/", header=header)
    assert Git(Settings(), [elsewhere]).run("ls-remote", "--", f"{githost.url}/o/r", seconds=10).code == 0
    assert "X-Token" not in githost.headers
    here = Credentials(url=f"{githost.url}/", header=header)
    assert Git(Settings(), [here]).run("ls-remote", "--", f"{githost.url}/o/r", seconds=10).code == 0
    assert "X-Token" in githost.headers


def test_it_works_in_a_process_of_gevent(githost: GitHost, silent_host: SilentHost):
    commit = githost.create("o/r", {"a": "1"})
    script = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from web.spawn import spawner
from workflows import providers
from workflows.errors import TransientError
from workflows.settings import load

settings = load()
git = providers.create(settings, spawner())["git"]
hasty = providers.create(settings.model_copy(update={{"resolve_timeout_seconds": 1}}), spawner())["git"]
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic()); gevent.sleep(0.01)
clock = gevent.spawn(tick)
def slow(git):
    try:
        git.resolve({spec_of(silent_host, "main")!r})
    except TransientError as error:
        return str(error)
jobs = [gevent.spawn(slow, hasty)] + [gevent.spawn(git.resolve, {spec_of(githost, "main")!r}) for _ in range(50)]
gevent.joinall(jobs)
assert "did not answer" in jobs[0].value, jobs[0].value
assert {{job.value.commit for job in jobs[1:]}} == {{{commit!r}}}
assert len(ticks) > 20, ticks
killed = gevent.spawn(slow, git); gevent.sleep(0.6); killed.kill()
print("well")
"""
    environment = os.environ | environment_of(Settings(resolve_timeout_seconds=50))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "well\n", done.stderr
    assert not left_over(silent_host.url)


def left_over(url: str) -> list[str]:
    """Processes that still talk to `url`."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if url in line and "git" in line]
