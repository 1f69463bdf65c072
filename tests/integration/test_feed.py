"""The feed: one reader per build however many follow, and nobody misses a line."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fakes import FakeEngine, request
from tests.integration.farm import DIGEST, SPEC, Farm, Stream, eventually
from web.concurrency import signal
from web.feed.feed import Feed
from web.feed.ring import START, Position, Ring
from web.recording.archive import FsspecArchive
from workflows.errors import Reason, TransientError
from workflows.events import KEEPALIVE
from workflows.image import BuildName, CommitSHA
from workflows.stores.catalogue import FolderCatalogue

BUILD_ONLY = f"gh/{SPEC}?build_only=true"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path)
    yield made
    made.close()


def texts(stream: Stream, step: str = "build") -> list[str]:
    return [event["message"].rstrip("\n") for event in stream.events if event.get("step") == step]


def test_two_hundred_followers_share_one_build_and_one_reader_and_each_sees_every_line(farm: Farm) -> None:
    streams = [Stream(farm, BUILD_ONLY) for _ in range(200)]
    name = farm.build().name
    eventually(lambda: all(stream.raw for stream in streams), 30)
    farm.engine.admit(name)
    said = [f"line {number}" for number in range(300)]
    for begin in range(0, 300, 50):
        farm.engine.say(name, "build", *said[begin : begin + 50])
        time.sleep(0.02)
    assert farm.engine.readers == [name]
    farm.publish(name)
    for stream in streams:
        assert texts(stream.end()) == said
        assert stream.events[-1]["phase"] == "ready"
    assert list(farm.engine.builds) == [name]
    assert farm.engine.readers == [name]
    farm.engine.end(name)


def test_an_image_is_known_to_be_there_before_the_engine_says_so(farm: Farm) -> None:
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "push", "pushed")
    farm.add_image(name)
    # What the line says is not believed; it says where to look.
    farm.engine.say(name, "publish", f"published {farm.image}@{DIGEST}")
    assert stream.end().events[-1]["phase"] == "ready"
    assert texts(stream, "publish") == [f"published {farm.image}@{DIGEST}"]
    assert not farm.engine.status(name).published
    farm.engine.end(name)


def test_a_reader_that_is_late_keeps_no_line_from_a_follower_of_a_published_build(tmp_path: Path) -> None:
    farm = Farm(tmp_path, keep_alive_seconds=0.5)
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "early")
    eventually(lambda: texts(stream) == ["early"])
    farm.engine.may_read.clear()
    farm.engine.say(name, "build", "late")
    farm.engine.say(name, "push", "latest")
    farm.publish(name)
    # A feed that took a silence for the end would end here: there is a keep-alive after each silence of 0.4 s.
    before = stream.raw.count(KEEPALIVE)
    eventually(lambda: stream.raw.count(KEEPALIVE) > before + 1)
    assert "ready" not in {event.get("phase") for event in stream.events}
    farm.engine.may_read.set()
    assert stream.end().events[-1]["phase"] == "ready"
    assert (texts(stream), texts(stream, "push")) == (["early", "late"], ["latest"])
    farm.engine.end(name)
    farm.close()


def test_a_line_that_says_published_publishes_nothing(farm: Farm) -> None:
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.add_image(BuildName("an-older-build"))
    farm.engine.say(name, "publish", f"published {farm.image}@{DIGEST}")
    eventually(lambda: texts(stream, "publish"))
    farm.engine.end(name, Reason.TRANSIENT)
    assert stream.end().events[-1]["phase"] == "failed"


def test_who_comes_late_reads_from_the_first_line(farm: Farm) -> None:
    first = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "one", "two")
    eventually(lambda: texts(first) == ["one", "two"])
    late = Stream(farm, BUILD_ONLY)
    eventually(lambda: texts(late) == ["one", "two"])
    farm.engine.say(name, "build", "three")
    farm.publish(name)
    assert texts(first.end()) == texts(late.end()) == ["one", "two", "three"]
    assert farm.engine.readers == [name]
    farm.engine.end(name)


def test_lines_carry_ids_and_the_last_one_resumes(farm: Farm) -> None:
    first = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "fetch", "a")
    farm.engine.say(name, "build", "b", "c")
    eventually(lambda: len(first.ids) == 3)
    assert first.ids == ["1.1.1", "1.2.1", "1.2.2"]
    by_header = Stream(farm, BUILD_ONLY, **{"Last-Event-ID": "1.2.1"})
    by_query = Stream(farm, BUILD_ONLY + "&last_event_id=1.2.1")
    for stream in (by_header, by_query):
        eventually(lambda stream=stream: texts(stream) == ["c"])
    farm.engine.say(name, "stage", "d")
    farm.publish(name)
    for stream in (by_header, by_query):
        assert stream.end().ids == ["1.2.2", "1.3.1"]
        assert stream.events[-1]["phase"] == "ready"
    farm.engine.end(name)


def test_a_finished_builds_log_resumes_from_the_archive_too(farm: Farm) -> None:
    first = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "b", "c")
    farm.publish(name)
    farm.engine.end(name)
    first.end()
    eventually(lambda: (record := farm.ledger.build(name)) and record.recorded)
    farm.engine.forget(name)
    back = Stream(farm, BUILD_ONLY, **{"Last-Event-ID": "1.2.1"}).end()
    assert texts(back) == ["c"]
    assert back.events[-1]["phase"] == "ready"


def test_whoever_waits_is_told_how_long_this_usually_takes(farm: Farm) -> None:
    first = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.publish(name)
    farm.engine.end(name)
    assert "usual_seconds" not in first.end().events[0]
    eventually(lambda: (record := farm.ledger.build(name)) and record.recorded)
    farm.provider.commits[SPEC] = CommitSHA("f" * 40)
    second = Stream(farm, BUILD_ONLY)
    eventually(lambda: second.events)
    assert 0 <= second.events[0]["usual_seconds"] < 10
    farm.engine.end(farm.build().name, Reason.CANCELLED)
    second.end()


def test_an_id_that_is_not_ours_is_ignored(farm: Farm) -> None:
    stream = Stream(farm, BUILD_ONLY, **{"Last-Event-ID": "../../etc/passwd"})
    name = farm.build().name
    farm.engine.end(name, Reason.CANCELLED)
    assert stream.end().events[-1]["reason"] == "cancelled"


def test_an_idle_stream_is_kept_alive(tmp_path: Path) -> None:
    farm = Farm(tmp_path, keep_alive_seconds=0.1)
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    eventually(lambda: stream.raw.count(b":keepalive\n\n") >= 2)
    farm.engine.end(name, Reason.CANCELLED)
    stream.end()
    farm.close()


def test_a_log_that_breaks_off_is_read_again_without_repeating_a_line(farm: Farm) -> None:
    farm.engine.logs_faults.append(TransientError(detail="the disk is busy"))
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "one", "two")
    eventually(lambda: texts(stream) == ["one", "two"])
    farm.publish(name)
    assert texts(stream.end()) == ["one", "two"]
    farm.engine.end(name)


def test_a_reader_that_ends_by_a_bug_ends_the_streams_too(farm: Farm) -> None:
    farm.engine.logs_faults.append(ZeroDivisionError("a bug"))
    stream = Stream(farm, BUILD_ONLY).end()
    assert stream.events[-1]["reason"] == "internal"
    assert b"bug" not in stream.raw
    eventually(lambda: not farm.feeds._feeds)
    farm.engine.end(farm.build().name, Reason.CANCELLED)


def test_whoever_leaves_last_leaves_no_feed_behind(farm: Farm) -> None:
    stream = Stream(farm, BUILD_ONLY)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "one")
    farm.engine.end(name, Reason.BUILD)
    stream.end()
    eventually(lambda: not farm.feeds._feeds)


def test_a_place_in_the_queue_stays_told_where_an_older_word_comes_late(tmp_path: Path) -> None:
    engine = FakeEngine(clock=time.time)
    asked = dataclasses.replace(engine.submit(request()), queue_position=0)
    catalogue = FolderCatalogue(tmp_path / "catalogue")
    feed = Feed(asked, engine, FsspecArchive(tmp_path.as_uri()), catalogue, signal(1), keep_alive_seconds=5)
    feed.tell(dataclasses.replace(asked, queue_position=3))
    # Somebody asked the engine before that, and has the answer now.
    feed.tell(asked)
    stream = feed.follow(None)
    assert json.loads(next(stream).partition(b"data: ")[2])["queue_position"] == 3
    feed.tell(dataclasses.replace(asked, queue_position=2))
    assert json.loads(next(stream).partition(b"data: ")[2])["queue_position"] == 2
    stream.close()
    feed.close()


def test_a_follower_whom_the_ring_has_lost_reads_by_itself(tmp_path: Path) -> None:
    engine = FakeEngine(clock=time.time)
    status = engine.submit(request())
    name = status.name
    engine.admit(name)
    engine.say(name, "build", *(f"line {number}" for number in range(2000)))
    bell = signal(1)
    archive = FsspecArchive(tmp_path.as_uri())
    catalogue = FolderCatalogue(tmp_path / "catalogue")
    feed = Feed(status, engine, archive, catalogue, bell, keep_alive_seconds=5, ring=Ring(20_000))
    feed.start()
    eventually(lambda: feed._ring.last == Position(2, 2000))
    assert feed._ring.after(START) is not None
    assert feed._ring.after(START).data == b""  # type: ignore[union-attr]
    engine.publish(name)
    feed.tell(engine.builds[name])
    raw = b"".join(feed.follow(None))
    ids = [line for line in raw.split(b"\n") if line.startswith(b"id: ")]
    assert ids == [b"id: 1.2.%d" % number for number in range(1, 2001)]
    engine.end(BuildName(name))
