"""API server, Argo's controller and the database away for half a minute each, during a build and during a launch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import requests

from tests.cluster import outages
from tests.cluster.crowd import Follower, numbers_in, steps_of
from tests.cluster.farm import Farm
from tests.cluster.namespace import eventually
from tests.cluster.postgres import Postgres
from tests.visitor import Visitor, git_spec

OUTAGE_SECONDS = 30
LINES = 40
BASE = "FROM localhost/argosy/base:bookworm\n"


@pytest.fixture(scope="module")
def known(running: Farm) -> str:
    """What leads to an image that is there and has Jupyter in it."""
    running.githost.create("outage/known", {"requirements.txt": "six==1.17.0\n"})
    spec = git_spec(f"{running.githost.url}/outage/known")
    click = Visitor(running.url).click(spec)
    assert click.last["phase"] == "ready", f"{click.log}\n{running.logs()}"
    return spec


@contextmanager
def without(database: Postgres) -> Iterator[None]:
    database.stop()
    try:
        yield
    finally:
        database.start()


OUTAGES = ("API server", "controller", "database")


@pytest.mark.parametrize("what", OUTAGES)
def test_a_build_and_a_launch_end_well_and_the_page_says_what_it_knows(
    running: Farm, database: Postgres, known: str, what: str
) -> None:
    away: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "API server": lambda: outages.stopped(outages.API_SERVER),
        "controller": lambda: outages.stopped(outages.CONTROLLER),
        "database": lambda: without(database),
    }
    name = f"outage/{what.replace(' ', '-').lower()}"
    running.githost.create(name, {"Dockerfile": f"{BASE}{steps_of(LINES, 1)}"})
    url = running.url
    follower = Follower([url], git_spec(f"{running.githost.url}/{name}") + "?build_only=true")
    eventually(lambda: follower.numbers, seconds=120, what=running.logs)
    build = next(event["build"] for event in follower.events if event.get("build"))

    launch = Follower([url], known)
    eventually(lambda: any(event.get("phase") == "launching" for event in launch.events), what=running.logs)
    with away[what]():
        began = time.monotonic()
        late = Follower([url], known)
        outages.wait(OUTAGE_SECONDS / 2)
        page = requests.get(f"{url}/builds/{build}", timeout=30)
        late.join(120)  # a busy machine starts a server late: the outage lasts until then
        outages.wait(max(0.0, began + OUTAGE_SECONDS - time.monotonic()))
    # The catalogue is the API server's: without it nobody can say what is known, and whoever clicks then is told so.
    end = ("failed", "transient") if what == "API server" else ("ready", None)
    assert (late.events[-1]["phase"], late.events[-1].get("reason")) == end

    assert page.status_code == 200, page.text
    assert "running" in page.text
    assert name in page.text
    again = Follower([url], known)
    for each in (launch, follower, again):
        each.join(240)
        assert each.events[-1]["phase"] == "ready", f"{each.events[-3:]}\n{running.logs()}"
    assert follower.numbers == list(range(1, LINES + 1))
    assert follower.places == sorted(set(follower.places))
    eventually(lambda: is_filed(running, build), seconds=150, what=running.logs)
    log = requests.get(f"{url}/builds/{build}/log", timeout=60).text
    assert numbers_in(log) == list(range(1, LINES + 1))


def is_filed(running: Farm, build: str) -> bool:
    return running.release.builds.labels("workflow", build).get("argosy/recorded") == "true"
