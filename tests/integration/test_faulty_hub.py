"""A Hub that is down, fails, is slow, throttles or never gets ready, and those who need none meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.farm import eventually
from tests.integration.hub import FakeHub, Fault
from tests.integration.webs import Webs
from tools.farm import free_ports

pytestmark = pytest.mark.timeout(180)

BODY = """
    if name == "build" and "steady" in image:
        number = 0
        while not (state / "go").exists():
            print(f"line {number}", flush=True)
            number += 1
            time.sleep(0.02)
    if name == "push":
        push()
    if name == "publish":
        publish()
"""


class Site:
    """Web, its Hub, an image that is known, and somebody who follows a build beside all that happens."""

    def __init__(self, folder: Path) -> None:
        self.hub = FakeHub()
        self.ready: set[str] = set()
        settings = {"launch_timeout_seconds": 3, "launch_attempts": 2}
        self.webs = Webs(folder, free_ports(1)[0], self.hub.url, BODY, limit=600, **settings)
        self.webs.start()
        assert self.launch().last["phase"] == "ready"
        self.steady = Client(self.webs.url, "gh/o/steady/main?build_only=true")
        eventually(self.lines, 30)

    def launch(self) -> Client:
        """One click on the known image, to its end."""
        client = Client(self.webs.url, "gh/o/known/main")
        eventually(lambda: client.is_over, 50)
        if client.last["phase"] == "ready":
            self.ready.add(client.last["url"].rstrip("/").rpartition("/")[2])
        return client

    def lines(self) -> list[str]:
        return [event["message"] for event in self.steady.events if event["message"].startswith("line ")]

    def close(self) -> None:
        self.webs.close()
        self.hub.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    try:
        (site.webs.settings.state / "go").touch()
        eventually(lambda: site.steady.is_over, 30)
        assert site.steady.last["phase"] == "ready"
        assert site.lines() == [f"line {number}\n" for number in range(len(site.lines()))]
        assert site.steady.streams == 1
    finally:
        site.close()


@pytest.fixture(autouse=True)
def _nobody_notices(site: Site) -> Iterator[None]:
    """Whatever the Hub did, lines came all the time, and once it is well again everybody gets a server."""
    seen = len(site.lines())
    yield
    eventually(lambda: len(site.lines()) > seen, 30)
    site.hub.rule = lambda method, path: None
    site.hub.start_seconds = 0.2
    assert site.launch().last["phase"] == "ready"
    # Of what failed nothing is left.
    eventually(lambda: site.hub.users.keys() == site.ready, 50)


@pytest.mark.parametrize("fault", [Fault(), Fault(status=500), Fault(status=503)], ids=["down", "fails", "away"])
def test_a_hub_that_does_not_serve_is_nobodys_fault(site: Site, fault: Fault) -> None:
    site.hub.rule = lambda method, path: fault
    last = site.launch().last
    assert (last["phase"], last["reason"]) == ("failed", "transient"), last


def test_a_hub_that_takes_our_token_no_more_is_the_operators_affair(site: Site) -> None:
    site.hub.rule = lambda method, path: Fault(status=403)
    last = site.launch().last
    assert (last["phase"], last["reason"]) == ("failed", "config"), last


def test_a_slow_hub_is_waited_for(site: Site) -> None:
    site.hub.rule = lambda method, path: time.sleep(0.4)
    assert site.launch().last["phase"] == "ready"


def test_a_hub_that_asks_for_patience_is_asked_again_then(site: Site) -> None:
    busy = iter([Fault(status=429, headers={"Retry-After": "1"})])
    # Starts alone: what a test before this one could not remove is still being removed.
    site.hub.rule = lambda method, path: next(busy, None) if method == "POST" and path.endswith("/server") else None
    client = site.launch()
    assert client.last["phase"] == "ready", client.last
    assert "The Hub is busy; it is asked again in 1 seconds.\n" in [event["message"] for event in client.events]


def test_a_hub_that_has_lost_a_start_is_asked_for_another(site: Site) -> None:
    lost = iter([Fault(status=404)])
    site.hub.rule = lambda method, path: next(lost, None) if path.endswith("/server/progress") else None
    client = site.launch()
    assert client.last["phase"] == "ready", client.last
    assert "The Hub has lost the server that it was asked for.\n" in [event["message"] for event in client.events]


def test_a_hub_that_asks_for_an_hours_patience_is_full(site: Site) -> None:
    full = Fault(status=429, headers={"Retry-After": "3600"})
    site.hub.rule = lambda method, path: full if method == "POST" and path.endswith("/server") else None
    last = site.launch().last
    assert (last["phase"], last["reason"]) == ("failed", "transient"), last
    assert last["message"].startswith("Too many users on this BinderHub!")


def test_a_server_that_never_gets_ready_ends_at_its_time(site: Site) -> None:
    site.hub.start_seconds = 10_000
    last = site.launch().last
    assert (last["phase"], last["reason"]) == ("failed", "timeout"), last
