"""Kubernetes' API at the wire, for faults that a real one cannot be made to show: it answers what the test says.

Objects live in memory under their paths and are made, replaced, merged and deleted as in a real one, versions included;
watches and logs are what the test puts there, piece by piece.
"""

from __future__ import annotations

import json
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from workflows.cluster.access import Access
from workflows.cluster.connection import Cluster

Answer = tuple[int, Any]

KINDS = ("configmaps", "workflows")
"""What is listed as it is there; anything else as the test says."""


class ApiServer:
    """One API server on loopback.

    Attributes:
        objects: What is there, by its path.
        lists: What a list of a path finds, one after the other; the last again and again.
        streams: What watches and followed logs of a path give, one after the other: pieces of bytes, each sent as it
            is; an exception breaks the connection off. A stream ends cleanly with its last piece.
        logs: What a container has printed, by the path of its pod's log and ``?container``: for whoever does not
            follow, and for whoever does where nothing is streamed.
        answers: What a request with this method and path is answered instead, one after the other.
        asked: Every request: method, path, query, body and the header ``Authorization``.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.lists: dict[str, list[Answer]] = {}
        self.streams: dict[str, queue.Queue[list[bytes | Exception]]] = {}
        self.logs: dict[str, bytes] = {}
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.asked: list[tuple[str, str, dict[str, str], Any, str]] = []
        self._version = 1000
        self._is_over = False
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def _serve(self) -> None:
                server._serve(self)

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler._serve)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and break off those that are open: whoever watches notices."""
        self._is_over = True
        self._server.shutdown()
        self._server.server_close()
        for waiting in tuple(self.streams.values()):
            waiting.put([ConnectionAbortedError()])

    def cluster(self, authorization: Callable[[], str] = lambda: "") -> Cluster:
        """What speaks to it."""
        access = Access(url=self.url, tls=ssl.create_default_context(), authorization=authorization)
        return Cluster(access)

    def stream(self, path: str, *pieces: bytes | Exception) -> None:
        """What the next watch, or followed log, of a path gives."""
        self.streams.setdefault(path, queue.Queue()).put(list(pieces))

    def count(self, method: str, path: str, **query: str) -> int:
        """How often something was asked for."""
        return sum(
            (each[0], each[1]) == (method, path) and query.items() <= each[2].items() for each in tuple(self.asked)
        )

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        if self._is_over:
            handler.close_connection = True
            return
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query))
        content = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        body = json.loads(content) if content else None
        authorization = handler.headers.get("Authorization", "")
        self.asked.append((handler.command, parts.path, query, body, authorization))
        path = f"{parts.path}?{query['container']}" if "container" in query else parts.path
        if waiting := self.answers.get((handler.command, path)):
            _send(handler, *waiting.pop(0))
        elif path in self.logs and ("follow" not in query or path not in self.streams):
            _send(handler, 200, _tail(self.logs[path], query.get("tailLines")))
        elif handler.command == "GET" and ("watch" in query or "follow" in query):
            _stream(handler, self._pieces(path))
        elif handler.command == "GET" and parts.path in self.lists:
            lists = self.lists[parts.path]
            _send(handler, *(lists.pop(0) if len(lists) > 1 else lists[0]))
        elif handler.command == "GET" and parts.path.rpartition("/")[2] in KINDS:
            _send(handler, 200, self._list(parts.path, query.get("labelSelector", "")))
        else:
            with self._lock:
                answer = self._change(handler.command, parts.path, body)
            _send(handler, *answer)

    def _change(self, method: str, path: str, body: Any) -> Answer:
        path = f"{path}/{body['metadata']['name']}" if method == "POST" else path
        found = self.objects.get(path)
        if method == "POST":
            return (409, {}) if found is not None else (201, self.keep(path, body))
        if found is None:
            return 404, {"kind": "Status", "code": 404}
        if method == "PUT" and body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return 409, {}
        if method == "DELETE":
            return 200, self.objects.pop(path)
        if method == "PATCH":
            body = _merged(found, body)
        return 200, found if method == "GET" else self.keep(path, body)

    def _list(self, path: str, selector: str) -> Any:
        items = [each for name, each in tuple(self.objects.items()) if name.rpartition("/")[0] == path]
        found = [each for each in items if _is_selected(each["metadata"].get("labels", {}), selector)]
        return {"metadata": {"resourceVersion": str(self._version)}, "items": found}

    def keep(self, path: str, body: Any) -> Any:
        """Puts an object there, in a new version."""
        self._version += 1
        about = body["metadata"] | {"resourceVersion": str(self._version)}
        self.objects[path] = body | {"metadata": {"uid": path} | about}
        return self.objects[path]

    def _pieces(self, path: str) -> Iterator[bytes | Exception]:
        try:
            yield from self.streams.setdefault(path, queue.Queue()).get(timeout=5)
        except queue.Empty:
            return


def _is_selected(labels: dict[str, str], selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        name, equals, value = term.removeprefix("!").partition("=")
        has = labels.get(name.rstrip("!")) == value if equals else name in labels
        if has is ("!" in term):
            return False
    return True


def _merged(found: Any, patch: Any) -> Any:
    """A JSON merge patch, as RFC 7396 has it."""
    if not isinstance(patch, dict):
        return patch
    kept = found if isinstance(found, dict) else {}
    changed = {key: _merged(kept.get(key), value) for key, value in patch.items() if value is not None}
    return {key: value for key, value in kept.items() if key not in patch} | changed


def _tail(log: bytes, lines: str | None) -> bytes:
    return log if lines is None else b"".join(log.splitlines(keepends=True)[-int(lines) :])


def _send(handler: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _stream(handler: BaseHTTPRequestHandler, pieces: Iterator[bytes | Exception]) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in pieces:
        if isinstance(piece, Exception):
            # Without the last chunk: whoever reads notices.
            handler.close_connection = True
            return
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


@contextmanager
def apiserver() -> Iterator[ApiServer]:
    """An API server for as long as the block lasts."""
    made = ApiServer()
    try:
        yield made
    finally:
        made.close()
