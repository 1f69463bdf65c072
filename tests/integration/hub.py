"""A JupyterHub at the wire: the routes that launching uses, users and servers in a dictionary, no server behind."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hub-token-of-the-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a request gets in the place of the Hub's own answer.

    Args:
        status: Is answered; 0: nothing is, and the connection ends.
        headers: Of the answer.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """One user's server."""

    options: dict[str, Any]
    ready_at: float


class FakeHub:
    """The Hub. `started` lists every server that was ever asked for, `told_ready` those that it said to be ready.

    Args:
        start_seconds: Until a server is ready; may change at any time.
    """

    def __init__(self, start_seconds: float = 0.2) -> None:
        self.start_seconds = start_seconds
        self.users: dict[str, Server | None] = {}
        self.started: list[str] = []
        self.told_ready: set[str] = set()
        self.rule: Callable[[str, str], Fault | None] = lambda method, path: None
        """What goes wrong, by method and path; it may take its time."""
        self._connections: set[socket.socket] = set()
        hub = self

        class Handler(_Handler):
            def setup(self) -> None:
                hub._connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                super().finish()
                hub._connections.discard(self.request)

        Handler.hub = hub
        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def crash(self) -> None:
        """Everything that it knew is gone, and every connection breaks off."""
        self.users = {}
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def parse_request(self) -> bool:
        return super().parse_request() and not self._is_at_fault()

    def _is_at_fault(self) -> bool:
        fault = self.hub.rule(self.command, self.path)
        if fault is None:
            return False
        self.close_connection = True
        if fault.status:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(fault.status, headers=fault.headers)
        return True

    def do_GET(self) -> None:
        name, rest = self._place()
        if rest == "progress":
            self._progress(name)
        elif name and name not in self.hub.users:
            self._answer(404)
        else:
            server = self.hub.users.get(name)
            servers = {}
            if server:
                is_ready = time.monotonic() >= server.ready_at
                self.hub.told_ready |= {name} if is_ready else set()
                servers[""] = {"ready": is_ready, "pending": None if is_ready else "spawn"}
            self._answer(200, {"name": name, "servers": servers})

    def do_POST(self) -> None:
        name, rest = self._place()
        length = int(self.headers.get("Content-Length") or 0)
        options = json.loads(self.rfile.read(length) or b"{}")
        if rest == "server":
            if name not in self.hub.users:
                self._answer(404)
            elif self.hub.users[name]:
                self._answer(400, {"message": f"{name} is already running or pending"})
            else:
                self.hub.users[name] = Server(options, time.monotonic() + self.hub.start_seconds)
                self.hub.started.append(name)
                self._answer(202)
        elif name in self.hub.users:
            self._answer(409)
        else:
            self.hub.users[name] = None
            self._answer(201, {"name": name})

    def do_DELETE(self) -> None:
        name, rest = self._place()
        if name not in self.hub.users:
            self._answer(404)
        elif rest == "server":
            self.hub.users[name] = None
            self._answer(204)
        else:
            del self.hub.users[name]
            self._answer(204)

    def _progress(self, name: str) -> None:
        server = self.hub.users.get(name)
        if not server:
            self._answer(404)
            return
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        # In chunks, as the real one sends it: otherwise a client reads to the end before it looks at anything.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._say({"progress": 0, "message": "Server requested"})
        self._say({"progress": 50, "message": "Spawning server..."})
        while time.monotonic() < server.ready_at and self.hub.users.get(name) is server:
            time.sleep(0.01)
            # As the real one does now and then.
            self._send(b"\n\n")
        if self.hub.users.get(name) is server:
            self.hub.told_ready.add(name)
            self._say({"progress": 100, "ready": True, "message": "Server ready"})
        else:
            self._say({"progress": 100, "failed": True, "message": "Spawn failed: it was stopped"})
        self._send(b"")

    def _say(self, event: dict[str, Any]) -> None:
        self._send(f"data: {json.dumps(event)}\n\n".encode())

    def _send(self, chunk: bytes) -> None:
        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    def _place(self) -> tuple[str, str]:
        parts = self.path.partition("?")[0].split("/hub/api/")[-1].split("/")
        return (parts[1], parts[-1] if len(parts) > 2 else "") if parts[0] == "users" else ("", "")

    def _answer(
        self, status: int, content: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
