"""The real server process: gunicorn with gevent's worker, where a native thread speaks to greenlets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.integration import scripted
from tests.integration.farm import EVENT_STREAM, TOKEN, eventually
from tools.farm import free_ports

LINES = 2000


@pytest.fixture
def port() -> int:
    (free,) = free_ports(1)
    return free


@pytest.fixture(autouse=True)
def server(tmp_path: Path, port: int) -> Iterator[psutil.Process]:
    running = scripted.start(tmp_path, port, lines=LINES, lines_per_second=LINES)
    yield psutil.Process(running.pid)
    scripted.stop(running)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "MonkeyPatchWarning" not in log


class Follower(threading.Thread):
    """Follows to the end, and keeps ids and the last event."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}/build/{scripted.SPEC}"
        self.ids: list[str] = []
        self.phases: list[str] = []
        self.last: dict[str, str] = {}
        self.has_begun = threading.Event()
        self.start()

    def run(self) -> None:
        with requests.get(self.url, headers=EVENT_STREAM, stream=True, timeout=30) as answer:
            for line in answer.iter_lines(chunk_size=None):
                self.has_begun.set()
                if line.startswith(b"id: 1.2."):
                    self.ids.append(line[4:].decode().partition("~")[0])
                elif line.startswith(b"data: "):
                    self.last = json.loads(line[6:])
                    self.phases.append(self.last["phase"])


def test_followers_at_every_speed_get_every_line_from_one_reader(port: int, tmp_path: Path) -> None:
    followers = [Follower(port) for _ in range(20)]
    # One who asks and does not read: nobody else may notice.
    slow = socket.create_connection(("127.0.0.1", port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(f"GET /build/{scripted.SPEC} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".encode())
    assert all(follower.has_begun.wait(20) for follower in followers)
    (tmp_path / "go").touch()
    eventually(lambda: all(len(follower.ids) == LINES for follower in followers), 30)
    late = Follower(port)
    eventually(lambda: len(late.ids) == LINES, 30)
    (tmp_path / "publish").touch()
    expected = [f"1.2.{number}" for number in range(1, LINES + 1)]
    for follower in (*followers, late):
        follower.join(20)
        assert follower.ids == expected
        assert follower.last["token"] == TOKEN
        assert follower.phases[-3:] == ["built", "launching", "ready"]
    slow.settimeout(20)
    read = b""
    while b'"phase": "ready"' not in read:
        read += slow.recv(65536)
    assert read.count(b"\nid: 1.2.") == LINES
    slow.close()


def test_the_page_without_a_script_grows_as_lines_come(port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}/v2/{scripted.SPEC}?follow=1"
    with requests.get(url, stream=True, timeout=30) as answer:
        pieces = answer.iter_content(None)
        page = next(pieces)
        while b"Waiting for build" not in page:
            page += next(pieces)
        assert b"package 1 " not in page
        (tmp_path / "go").touch()
        while page.count(b'<li class="building">') < LINES:
            page += next(pieces)
        (tmp_path / "publish").touch()
        page += b"".join(pieces)
    assert page.count(b'<li class="building">') == LINES
    assert f"token={TOKEN}".encode() in page


def test_whoever_leaves_is_noticed_and_leaves_nothing_open(server: psutil.Process, port: int, tmp_path: Path) -> None:
    (worker,) = server.children()
    with contextlib.ExitStack() as following:
        url = f"http://127.0.0.1:{port}/build/{scripted.SPEC}"
        for _ in range(20):
            following.enter_context(requests.get(url, headers=EVENT_STREAM, stream=True, timeout=30))
        assert len(worker.net_connections("tcp")) > 20
    (tmp_path / "go").touch()
    eventually(lambda: len(worker.net_connections("tcp")) <= 2, 20)


def test_a_request_line_of_ten_kilobytes_is_refused(port: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/v2/gh/o/r/{'a' * 10_000}", timeout=20)
    assert answer.status_code == 414
