"""The web process as it is installed, with everything that `web.wiring` puts behind it: only the Hub is played."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.githost import GitHost
from tests.integration.farm import eventually
from tests.integration.hub import TOKEN, FakeHub
from tests.processes import lives
from tests.visitor import Visitor, git_spec
from tools.farm import free_ports
from workflows.settings import Settings, environment_of

START_SECONDS = 30
NOWHERE = "0123456789abcdef0123456789abcdef01234567"
"""A commit that no repository has. A whole commit is not asked for before its build fetches it."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub()
    yield made
    made.close()


@pytest.fixture
def web(to_registry: Settings, hub: FakeHub, tmp_path: Path) -> Iterator[str]:
    """Its address; at the end it is told to end, and does."""
    (tmp_path / "hub-token").write_text(TOKEN)
    (port,) = free_ports(1)
    given = {"port": port, "hub_api_url": f"{hub.url}hub/api/", "hub_token_file": tmp_path / "hub-token"}
    settings = to_registry.model_copy(update=given)
    log = tmp_path / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "web.server"],
            env=os.environ | environment_of(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: process.poll() is not None or answers(url), START_SECONDS)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0, log.read_text()
    assert not [worker for worker in workers if lives(worker.pid)]
    assert "Traceback" not in log.read_text()


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/versions", timeout=5).ok
    except requests.RequestException:
        return False


def test_a_healthy_one_says_so_of_each_part(web: str) -> None:
    health = eventually(lambda: requests.get(f"{web}/health", timeout=20)).json()
    assert health["ok"], health
    assert {check["service"] for check in health["checks"]} >= {"JupyterHub API", "Image store", "Ledger"}


def test_a_build_that_fails_in_its_first_step_says_why_and_keeps_its_log(web: str, githost: GitHost) -> None:
    githost.create("class/first", {"README.md": "A repository."})
    click = Visitor(web).click(git_spec(f"{githost.url}/class/first", NOWHERE), timeout=30)
    assert (click.last["phase"], click.last["reason"]) == ("failed", "not-found"), click.events
    assert "fetching" in click.phases
    page = f"{web}/builds/{click.build}"
    assert "not-found" in requests.get(page, timeout=20).text
    log = requests.get(f"{page}/log", timeout=20).text
    assert click.last["message"].strip() in log, click.last
