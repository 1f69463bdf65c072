"""The life of a click, through the real application with fakes behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fakes import request
from tests.integration.farm import COMMIT, DIGEST, SPEC, TOKEN, URL, Farm, Stream, eventually
from web.clicks import known
from workflows.build import State
from workflows.errors import Reason, TransientError
from workflows.image import BuildName

READY_KEYS = [
    "phase",
    "message",
    "image",
    "repo_url",
    "token",
    "binder_ref_url",
    "binder_launch_host",
    "binder_request",
    "binder_persistent_request",
    "binder_client_ip",
    "url",
]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path)
    yield made
    made.close()


def built(farm: Farm) -> BuildName:
    """A build that ran and was published."""
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "fetch", "Cloning", '{"message": "Picked Git content provider.\\n"}')
    farm.engine.say(name, "build", '{"message": "Step 1\\n", "phase": "building"}', "plain")
    farm.engine.say(name, "push", "pushed")
    farm.publish(name)
    return name


def test_a_known_image_launches_as_in_binderhub(farm: Farm) -> None:
    farm.add_image()
    stream = Stream(farm).end()
    assert stream.events[0] == {
        "phase": "built",
        "imageName": farm.image,
        "message": "Found built image, launching...\n",
    }
    assert list(stream.events[0]) == ["phase", "imageName", "message"]
    assert stream.events[1] == {"phase": "launching", "message": "Launching server...\n"}
    assert list(stream.events[-1]) == READY_KEYS
    assert stream.events[-1]["binder_persistent_request"] == f"v2/gh/binder-examples/requirements/{COMMIT}"
    assert farm.launcher.images == [(farm.image, DIGEST)]
    assert farm.engine.builds == {}


def test_a_new_commit_is_built_and_launched_as_in_binderhub(farm: Farm) -> None:
    stream = Stream(farm)
    name = built(farm)
    events = stream.end().events
    assert list(events[0])[:2] == ["phase", "message"]
    assert events[0] == {"phase": "waiting", "message": "Waiting for build to start...\n", "build": name}
    assert events[1] == {"phase": "fetching", "message": "Cloning\n", "step": "fetch"}
    assert events[2] == {"message": "Picked Git content provider.\n", "step": "fetch"}
    assert events[3] == {"message": "Step 1\n", "phase": "building", "step": "build"}
    assert events[4] == {"phase": "building", "message": "plain\n", "step": "build"}
    assert events[5] == {"phase": "pushing", "message": "pushed\n", "step": "push"}
    assert events[6] == {
        "phase": "built",
        "message": "Built image, launching...\n",
        "imageName": farm.image,
        "build": name,
    }
    assert list(events[6])[:3] == ["phase", "message", "imageName"]
    assert events[7]["phase"] == "launching"
    assert events[8]["phase"] == "ready"
    assert len(events) == 9


def test_an_image_that_only_the_store_holds_goes_through_our_half_alone(farm: Farm) -> None:
    farm.images.digests[farm.image] = DIGEST
    stream = Stream(farm)
    assert farm.build().request.held == DIGEST
    built(farm)
    assert stream.end().events[-1]["phase"] == "ready"
    assert farm.launcher.images == [(farm.image, DIGEST)]


def test_what_nobody_holds_is_built(farm: Farm) -> None:
    stream = Stream(farm)
    assert farm.build().request.held == ""
    built(farm)
    stream.end()


def test_a_held_image_that_the_rules_refuse_is_built_anew_by_try_again(farm: Farm) -> None:
    farm.images.digests[farm.image] = DIGEST
    stream = Stream(farm, f"gh/{SPEC}?build_only=true")
    name = farm.build().name
    farm.engine.end(name, Reason.POLICY)
    assert stream.end().events[-1]["reason"] == "policy"
    farm.client.post(f"/builds/{name}/retry")
    again = farm.engine.builds[BuildName(f"{name}-2")]
    assert again.request.held == ""


def test_try_again_makes_a_usual_build_of_a_workflow_by_hand(farm: Farm) -> None:
    usual = request(slug="owner/repo")
    nightly = farm.engine.submit(dataclasses.replace(usual, named="nightly-1795555500")).name
    farm.engine.end(nightly, Reason.TRANSIENT)
    assert farm.client.get(f"/builds/{nightly}").status_code == 200
    for _ in range(2):
        answer = farm.client.post(f"/builds/{nightly}/retry")
        assert answer.headers["Location"] == f"/builds/{usual.name}"
    farm.engine.end(usual.name, Reason.TRANSIENT)
    assert farm.client.post(f"/builds/{nightly}/retry").headers["Location"] == f"/builds/{usual.name}-2"


def test_a_workflow_that_was_never_resolved_cannot_be_tried_again(farm: Farm) -> None:
    nightly = farm.engine.submit(request(named="nightly-1", commit="", image="")).name
    farm.engine.end(nightly, Reason.NOT_FOUND)
    assert farm.client.post(f"/builds/{nightly}/retry").status_code == 404


def test_build_only_ends_with_the_image(farm: Farm) -> None:
    stream = Stream(farm, f"gh/{SPEC}?build_only=true")
    name = built(farm)
    assert stream.end().events[-1] == {
        "phase": "ready",
        "message": "Done! Image built\n",
        "imageName": farm.image,
        "build": name,
    }
    known = Stream(farm, f"gh/{SPEC}?build_only=TRUE").end()
    assert known.events == [{"phase": "ready", "imageName": farm.image, "message": "Done! Found built image\n"}]
    assert farm.launcher.visitors == []


def test_a_scan_that_still_runs_keeps_nobody_waiting_and_its_lines_are_not_sent(farm: Farm) -> None:
    stream = Stream(farm, f"gh/{SPEC}?build_only=true")
    name = built(farm)
    farm.engine.say(name, "scan", "secret thoughts of a scanner")
    assert stream.end().events[-1]["phase"] == "ready"
    assert farm.engine.builds[name].state is State.RUNNING
    assert b"scanner" not in stream.raw
    farm.engine.end(name)


def test_an_unknown_ref_is_refused_in_binderhubs_words(farm: Farm) -> None:
    message = "Could not resolve ref for gh:o/r/nowhere. Double check your URL and that your repo is public.\n"
    assert Stream(farm, "gh/o/r/nowhere").end().events == [
        {"phase": "failed", "message": message, "reason": "not-found"}
    ]


def test_a_missing_master_falls_back_to_head(farm: Farm) -> None:
    farm.provider.commits = {"binder-examples/requirements/HEAD": COMMIT}
    farm.add_image()
    events = Stream(farm, "gh/binder-examples/requirements/master").end().events
    assert events[0]["phase"] == "waiting"
    assert "Trying again with HEAD instead of master. Please update your links.\n" in events[0]["message"]
    assert events[-1]["binder_request"] == "v2/gh/binder-examples/requirements/HEAD"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nope/a/b/c", "No provider found for prefix nope\n"),
        ("gh/x", 'Spec is not of the form "user/repo/ref", provided: "x".\n'),
    ],
)
def test_what_cannot_be_read_is_refused_in_binderhubs_words(farm: Farm, path: str, message: str) -> None:
    event = Stream(farm, path).end().events[-1]
    assert (event["phase"], event["message"]) == ("failed", message)


def test_a_host_that_fails_is_told_with_its_reason(farm: Farm) -> None:
    farm.provider.fault = TransientError("Error resolving ref for gh:o/r/x: GitHub cannot be reached.", detail="secret")
    stream = Stream(farm).end()
    assert stream.events[-1]["reason"] == "transient"
    assert b"secret" not in stream.raw


def test_a_bug_ends_in_an_event_that_tells_nothing_of_the_inside(farm: Farm) -> None:
    farm.provider.resolve = lambda spec: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    stream = Stream(farm).end()
    assert stream.events[-1]["reason"] == "internal"
    assert b"division" not in stream.raw


def test_a_build_that_fails_says_why_and_is_remembered(farm: Farm) -> None:
    stream = Stream(farm)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "no such package")
    farm.engine.end(name, Reason.BUILD)
    events = stream.end().events
    assert events[-2]["message"] == "no such package\n"
    assert events[-1] == {
        "phase": "failed",
        "message": events[-1]["message"],
        "reason": "build",
        "build": name,
    }
    again = Stream(farm).end().events
    assert len(again) == 1
    assert (again[0]["phase"], again[0]["reason"], again[0]["build"]) == ("failed", "build", name)
    assert len(farm.engine.builds) == 1


def test_trying_again_is_the_next_attempt_and_later_clicks_join_it(farm: Farm) -> None:
    stream = Stream(farm)
    first = farm.build().name
    farm.engine.admit(first)
    farm.engine.end(first, Reason.BUILD)
    stream.end()
    answer = farm.client.post(f"/builds/{first}/retry", data={"to": "launch"})
    assert (answer.status_code, answer.location) == (303, f"/v2/gh/{SPEC}")
    assert farm.build().name == f"{first}-2"
    stream = Stream(farm)
    eventually(lambda: stream.events)
    name = built(farm)
    assert name == f"{first}-2"
    assert stream.end().events[-1]["phase"] == "ready"
    assert any(id_.startswith("2.2.") for id_ in stream.ids)


def test_a_transient_failure_is_not_remembered(farm: Farm) -> None:
    stream = Stream(farm)
    first = farm.build().name
    farm.engine.end(first, Reason.TRANSIENT)
    assert stream.end().events[-1]["reason"] == "transient"
    Stream(farm)
    eventually(lambda: len(farm.engine.builds) == 2)


def test_an_image_that_is_gone_is_withdrawn_and_built_again(farm: Farm) -> None:
    stream = Stream(farm)
    first = built(farm)
    farm.engine.end(first)
    stream.end()
    farm.images.digests.clear()
    farm.app.extensions["argosy.clicks"]._known._confirmed.clear()
    stream = Stream(farm)
    eventually(lambda: len(farm.engine.builds) == 2)
    assert farm.catalogue.get(farm.image) is None
    assert built(farm) == f"{first}-2"
    assert stream.end().events[-1]["phase"] == "ready"


def test_a_hundred_clicks_on_a_known_image_ask_the_store_once(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "CONFIRMED_SECONDS", 600)
    farm.add_image()
    for stream in [Stream(farm) for _ in range(100)]:
        assert stream.end().events[-1]["phase"] == "ready"
    assert farm.images.asked == 1
    assert len({visitor.nonce for visitor in farm.launcher.visitors}) == 100


def test_a_client_that_returns_during_its_launch_gets_the_same_server(farm: Farm) -> None:
    stream = Stream(farm)
    built(farm)
    ids = stream.end().ids
    nonce = farm.launcher.visitors[0].nonce
    assert ids[-3:] == [f"1.launch.{number}~{nonce}" for number in range(3)]
    back = Stream(farm, **{"Last-Event-ID": ids[-2]}).end()
    assert [event["phase"] for event in back.events] == ["launching", "ready"]
    assert back.ids == [f"1.launch.{number}~{nonce}" for number in (2, 3)]
    assert farm.launcher.visitors[1].nonce == nonce


def test_a_launch_that_fails_says_why_and_is_recorded(farm: Farm) -> None:
    farm.add_image()
    farm.launcher.fault = Reason.TRANSIENT
    assert Stream(farm).end().events[-1]["reason"] == "transient"
    launch = eventually(farm.ledger.recent_launches)[0]
    assert (launch.outcome, launch.reason) == ("failed", Reason.TRANSIENT)


def test_a_slow_launch_keeps_its_stream_alive(tmp_path: Path) -> None:
    farm = Farm(tmp_path, keep_alive_seconds=0.1)
    farm.add_image()
    farm.launcher.door.clear()
    stream = Stream(farm)
    eventually(lambda: b":keepalive\n\n" in stream.raw)
    farm.launcher.door.set()
    assert stream.end().events[-1]["url"] == URL
    assert TOKEN in stream.raw.decode()
    farm.close()


def test_the_place_in_the_queue_is_told(farm: Farm) -> None:
    stream = Stream(farm)
    status = farm.build()
    eventually(lambda: stream.events)
    for place in (3, 2):
        with farm.engine._changed:
            farm.engine._tell(dataclasses.replace(status, queue_position=place))
        eventually(lambda place=place: any(f"{place}" in message for message in stream.messages))
    assert stream.messages[:3] == [
        "Waiting for build to start...",
        "You are 3rd in the queue.",
        "You are 2nd in the queue.",
    ]
    assert stream.events[2]["queue_position"] == 2
    built(farm)
    stream.end()
