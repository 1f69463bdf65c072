"""What following costs: CPU of the web process for each line and follower, and its memory.

A real gunicorn with its gevent worker serves the real application on loopback; a scripted engine prints 100 lines a
second; the followers are real HTTP connections of another process. Goal (issue 3): 10 µs and less than 150 MB.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.integration import scripted
from tools.farm import free_ports

LINES_PER_SECOND = 100
SECONDS = 10
LINES = LINES_PER_SECOND * SECONDS
FOLLOWERS = (1, 100, 1000)
FILES = 4096


def main() -> None:
    print(f"a log of {LINES_PER_SECOND} lines a second for {SECONDS} s")
    for followers in FOLLOWERS:
        with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
            _measure(followers, Path(folder))


def _measure(followers: int, folder: Path) -> None:
    (port,) = free_ports(1)
    server = scripted.start(folder, port, lines=LINES, lines_per_second=LINES_PER_SECOND)
    try:
        worker = _worker(server.pid)
        command = [sys.executable, "-m", "tests.benchmarks.feed", str(followers), str(port)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        assert client.stdout.readline() == "following\n"
        before = _cpu_seconds(worker)
        time.sleep(SECONDS)
        idle = _cpu_seconds(worker) - before
        (folder / "go").touch()
        found = json.loads(client.stdout.readline())
        seconds, memory = _cpu_seconds(worker) - before - idle, worker.memory_info().rss
        client.wait()
        each = seconds / LINES / followers * 1e6
        print(
            f"{followers:5} followers: {each:7.2f} µs for each line and follower, {seconds:5.2f} s of CPU in all "
            f"(without a line {idle:.2f} s), {memory / 1e6:4.0f} MB, "
            f"last line {found['late_seconds']:.2f} s after it was printed, {found['lines']} lines delivered in order",
            flush=True,
        )
        assert found["lines"] == LINES * followers
    finally:
        scripted.stop(server)


def _worker(arbiter: int) -> psutil.Process:
    """gunicorn's worker."""
    (worker,) = psutil.Process(arbiter).children()
    return worker


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


# --- the followers' process ---


def _follow(followers: int, port: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    selector = selectors.EpollSelector()
    request = (
        "GET /build/gh/binder-examples/requirements/main HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    )
    for _ in range(followers):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request.encode())
        while b"Waiting for build" not in connection.recv(65536):
            pass
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, _Follower())
    print("following", flush=True)
    followed = [key.data for key in selector.get_map().values()]
    # A look now and then: what a client does at once is none of the server's business.
    while not all(each.is_done for each in followed):
        for key, _ in selector.select():
            key.data.take(key.fileobj.recv(1 << 20))  # type: ignore[union-attr]
    late = max(each.late_seconds for each in followed)
    print(json.dumps({"lines": sum(each.lines for each in followed), "late_seconds": late}), flush=True)


class _Follower:
    """Counts the lines of one stream, and sees that none is missing or out of order."""

    def __init__(self) -> None:
        self.lines = 0
        self.late_seconds = 0.0
        self.is_done = False
        self._rest = b""

    def take(self, received: bytes) -> None:
        assert received, f"the stream ended after {self.lines} lines"
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            if line.startswith(b"id: 1.2."):
                self.lines += 1
                assert line.partition(b"~")[0] == b"id: 1.2.%d" % self.lines, line
            elif b"last " in line:
                self.late_seconds = time.time() - float(line.partition(b"last ")[2].partition(b"\\n")[0])
                self.is_done = True


if __name__ == "__main__":
    _follow(*(int(argument) for argument in sys.argv[1:]))
