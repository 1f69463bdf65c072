"""The client of the Hub's REST API, against answers that a real Hub gave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from web.launching.hub import HubClient, Progress, ServerState
from workflows.errors import (
    ConfigError,
    InternalError,
    PolicyError,
    RateLimitError,
    StepTimeoutError,
    TransientError,
)
from workflows.settings import Settings

TOKEN = "5ecret"
USER = "users/someone-12345678"


@dataclass
class Answer:
    status: int = 200
    body: object = None
    chunks: tuple[bytes, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0
    cut: bool = False


class Wire:
    """A server that gives the answers that a test put down, and notes what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.asked: list[tuple[str, str, object]] = []
        self.connections = 0
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                wire.connections += 1

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.removeprefix("/hub/api/")
                wire.asked.append((self.command, path, json.loads(body) if body else None))
                answer = wire.answers.get((self.command, path), Answer(404, {"message": "Not Found"}))
                if self.headers["Authorization"] != f"token {TOKEN}":
                    answer = Answer(403, {"message": "Missing or invalid credentials."})
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if not answer.chunks:
                    content = b"" if answer.body is None else json.dumps(answer.body).encode()
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in answer.chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    time.sleep(answer.pause)
                if answer.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.server.shutdown()
    wire.server.server_close()


@pytest.fixture
def client(wire, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    url = f"http://127.0.0.1:{wire.port}/hub/api/"
    client = HubClient(Settings(state=tmp_path, hub_api_url=url, hub_token_file=tmp_path / "token"))
    yield client
    client._session.close()


def events(*data: object) -> bytes:
    return b"".join(f"data: {json.dumps(each)}\n\n".encode() for each in data)


REQUESTED = {"progress": 0, "message": "Server requested"}
READY = {"progress": 100, "ready": True, "message": "Server ready at /user/x/", "url": "/user/x/"}


def test_a_user_is_made_once(client, wire):
    wire.answers["POST", USER] = Answer(201, {"name": "someone-12345678"})
    assert client.create_user("someone-12345678")
    wire.answers["POST", USER] = Answer(409, {"status": 409, "message": "User someone already exists"})
    assert not client.create_user("someone-12345678")


def test_the_options_are_the_body_of_a_start(client, wire):
    wire.answers["POST", f"{USER}/server"] = Answer(202)
    client.start_server("someone-12345678", {"image": "x:1@sha256:2"})
    assert wire.asked == [("POST", f"{USER}/server", {"image": "x:1@sha256:2"})]


@pytest.mark.parametrize(
    ("server", "state"),
    [
        ({"ready": True, "pending": None}, ServerState.READY),
        ({"ready": False, "pending": "spawn"}, ServerState.STARTING),
        ({"ready": False, "pending": "stop"}, ServerState.STOPPING),
        ({"ready": False, "pending": None, "stopped": True}, ServerState.NONE),
    ],
)
def test_what_a_server_does_is_read_from_its_user(client, wire, server, state):
    wire.answers["GET", f"{USER}?include_stopped_servers"] = Answer(200, {"servers": {"": server}})
    assert client.server_state("someone-12345678") is state


def test_nobodys_server_is_none(client, wire):
    assert client.server_state("someone-12345678") is ServerState.NONE
    wire.answers["GET", f"{USER}?include_stopped_servers"] = Answer(200, {"servers": {}})
    assert client.server_state("someone-12345678") is ServerState.NONE


def test_a_server_that_runs_already_is_as_good_as_started(client, wire):
    wire.answers["POST", f"{USER}/server"] = Answer(400, {"message": "someone is already running"})
    wire.answers["GET", f"{USER}?include_stopped_servers"] = Answer(200, {"servers": {"": {"ready": True}}})
    client.start_server("someone-12345678", {})


def test_progress_comes_as_it_happens_and_ends_with_ready(client, wire):
    pieces = (b"\n\n", events(REQUESTED), b"\n\n", events(READY)[:20], events(READY)[20:], b"\n\n")
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=pieces, pause=0.05)
    began, came = time.monotonic(), []
    came.extend((time.monotonic() - began, each) for each in client.progress("someone-12345678", 10))
    assert [each for _, each in came] == [
        Progress(message="Server requested"),
        Progress(message="Server ready at /user/x/", is_ready=True),
    ]
    assert came[0][0] < came[1][0] - 0.05


def test_a_failed_start_is_told(client, wire):
    failed = {"progress": 100, "failed": True, "message": "Spawn failed: the server ended before it was ready."}
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=(events(failed),))
    assert list(client.progress("someone-12345678", 10))[-1].is_failed


def test_a_refusal_that_comes_late_is_still_one_of_policy(client, wire):
    failed = {"failed": True, "message": "Spawn failed: This image is not in Argosy's catalogue, so …"}
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=(events(failed),))
    with pytest.raises(PolicyError):
        list(client.progress("someone-12345678", 10))


@pytest.mark.parametrize("status", [404, 400])
def test_a_hub_that_has_lost_what_it_was_asked_for_is_asked_again(client, wire, status):
    wire.answers["GET", f"{USER}/server/progress"] = Answer(status, {"message": "someone is not starting..."})
    with pytest.raises(TransientError, match="has lost the server"):
        list(client.progress("someone-12345678", 10))
    wire.answers["POST", f"{USER}/server"] = Answer(404, {"message": "Not Found"})
    with pytest.raises(TransientError, match="has lost the server"):
        client.start_server("someone-12345678", {})


def test_progress_that_only_keeps_alive_ends_at_its_time(client, wire):
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=(b"\n\n",) * 40, pause=0.02)
    with pytest.raises(StepTimeoutError):
        list(client.progress("someone-12345678", 0.2))


def test_progress_that_is_cut_off_is_transient(client, wire):
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=(events(REQUESTED),), cut=True)
    with pytest.raises(TransientError):
        list(client.progress("someone-12345678", 10))


def test_progress_that_is_no_object_is_our_bug(client, wire):
    wire.answers["GET", f"{USER}/server/progress"] = Answer(chunks=(b"data: 7\n\n",))
    with pytest.raises(InternalError):
        list(client.progress("someone-12345678", 10))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            Answer(403, {"message": "This image is not in Argosy's catalogue, so the Hub does not start it."}),
            PolicyError,
        ),
        (Answer(403, {"message": "Action is not authorized with current scopes"}), ConfigError),
        (Answer(401, {"message": "x"}), ConfigError),
        (Answer(500, {"message": "The server's container did not start."}), TransientError),
        (Answer(503), TransientError),
        (Answer(400, {"message": "someone is pending stop"}), TransientError),
        (Answer(400, {"message": "someone is pending check"}), TransientError),  # as it begins anew
        (Answer(400, {"message": "x"}), InternalError),
        (Answer(418, {"message": "x"}), InternalError),
    ],
)
def test_each_refusal_has_its_reason(client, wire, answer, error):
    wire.answers["POST", f"{USER}/server"] = answer
    with pytest.raises(error) as caught:
        client.start_server("someone-12345678", {"token": "t0p"})
    assert TOKEN not in caught.value.detail
    assert "t0p" not in caught.value.detail


@pytest.mark.parametrize(("header", "seconds"), [("30", 30), (None, None), ("soon", None), ("-1", None)])
def test_a_hub_that_throttles_says_when_to_come_back(client, wire, header, seconds):
    headers = {"Retry-After": header} if header else {}
    body = {"message": "Too many users trying to log in right now."}
    wire.answers["POST", f"{USER}/server"] = Answer(429, body, headers=headers)
    with pytest.raises(RateLimitError) as caught:
        client.start_server("someone-12345678", {})
    assert caught.value.retry_after_seconds == seconds


def test_a_user_is_gone_when_the_hub_says_so(client, wire):
    wire.answers["DELETE", USER] = Answer(400, {"message": "someone's server is in the process of stopping"})
    assert not client.delete_user("someone-12345678")
    wire.answers["DELETE", USER] = Answer(204)
    assert client.delete_user("someone-12345678")
    wire.answers.clear()
    assert client.delete_user("someone-12345678")
    client.stop_server("someone-12345678")


def test_calls_share_one_connection(client, wire):
    wire.answers["POST", USER] = Answer(201, {})
    for _ in range(20):
        client.create_user("someone-12345678")
    assert wire.connections == 1


def test_a_name_is_quoted_before_it_reaches_a_path(client, wire):
    with pytest.raises(InternalError):
        client.create_user("../../shutdown?x")
    assert wire.asked[0][1] == "users/..%2F..%2Fshutdown%3Fx"


def test_a_hub_that_is_down_is_transient(client, wire):
    wire.server.shutdown()
    wire.server.server_close()
    with pytest.raises(TransientError):
        client.check()


def test_a_check_passes_where_the_token_is_known_alone(client, wire):
    wire.answers["GET", "user"] = Answer(200, {"kind": "service"})
    client.check()
    client._session.headers["Authorization"] = "token wrong"
    with pytest.raises(ConfigError):
        client.check()


def test_without_a_token_nothing_begins(tmp_path):
    with pytest.raises(ConfigError):
        HubClient(Settings(state=tmp_path))
