"""The people of the tests: a visitor clicks a badge, follows the stream and uses the server that it ends in."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import websocket

REFUSAL_SECONDS = 60
EVENT_STREAM = {"Accept": "text/event-stream"}


def refusal(answer: requests.Response, again: Callable[[], requests.Response], user: str, token: str) -> str:
    """What a Hub says of a server that it does not start.

    One that is busy answers before it knows, and says nothing of it afterwards: it is asked again.

    Args:
        answer: To who asked for the server.
        again: Asks once more.
        user: The user's address in the Hub's API.
        token: Of who asks.
    """
    deadline = time.monotonic() + REFUSAL_SECONDS
    while answer.status_code in {requests.codes.created, requests.codes.accepted}:
        assert time.monotonic() < deadline, "it never knows in time"
        headers = {"Authorization": f"token {token}"}
        while servers := requests.get(user, headers=headers, timeout=30).json()["servers"]:
            assert not servers[""]["ready"], servers
            assert time.monotonic() < deadline, servers
            time.sleep(0.1)
        answer = again()
    assert answer.status_code == requests.codes.forbidden, answer.text
    return str(answer.json()["message"])


@dataclass(frozen=True)
class Click:
    """What a visitor saw: events in order, and the id of each."""

    events: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def phases(self) -> list[str]:
        """The phases in order, each once where it repeats."""
        seen: list[str] = []
        for event in self.events:
            phase = event.get("phase", "")
            if phase and (not seen or seen[-1] != phase):
                seen.append(phase)
        return seen

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def build(self) -> str:
        return next(event["build"] for event in self.events if event.get("build"))

    @property
    def log(self) -> str:
        return "".join(event.get("message", "") for event in self.events)


class Visitor:
    """One visitor of one farm."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def stream(self, path: str, *, timeout: float = 600, **headers: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with requests.get(
            f"{self.url}/build/{path}", headers=EVENT_STREAM | headers, stream=True, timeout=timeout
        ) as answer:
            assert answer.status_code == 200, answer.text
            event_id = ""
            for raw in answer.iter_lines(chunk_size=None):
                if raw.startswith(b"id: "):
                    event_id = raw[4:].decode()
                elif raw.startswith(b"data: "):
                    yield event_id, json.loads(raw[6:])

    def click(self, path: str, *, build_only: bool = False, timeout: float = 600, **headers: str) -> Click:
        """Follow ``/build/<path>`` to its last event."""
        seen = Click()
        query = "?build_only=true" if build_only else ""
        for event_id, event in self.stream(path + query, timeout=timeout, **headers):
            seen.ids.append(event_id)
            seen.events.append(event)
            if event.get("phase") in {"ready", "failed"}:
                break
        return seen


def git_spec(url: str, ref: str = "HEAD") -> str:
    """The path of a repository under the provider ``git``."""
    return f"git/{quote(url, safe='')}/{ref}"


def run_cell(url: str, token: str, code: str, *, timeout: float = 60) -> str:
    """What one cell prints in a new kernel of a visitor's server, over the kernel's websocket as a notebook does."""
    headers = {"Authorization": f"token {token}"}
    kernel = requests.post(f"{url}api/kernels", headers=headers, json={}, timeout=timeout)
    kernel.raise_for_status()
    address = urlsplit(url)._replace(scheme="ws").geturl()
    channel = websocket.create_connection(
        f"{address}api/kernels/{kernel.json()['id']}/channels?token={token}", timeout=timeout
    )
    try:
        asked = _execute_request(code)
        channel.send(json.dumps(asked))
        return "".join(_printed(channel, asked["header"]["msg_id"]))
    finally:
        channel.close()


def _printed(channel: websocket.WebSocket, asked: str) -> Iterator[str]:
    while True:
        message = json.loads(channel.recv())
        if message["parent_header"].get("msg_id") != asked:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            yield content["text"]
        elif kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        # The reply comes by another way than what is printed, and may be faster; this comes after it.
        elif kind == "status" and content["execution_state"] == "idle":
            return


def _execute_request(code: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "username": "visitor",
        "session": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
