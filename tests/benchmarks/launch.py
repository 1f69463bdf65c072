"""What Argosy adds to the launch of a known image over calling the Hub directly (goal: 50 ms).

A server's start varies by far more than 50 ms, so two clicks cannot be compared. Instead web speaks to the real Hub
through a relay that notes when a request is in flight: whatever of a click is not spent in the Hub is Argosy's.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from tests.githost import GitHost
from tests.local.farm import Farm
from tests.visitor import Visitor, git_spec
from tools.farm import free_ports

CLICKS = 10


class Relay:
    """Passes HTTP on to the Hub as it comes, and adds up the time in which at least one request was in flight."""

    def __init__(self, port: int, target: str) -> None:
        self.spans: list[tuple[float, float]] = []
        relay, session = self, requests.Session()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # its small writes would wait 40 ms each for the reader's acknowledgement

            def _pass_on(self) -> None:
                began = time.monotonic()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                with session.request(
                    self.command, target + self.path, headers=headers, data=body, stream=True, timeout=120
                ) as answer:
                    self.send_response_only(answer.status_code)
                    for name in ("Content-Type", "Location", "Retry-After"):
                        if name in answer.headers:
                            self.send_header(name, answer.headers[name])
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for chunk in answer.raw.stream(65536, decode_content=True):
                        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                        self.wfile.flush()
                        if b'"ready": true' in chunk:
                            # The Hub has said all that it says: what comes after is Argosy's time.
                            relay.spans.append((began, time.monotonic()))
                            began = float("inf")
                    self.wfile.write(b"0\r\n\r\n")
                if began != float("inf"):
                    relay.spans.append((began, time.monotonic()))

            do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815  # the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Web leaves a stream as soon as it has heard all: no fault, and nothing to print."""

        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def seconds_between(self, began: float, ended: float) -> float:
        """Seconds of that time in which a request was in flight."""
        total, covered = 0.0, began
        for start, end in sorted(self.spans):
            seconds = min(end, ended) - max(start, covered)
            if seconds > 0:
                total, covered = total + seconds, min(end, ended)
        return total

    def stop(self) -> None:
        self._server.shutdown()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        githost = GitHost(Path(folder) / "git")
        githost.start()
        (port,) = free_ports(1)
        farm = Farm(Path(folder) / "state", ARGOSY_HUB_API_URL=f"http://127.0.0.1:{port}/hub/api/")
        relay = Relay(port, farm.environment["ARGOSY_HUB_URL"].rstrip("/"))
        try:
            farm.start()
            _measure(farm, githost, relay)
        finally:
            farm.stop()
            relay.stop()
            githost.stop()


def _measure(farm: Farm, githost: GitHost, relay: Relay) -> None:
    visitor, spec = Visitor(farm.url), git_spec(f"{githost.url}/bench/known")
    githost.create("bench/known", {"requirements.txt": "six\n"})
    assert visitor.click(spec).last["phase"] == "ready"
    own, whole = [], []
    for _ in range(CLICKS):
        began = time.monotonic()
        click = visitor.click(spec)
        ended = time.monotonic()
        assert click.last["phase"] == "ready", click.log
        whole.append(ended - began)
        own.append(ended - began - relay.seconds_between(began, ended))
        time.sleep(0.2)
    print(f"{CLICKS} launches of a known image, whole: median {statistics.median(whole):.2f} s")
    print(
        f"of that not in the Hub (goal: 50 ms): median {statistics.median(own) * 1000:.0f} ms, "
        f"min {min(own) * 1000:.0f} ms, max {max(own) * 1000:.0f} ms"
    )
    asked = statistics.median(_ls_remote_seconds(f"{githost.url}/bench/known") for _ in range(CLICKS))
    print(f"of that `git ls-remote`, by which the ref is asked of its host each time: alone {asked * 1000:.0f} ms")


def _ls_remote_seconds(url: str) -> float:
    began = time.monotonic()
    subprocess.run(["git", "ls-remote", "--", url, "HEAD", "HEAD^{}"], check=True, capture_output=True)
    return time.monotonic() - began
