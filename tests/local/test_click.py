"""Click to server, through everything: the farm that `make run` starts, with nothing on the way played."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.githost import GitHost, SilentHost
from tests.local.farm import Farm
from tests.visitor import Visitor, git_spec, run_cell

NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
BUSYBOX_DOCKERFILE = "FROM scratch\nCOPY README.md /\n"
"""The smallest image that builds: enough wherever only the build is looked at."""


@pytest.fixture
def visitor(farm: Farm) -> Visitor:
    return Visitor(farm.url)


def repository_with(githost: GitHost, name: str, files: dict[str, str | bytes]) -> str:
    githost.create(name, files)
    return f"{githost.url}/{name}"


@pytest.mark.smoke
def test_a_repository_with_requirements_becomes_a_server_in_which_a_cell_runs(
    visitor: Visitor, githost: GitHost
) -> None:
    files = {"requirements.txt": "six==1.17.0\n", "index.ipynb": NOTEBOOK}
    commit = githost.create("class/first", files)
    url = f"{githost.url}/class/first"

    first = visitor.click(git_spec(url))

    assert first.last["phase"] == "ready", first.log
    assert first.phases[0] == "waiting"
    order = [first.phases.index(phase) for phase in ("waiting", "fetching", "building", "built", "launching", "ready")]
    assert order == sorted(order)
    ready = first.last
    assert ready["repo_url"] == url
    assert ready["image"].split("@")[0].endswith(f":{commit}")
    assert ready["binder_persistent_request"].endswith(commit)
    answer = requests.get(f"{ready['url']}api/status", headers={"Authorization": f"token {ready['token']}"}, timeout=30)
    assert answer.status_code == 200
    assert "started" in answer.json()
    assert requests.get(f"{ready['url']}api/status", timeout=30).status_code == 403
    printed = run_cell(ready["url"], ready["token"], "import six, os; print(six.__version__, 6 * 7, os.getcwd())")
    assert printed.split()[:2] == ["1.17.0", "42"]

    second = visitor.click(git_spec(url))

    assert second.last["phase"] == "ready", second.log
    assert "building" not in second.phases
    assert "waiting" not in second.phases
    assert second.last["url"] != ready["url"]
    assert second.last["token"] != ready["token"]

    newer = githost.commit("class/first", {"index.ipynb": NOTEBOOK + "\n"})
    third = visitor.click(git_spec(url))
    assert third.last["phase"] == "ready", third.log
    assert "building" in third.phases
    assert newer in third.last["image"]
    old = visitor.click(git_spec(url, commit))
    assert old.last["phase"] == "ready", old.log
    assert "building" not in old.phases


def test_two_hundred_clicks_on_a_new_ref_are_one_build_and_each_sees_every_line(
    visitor: Visitor, githost: GitHost
) -> None:
    lines = "".join(f"RUN echo line-{number}-of-the-log\n" for number in range(8))
    dockerfile = f"FROM localhost/argosy/base:bookworm\nUSER root\n{lines}"
    url = repository_with(githost, "class/many", {"Dockerfile": dockerfile})

    with ThreadPoolExecutor(200) as pool:
        clicks = list(pool.map(lambda _: visitor.click(git_spec(url), build_only=True), range(200)))

    assert {click.last["phase"] for click in clicks} == {"ready"}, clicks[0].log
    assert len({click.build for click in clicks}) == 1
    logs = {
        tuple(event["message"] for event in click.events if event.get("phase") in {"fetching", "building", "pushing"})
        for click in clicks
    }
    assert len(logs) == 1
    seen = re.findall(r"^line-(\d)-of-the-log", "".join(logs.pop()), flags=re.MULTILINE)
    assert seen == [str(number) for number in range(8)]
    # Each for itself would ask 400 times.
    assert sum(path.endswith("git-upload-pack") for path in githost.requests if "class/many" in path) < 100


def test_five_launches_at_once_are_five_servers(visitor: Visitor, githost: GitHost) -> None:
    url = repository_with(githost, "class/five", {"requirements.txt": "six==1.17.0\n"})
    with ThreadPoolExecutor(5) as pool:
        clicks = list(pool.map(lambda _: visitor.click(git_spec(url)), range(5)))
    assert {click.last["phase"] for click in clicks} == {"ready"}, "\n".join(click.log for click in clicks)
    assert len({click.last["url"] for click in clicks}) == 5
    for click in clicks:
        headers = {"Authorization": f"token {click.last['token']}"}
        assert requests.get(f"{click.last['url']}api/status", headers=headers, timeout=30).status_code == 200


def test_an_unknown_ref_fails_with_binderhubs_words(visitor: Visitor, githost: GitHost) -> None:
    url = repository_with(githost, "class/refs", {"Dockerfile": BUSYBOX_DOCKERFILE, "README.md": ""})
    click = visitor.click(git_spec(url, "no-such-branch"))
    assert click.last["phase"] == "failed"
    assert click.last["reason"] == "not-found"
    assert click.last["message"].startswith("Could not resolve ref for git:")


def test_a_host_that_does_not_answer_is_told_as_nobodys_fault(visitor: Visitor, silent_host: SilentHost) -> None:
    click = visitor.click(git_spec(f"{silent_host.url}/class/silent"))
    assert click.last["phase"] == "failed"
    assert click.last["reason"] == "transient"


def test_a_repository_over_the_size_limit_is_too_large(visitor: Visitor, githost: GitHost, farm: Farm) -> None:
    limit = int(farm.environment["ARGOSY_MAX_SOURCE_BYTES"])
    # Random bytes: git could pack anything else below the limit.
    blob = os.urandom(limit + 1024 * 1024)
    url = repository_with(githost, "class/large", {"Dockerfile": BUSYBOX_DOCKERFILE, "data.bin": blob})
    click = visitor.click(git_spec(url), build_only=True)
    assert (click.last["phase"], click.last["reason"]) == ("failed", "too-large"), click.log


@pytest.mark.smoke
def test_a_failed_build_keeps_its_log_and_can_be_tried_again(visitor: Visitor, githost: GitHost, farm: Farm) -> None:
    url = repository_with(githost, "class/broken", {"requirements.txt": "argosy-no-such-package==1.0\n"})
    click = visitor.click(git_spec(url), build_only=True)
    assert (click.last["phase"], click.last["reason"]) == ("failed", "build"), click.log
    page = f"{farm.url}/builds/{click.build}"
    log = requests.get(f"{page}/log", timeout=30)
    assert log.headers["Content-Type"].startswith("text/plain")
    assert "argosy-no-such-package" in log.text

    again = visitor.click(git_spec(url), build_only=True)
    assert again.last["phase"] == "failed"
    assert again.build == click.build
    assert "building" not in again.phases, "a failure by the repository's own fault is remembered"

    retried = requests.post(f"{page}/retry", timeout=30, allow_redirects=False)
    assert retried.status_code == 303
    assert retried.headers["Location"].endswith(f"{click.build}-2")


def test_a_vulnerable_package_is_found_and_shown(visitor: Visitor, githost: GitHost, farm: Farm) -> None:
    url = repository_with(githost, "class/vulnerable", {"requirements.txt": "requests==2.19.1\n"})
    click = visitor.click(git_spec(url), build_only=True)
    assert click.last["phase"] == "ready", click.log
    page = f"{farm.url}/builds/{click.build}"
    findings = eventually(lambda: requests.get(f"{page}/findings", timeout=30), lambda answer: answer.ok, seconds=180)
    assert "CVE-2018-18074" in {finding["id"] for finding in findings.json()["findings"]}
    shown = eventually(
        lambda: requests.get(page, timeout=30), lambda answer: "CVE-2018-18074" in answer.text, seconds=60
    )
    assert "CVE-2018-18074" in shown.text
    sbom = requests.get(f"{page}/sbom", timeout=30).json()
    assert sbom["bomFormat"] == "CycloneDX"
    assert "requests" in {component["name"] for component in sbom["components"]}


def test_a_stopped_build_says_so_to_whoever_follows(visitor: Visitor, githost: GitHost, farm: Farm) -> None:
    dockerfile = "FROM localhost/argosy/base:bookworm\nRUN echo started && sleep 600\n"
    url = repository_with(githost, "class/slow", {"Dockerfile": dockerfile})
    seen = []
    for _, event in visitor.stream(f"{git_spec(url)}?build_only=true"):
        seen.append(event)
        if "started" in event.get("message", "").splitlines():
            requests.post(f"{farm.url}/builds/{event_build(seen)}/cancel", timeout=30).raise_for_status()
        if event.get("phase") == "failed":
            break
    assert seen[-1]["reason"] == "cancelled"


def event_build(events: list[dict[str, str]]) -> str:
    return next(event["build"] for event in events if event.get("build"))


def test_the_pages_work_without_javascript(visitor: Visitor, githost: GitHost, farm: Farm) -> None:
    url = repository_with(githost, "class/plain", {"requirements.txt": "six==1.17.0\n"})
    page = requests.get(f"{farm.url}/v2/{git_spec(url)}?follow=1&urlpath=lab", timeout=300)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    link = re.search(r'http-equiv="refresh" content="[01]; ?url=([^"]+)"', page.text)
    assert link, page.text[-2000:]
    target = link.group(1).replace("&amp;", "&")
    assert "/lab?token=" in target
    assert requests.get(target, timeout=30).status_code == 200


def eventually(
    ask: Callable[[], requests.Response], good: Callable[[requests.Response], bool], *, seconds: float
) -> requests.Response:
    """The first good answer; the last one when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if good(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)
