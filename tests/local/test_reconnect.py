"""A client that loses its stream beside a real build or launch and comes back: each line once, and one server."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import requests

from tests.githost import GitHost
from tests.integration.farm import eventually
from tests.local.farm import Farm
from tests.visitor import Click, Visitor, git_spec

REPOSITORY = {"requirements.txt": "six==1.17.0\n", "postBuild": "for i in 1 2 3; do echo line-$i-of-the-log; done\n"}
LINES = ("fetching", "building", "pushing")
"""The phases of a build's lines."""


def click_and_lose(visitor: Visitor, path: str, phase: str) -> Click:
    """What a client sees whose network dies with the first event of a phase; with an empty one it never does.

    Nobody tells web that a network is dead, so the lost stream stays open until the second one has arrived.
    """
    seen = Click()
    with closing(visitor.stream(path)) as lost:
        for event_id, event in lost:
            seen.ids.append(event_id)
            seen.events.append(event)
            if event.get("phase") in {phase, "ready", "failed"}:
                break
        if seen.last.get("phase") == phase:
            rest = visitor.click(path, **{"Last-Event-ID": seen.ids[-1]})
            seen.ids.extend(rest.ids)
            seen.events.extend(rest.events)
    return seen


def lines(click: Click) -> list[tuple[str, str]]:
    """Number and text of each line of the build, as they came."""
    pairs = zip(click.ids, click.events, strict=True)
    return [(each.partition("~")[0], event["message"]) for each, event in pairs if event.get("phase") in LINES]


def test_who_loses_the_stream_of_a_build_or_a_launch_sees_each_line_once_and_has_one_server(
    farm: Farm, githost: GitHost
) -> None:
    githost.create("class/lost", REPOSITORY)
    path, visitor = git_spec(f"{githost.url}/class/lost"), Visitor(farm.url)

    with ThreadPoolExecutor() as pool:
        lost = [
            pool.submit(click_and_lose, visitor, path, phase)
            for phase in ("", "waiting", "building", "pushing", "built", "launching")
        ]
        whole, *others = (each.result() for each in lost)

    assert {click.last["phase"] for click in (whole, *others)} == {"ready"}, "\n".join(click.log for click in others)
    assert "line-3-of-the-log" in whole.log
    for click in others:
        assert click.phases == whole.phases
        assert lines(click) == lines(whole)
    users = {click.last["url"].rstrip("/").rpartition("/")[2]: click.last for click in (whole, *others)}
    assert len(users) == len(lost)

    def ours(names: Iterable[str]) -> set[str]:
        return {name for name in names if name.startswith("class-lost-")}

    # Of an attempt that failed something may still be on its way out.
    eventually(lambda: ours(farm.users()) == ours(farm.servers()) == users.keys(), 90)
    for ready in users.values():
        headers = {"Authorization": f"token {ready['token']}"}
        assert requests.get(f"{ready['url']}api/status", headers=headers, timeout=30).status_code == 200
