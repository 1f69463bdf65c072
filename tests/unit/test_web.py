"""The small functions of web: ids, addresses, words."""

from __future__ import annotations

import pytest

from web.app import duration, moment
from web.clicks import resume
from web.clicks.click import network_of
from web.clicks.resume import Resume
from web.feed.events import ordinal
from web.feed.ring import START, Position
from web.routes.address import raw_path
from web.routes.build import accepts_events
from web.routes.follow import decoded
from workflows.events import KEEPALIVE, encode

NONCE = "A" * 22


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1.2.345", Resume(attempt=1, position=Position(2, 345))),
        (f"1.2.345~{NONCE}", Resume(attempt=1, position=Position(2, 345), nonce=NONCE)),
        (f"3.0.0~{NONCE}", Resume(attempt=3, position=START, nonce=NONCE)),
        (f"2.launch.0~{NONCE}", Resume(attempt=2, launch=0, nonce=NONCE)),
        (f"0.launch.17~{NONCE}", Resume(attempt=0, launch=17, nonce=NONCE)),
        ("", None),
        ("1.2", None),
        ("1.2.3\n", None),
        ("1.2.-3", None),
        ("1.2.99999999999", None),
        ("1.2.٣", None),
        ("1.launch.2~short", None),
        (f"1.launch.2~{NONCE[:-1]}/", None),
        ("9" * 10_000, None),
    ],
)
def test_an_id_says_where_its_client_stood_or_nothing(text: str, place: Resume | None) -> None:
    assert resume.parse(text) == place


def test_a_nonce_is_new_each_time_and_comes_back() -> None:
    nonce = resume.new_nonce()
    assert nonce != resume.new_nonce()
    assert resume.parse(resume.launch_id(1, 2, nonce)) == Resume(attempt=1, launch=2, nonce=nonce)


@pytest.mark.parametrize(
    ("accept", "does"),
    [
        ("text/event-stream", True),
        ("text/event-stream;q=0.9", True),
        ("TEXT/EVENT-STREAM", True),
        ("text/event-stream, */*", True),
        ("application/json, text/event-stream;q=0.1", True),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_the_event_stream_must_be_named(accept: str, *, does: bool) -> None:
    assert accepts_events(accept) is does


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.17", "192.0.2.0/24"),
        ("::ffff:192.0.2.17", "192.0.2.0/24"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_a_network_is_a_home_or_a_class(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/build/gh/a%2Fb/c?x=/y", "/build/gh/a%2Fb/c"),
        ("http://host:1/build/gh/a%2Fb", "/build/gh/a%2Fb"),
        ("//host/build", "//host/build"),
        ("", ""),
    ],
)
def test_a_path_is_taken_as_it_came(uri: str, path: str) -> None:
    assert raw_path({"RAW_URI": uri}) == path


def test_places_are_told_in_words() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "102nd",
        "111th",
    ]


def test_times_are_told_in_words() -> None:
    assert (duration(4.24), duration(200), duration(-1)) == ("4.2 s", "3 min 20 s", "0.0 s")
    assert moment(0) == "1970-01-01 00:00:00 UTC"


def test_events_are_read_back_from_their_bytes() -> None:
    first, second = {"message": "a\n\ndata: b"}, {"phase": "ready"}
    assert list(decoded(encode(first, "1.2.3") + KEEPALIVE + encode(second))) == [first, second]
