"""What leaves, decided on values."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import pytest

from web.cleaning.holds import Holds
from workflows.cleaning.choice import Limits, Thing, leaving, total
from workflows.cleaning.cleaner import Cleaner
from workflows.errors import TransientError
from workflows.image import ImageName
from workflows.settings import Settings
from workflows.stores.disk import missing_bytes

NOW = 10_000.0


def thing(name: str, used: float, size: int = 1, **different: object) -> Thing:
    values: dict[str, object] = {"name": name, "used": used, "parts": {name: size}}
    return Thing(**values | different)


def names(things: Sequence[Thing], **limits: float) -> list[str]:
    return [each.name for each in leaving(things, Limits(**limits), NOW)]


def test_nothing_leaves_while_all_of_it_is_within_its_limits():
    assert names([thing("a", 1, 60), thing("b", 2, 40)], size=100) == []


def test_the_least_recently_used_leave_first_and_no_more_than_must():
    things = [thing("new", 9, 10), thing("oldest", 1, 10), thing("old", 2, 10), thing("newest", 10, 10)]
    assert names(things, size=20) == ["oldest", "old"]


def test_what_is_held_never_leaves_and_still_counts():
    things = [thing("held", 1, 50, is_held=True), thing("old", 2, 30), thing("new", 3, 30)]
    assert names(things, size=80) == ["old"]
    assert names(things, size=0) == ["old", "new"]


def test_what_was_not_used_for_too_long_leaves_also_within_the_size():
    assert names([thing("old", NOW - 101), thing("new", NOW - 99)], age_seconds=100) == ["old"]


def test_orphans_leave_after_their_grace_and_not_before():
    things = [thing("old", NOW - 101, is_orphan=True), thing("new", NOW - 99, is_orphan=True), thing("named", 0)]
    assert names(things, grace_seconds=100) == ["old"]
    assert names(things, grace_seconds=100, size=0) == ["old", "named"]


def test_an_orphan_in_use_stays():
    assert names([thing("a", 0, is_orphan=True, is_held=True)]) == []


def test_a_shared_part_counts_once():
    things = [thing("a", 1, parts={"base": 50, "a": 1}), thing("b", 2, parts={"base": 50, "b": 1})]
    assert total(things) == 52
    assert names(things, size=52) == []


def test_a_shared_part_leaves_with_the_last_that_holds_it():
    things = [
        thing("a", 1, parts={"base": 50, "a": 1}),
        thing("b", 2, parts={"base": 50, "b": 1}),
        thing("c", 3, parts={"c": 9}),
    ]
    assert names(things, size=60) == ["a"]
    assert names(things, size=59) == ["a", "b"]


def test_what_would_make_no_room_stays():
    things = [thing("copy", 1, parts={"x": 50}), thing("held", 2, parts={"x": 50}, is_held=True), thing("b", 3, 10)]
    assert names(things, size=50) == ["b"]


class FakeKind:
    """Things of a dictionary."""

    def __init__(self, name: str, size: float = math.inf, *, is_hasty: bool = True, is_spare: bool = True) -> None:
        self.name = name
        self.limits = Limits(size=size)
        self.is_hasty = is_hasty
        self.is_spare = is_spare
        self.kept: dict[str, Thing] = {}
        self.fault: Exception | None = None

    def put(self, *things: Thing) -> FakeKind:
        self.kept |= {each.name: each for each in things}
        return self

    def things(self) -> list[Thing]:
        if self.fault:
            raise self.fault
        return list(self.kept.values())

    def remove(self, things: Sequence[Thing]) -> None:
        for each in things:
            del self.kept[each.name]


def test_a_kind_that_fails_is_told_and_tried_again_and_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    broken = FakeKind("broken", 0).put(thing("x", 1))
    other = FakeKind("other", 0).put(thing("y", 1))
    broken.fault = TransientError(detail="the disk says no")
    cleaner = Cleaner([broken, other], lambda: 0, clock=lambda: NOW)
    with caplog.at_level(logging.WARNING):
        cleaner.round()
    assert "the disk says no" in caplog.text
    assert (len(broken.kept), len(other.kept)) == (1, 0)
    broken.fault = None
    cleaner.round()
    assert not broken.kept


def test_a_round_after_a_build_looks_only_at_what_builds_fill():
    fast, slow = FakeKind("fast", 0).put(thing("x", 1)), FakeKind("slow", 0, is_hasty=False).put(thing("y", 1))
    cleaner = Cleaner([fast, slow], lambda: 0, clock=lambda: NOW)
    cleaner.round(is_whole=False)
    assert (len(fast.kept), len(slow.kept)) == (0, 1)
    cleaner.round()
    assert not slow.kept


def test_where_the_disk_is_nearly_full_more_leaves_the_cheapest_first_and_no_more_than_is_missing():
    caches = FakeKind("caches").put(thing("c1", 1, 10), thing("c2", 2, 10))
    images = FakeKind("images").put(thing("i1", 1, 10), thing("i2", 2, 10), thing("i3", 3, 10))
    archive = FakeKind("archive", is_spare=False).put(thing("a", 1, 10))

    def missing() -> int:
        # 25 too few at first: both caches and one image make room enough.
        return max(0, 25 - 60 + sum(total(kind.things()) for kind in (caches, images, archive)))

    Cleaner([caches, images, archive], missing, clock=lambda: NOW).round()
    assert (set(caches.kept), set(images.kept), set(archive.kept)) == (set(), {"i2", "i3"}, {"a"})


def test_what_is_in_use_above_a_limit_is_told(caplog: pytest.LogCaptureFixture):
    kind = FakeKind("images", 5).put(thing("x", 1, 10, is_held=True))
    with caplog.at_level(logging.WARNING):
        (cleaned,) = Cleaner([kind], lambda: 0, clock=lambda: NOW).round()
    assert cleaned.size == 10
    assert "in use" in caplog.text


def test_a_small_disk_need_keep_no_more_free_than_a_tenth(tmp_path):
    assert missing_bytes(Settings(state=tmp_path / "not" / "yet", min_free_bytes=0)) == 0
    # A disk that is not nine tenths full has a tenth free, however much is wanted.
    wanted = missing_bytes(Settings(state=tmp_path, min_free_bytes=2**62))
    assert wanted < 2**50


def test_an_image_is_held_from_before_a_click_looks_until_a_while_after_it_left():
    now = [0.0]
    holds = Holds(lambda: now[0], linger_seconds=60)
    image = ImageName("localhost/argosy/demo:1")
    with holds.hold(image), holds.hold(image):
        now[0] = 1000
        assert holds.held() == {image}
    now[0] = 1059
    assert holds.held() == {image}
    now[0] = 1061
    assert holds.held() == frozenset()
    assert not holds._until
