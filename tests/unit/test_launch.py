"""Launching, against a Hub that does what the test says."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clock import PlayedClock
from tests.fakehub import FAILED, FakeHub
from web.launching.hub import Progress, ServerState
from web.launching.launch import Launcher, Visitor
from workflows.errors import ConfigError, PolicyError, RateLimitError, TransientError
from workflows.image import CommitSHA, ImageDigest, ImageName
from workflows.repo import Repository
from workflows.settings import Settings

IMAGE = ImageName("localhost/argosy/owner-2drepo-123456:" + "c" * 40)
DIGEST = ImageDigest("sha256:" + "d" * 64)
REPOSITORY = Repository(
    provider="gh",
    spec="owner/repo/main",
    ref="main",
    commit=CommitSHA("c" * 40),
    repo_url="https://github.com/owner/repo",
    clone_url="https://github.com/owner/repo",
    ref_url="https://github.com/owner/repo/tree/" + "c" * 40,
    resolved_spec="owner/repo/" + "c" * 40,
    slug="owner-repo",
    owner="owner",
)
LAUNCHING = {"phase": "launching", "message": "Launching server...\n"}


@pytest.fixture
def hub():
    return FakeHub()


@pytest.fixture
def clock():
    made = PlayedClock()
    yield made
    # Nobody who left is waited for any longer.
    made.advance(10**6)
    waits_no_more("leave")


@pytest.fixture
def make(hub, clock, tmp_path):
    def launcher(leave_seconds=60, **settings):
        given = {"hub_url": "http://hub.example/"} | settings
        return Launcher(hub, Settings(state=tmp_path, **given), leave_seconds=leave_seconds, clock=clock)

    return launcher


def launch(launcher, nonce="n" * 22):
    visitor = Visitor(nonce=nonce, host="http://web.example/", client_ip="192.0.2.7")
    return launcher.launch(image=IMAGE, digest=DIGEST, repository=REPOSITORY, visitor=visitor)


def messages(events):
    return [event["message"].rstrip("\n") for event in events]


def eventually(found):
    deadline = time.monotonic() + 10
    while not found():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def waits_no_more(name):
    """Whatever thread of that name waited by the clock has seen what the time is."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(10)
            assert not thread.is_alive()


def test_a_launch_says_what_binderhub_says(make, hub):
    *before, ready = launch(make())
    assert before[0] == LAUNCHING
    assert messages(before[1:]) == ["Server requested", "Spawning server...", "Server ready at /user/someone/"]
    (user,) = hub.users
    url = f"http://hub.example/user/{user}/"
    assert ready == {
        "phase": "ready",
        "message": f"server running at {url}\n",
        "image": IMAGE,
        "repo_url": "https://github.com/owner/repo",
        "token": ready["token"],
        "binder_ref_url": REPOSITORY.ref_url,
        "binder_launch_host": "http://web.example/",
        "binder_request": "v2/gh/owner/repo/main",
        "binder_persistent_request": f"v2/gh/owner/repo/{'c' * 40}",
        "binder_client_ip": "192.0.2.7",
        "url": url,
    }
    assert list(ready) == [
        "phase", "message", "image", "repo_url", "token", "binder_ref_url", "binder_launch_host", "binder_request",
        "binder_persistent_request", "binder_client_ip", "url",
    ]  # fmt: skip


def test_the_hub_is_asked_for_the_image_by_tag_and_digest(make, hub):
    *_, ready = launch(make())
    (options,) = hub.users.values()
    assert options["image"] == f"{IMAGE}@{DIGEST}"
    assert options["token"] == ready["token"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", ready["token"])


def test_a_failed_attempt_tells_its_reason_and_the_next_one_is_another_user(make, hub):
    hub.starts = [FAILED]
    events = list(launch(make()))
    assert events[-1]["phase"] == "ready"
    told = messages(events)
    assert told[3:5] == [FAILED.message, "Launch attempt 1 failed, retrying..."]
    assert events[3]["reason"] == events[4]["reason"] == "transient"
    eventually(lambda: hub.removed)
    (failed,), (user,) = hub.removed, hub.users
    assert failed != user


def test_the_last_attempt_fails_with_the_hubs_own_words(make, hub):
    hub.starts = [FAILED] * 4
    events = list(launch(make()))
    assert events[-1] == {
        "phase": "failed",
        "message": f"{FAILED.message}\n",
        "status_code": 503,
        "reason": "transient",
    }
    assert [text for text in messages(events) if "retrying" in text] == [
        f"Launch attempt {number} failed, retrying..." for number in (1, 2, 3)
    ]
    eventually(lambda: len(hub.removed) == 4)
    assert not hub.users


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [(PolicyError("It is not in the catalogue."), "policy", 403), (ConfigError(detail="no scope"), "config", 500)],
)
def test_what_cannot_get_better_is_not_tried_again(make, hub, error, reason, status):
    hub.starts = [error]
    events = list(launch(make()))
    assert (events[-1]["phase"], events[-1]["reason"], events[-1]["status_code"]) == ("failed", reason, status)
    assert "retrying" not in "".join(messages(events))
    assert hub.started == 0


def test_a_start_that_fails_and_a_stream_that_ends_have_binderhubs_words(make, hub):
    hub.starts = [TransientError(detail="500"), Progress(message="")]
    events = list(launch(make(launch_attempts=2)))
    assert f"Failed to launch image {IMAGE}" in messages(events)
    assert re.fullmatch(rf"Image {IMAGE} for user owner-repo-[a-z0-9]{{8}} failed to launch\n", events[-1]["message"])


def test_a_hub_that_asks_for_patience_gets_it_and_no_attempt_is_lost(make, hub, clock):
    hub.starts = [RateLimitError("Too many", retry_after_seconds=30)] * 3
    begun = clock.monotonic()
    events = list(launch(make(launch_attempts=1)))
    assert events[-1]["phase"] == "ready"
    assert messages(events).count("The Hub is busy; it is asked again in 30 seconds.") == 3
    assert clock.monotonic() - begun == 90


def test_a_full_hub_is_told_in_binderhubs_words(make, hub):
    hub.starts = [RateLimitError("Active user limit exceeded.")] * 9
    events = list(launch(make(launch_attempts=1)))
    assert events[-1]["message"] == "Too many users on this BinderHub! Try again soon.\n"
    assert events[-1]["status_code"] == 429


def test_whoever_waits_at_the_gate_is_told_the_place(make, hub):
    hub.door.clear()
    launcher = make(parallel_launches=1)
    first, second = launch(launcher, "a" * 22), launch(launcher, "b" * 22)
    assert [next(first)["message"] for _ in range(3)][-1] == "Spawning server...\n"
    assert next(second) == LAUNCHING
    waiting = next(second)
    assert waiting["phase"] == "launching"
    assert waiting["queue_position"] == 1
    hub.door.set()
    assert list(first)[-1]["phase"] == "ready"
    assert list(second)[-1]["phase"] == "ready"


def test_never_more_than_the_limit_start_at_once(make, hub):
    launcher = make(parallel_launches=3)
    with ThreadPoolExecutor(20) as pool:
        ends = list(pool.map(lambda number: list(launch(launcher, f"{number:022}"))[-1], range(20)))
    assert {end["phase"] for end in ends} == {"ready"}
    assert len({end["url"] for end in ends}) == len({end["token"] for end in ends}) == 20
    assert hub.most_in_flight <= 3


def test_whoever_waits_at_the_gate_for_too_long_is_told(make, hub):
    hub.door.clear()
    launcher = make(parallel_launches=1, launch_timeout_seconds=0.2)
    first = launch(launcher, "a" * 22)
    assert [next(first)["phase"] for _ in range(3)]
    end = list(launch(launcher, "b" * 22))[-1]
    assert (end["phase"], end["reason"]) == ("failed", "timeout")
    first.close()


def test_a_visitor_who_left_before_ready_leaves_nothing(make, hub, clock):
    hub.stopping = 2
    events = launch(make(leave_seconds=60))
    assert [next(events)["phase"] for _ in range(3)]
    assert hub.users
    events.close()
    clock.advance(60)
    eventually(lambda: hub.removed)
    assert not hub.users


def test_a_visitor_who_comes_back_gets_the_same_server(make, hub, clock):
    hub.door.clear()
    launcher = make(leave_seconds=60)
    events = launch(launcher)
    assert [next(events)["phase"] for _ in range(3)]
    events.close()
    hub.door.set()
    again = list(launch(launcher))
    assert again[-1]["phase"] == "ready"
    clock.advance(600)
    waits_no_more("leave")
    assert hub.started == 1
    assert not hub.removed


def test_a_visitor_who_comes_back_to_another_process_gets_the_same_server(make, hub):
    first = list(launch(make()))
    second = list(launch(make()))
    assert second[-1] == first[-1]
    assert hub.started == 1
    assert messages(second[:-1]) == ["Launching server..."]


def test_the_second_attempt_is_rejoined_as_the_second(make, hub):
    hub.starts = [FAILED]
    launcher = make()
    events = launch(launcher)
    for event in events:
        if "retrying" in event["message"]:
            break
    assert next(events)["message"] == "Server requested\n"
    events.close()
    eventually(lambda: len(hub.users) == 1)
    assert list(launch(launcher))[-1]["phase"] == "ready"
    assert hub.started == 2


def test_a_failed_attempts_user_that_a_killed_process_could_not_remove_goes_when_the_visitor_has_arrived(
    make, hub, monkeypatch
):
    hub.starts, dead = [FAILED], threading.Event()
    with monkeypatch.context() as killed:
        killed.setattr(Launcher, "_remove", lambda self, name: dead.wait(20))
        events = launch(make())
    for event in events:
        if "retrying" in event["message"]:
            break
    (failed,) = hub.users
    assert next(events)["message"] == "Server requested\n"
    ready = list(launch(make()))[-1]
    assert ready["phase"] == "ready"
    eventually(lambda: hub.removed)
    assert hub.removed == [failed]
    assert failed not in ready["url"]
    dead.set()
    events.close()


def test_one_of_two_streams_of_a_visitor_may_end(make, hub, clock):
    hub.door.clear()
    launcher = make(leave_seconds=60)
    first, second = launch(launcher), launch(launcher)
    assert [(next(first)["phase"], next(second)["phase"]) for _ in range(3)]
    first.close()
    clock.advance(600)
    waits_no_more("leave")
    assert not hub.removed
    hub.door.set()
    assert list(second)[-1]["phase"] == "ready"
    assert hub.started == 1


def test_a_server_that_is_still_ending_is_not_joined(make, hub):
    launcher = make()
    list(launch(launcher))
    (user,) = hub.users
    hub.states[user] = ServerState.STOPPING
    *_, ready = launch(launcher)
    assert ready["phase"] == "ready"
    assert user not in ready["url"]


def test_no_token_reaches_a_log(make, hub, caplog):
    caplog.set_level(logging.DEBUG)
    hub.starts = [FAILED, TransientError("x", detail="y")]
    *_, ready = launch(make())
    assert caplog.records
    assert ready["token"] not in caplog.text
