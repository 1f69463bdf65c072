"""A client that loses its stream anywhere and comes back with its last event's id: every line once, and one server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.hub import FakeHub
from tests.integration.webs import Webs
from tools.farm import free_ports

pytestmark = pytest.mark.timeout(180)

BODY = """
    say(1, 0.1)
    if name == "push":
        push()
    if name == "publish":
        publish()
    say(1, 0.1)
"""
"""Two lines a step, so that every line of the wire can be tried."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub(start_seconds=0.5)
    yield made
    made.close()


@pytest.fixture
def webs(tmp_path: Path, hub: FakeHub) -> Iterator[Webs]:
    made = Webs(tmp_path, free_ports(1)[0], hub.url, BODY)
    made.start()
    yield made
    made.close()


def ended(*clients: Client) -> None:
    for client in clients:
        client.join(60)
        assert client.last.get("phase") == "ready", (client.path, client.last, client.events)


def check_servers(hub: FakeHub, *clients: Client) -> None:
    """As many were ever started as there are clients, and each client has one of them."""
    assert sorted(hub.started) == sorted(client.last["url"].rstrip("/").rpartition("/")[2] for client in clients)


def test_wherever_a_stream_breaks_off_its_client_sees_every_line_once_and_gets_one_server(
    webs: Webs, hub: FakeHub
) -> None:
    whole = Client(webs.url, "gh/o/first/main")
    ended(whole)
    # Of the wire: an id where there is one, data and an empty line for each event.
    count = 2 * len(whole.events) + len(whole.ids)
    # Web learns late that a network is dead: it starts the server of a visitor who never heard that the image is there.
    url, path = webs.url, "gh/o/second/main"
    # Whoever has no id yet begins anew, and would come to an image that is known.
    clients = [
        Client(url, path, cut_after=number, linger_seconds=1.5 if number > 2 else 0) for number in range(1, count)
    ]
    ended(*clients)
    assert [number for number, client in enumerate(clients, start=1) if client.streams == 1] == []
    for number, client in enumerate(clients, start=1):
        assert client.lines == whole.lines, number
        assert len(set(client.ids)) == len(client.ids), number
        assert client.phases == whole.phases, number
    check_servers(hub, whole, *clients)


def test_who_loses_each_stream_after_an_event_or_two_arrives_all_the_same(webs: Webs, hub: FakeHub) -> None:
    whole = Client(webs.url, "gh/o/whole/main")
    ended(whole)
    known = Client(webs.url, "gh/o/whole/main", cut_after=6, cuts=50)
    built = Client(webs.url, "gh/o/other/main", cut_after=6, cuts=50)
    ended(known, built)
    assert built.lines == whole.lines
    assert built.streams > sum(len(numbers) for numbers in whole.lines.values()) / 2
    assert known.streams > 1
    check_servers(hub, whole, known, built)
