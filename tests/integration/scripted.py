"""The real server process with a scripted engine: one build, whose log begins when a file appears.

``python -m tests.integration.scripted FOLDER PORT LINES LINES_PER_SECOND`` serves until it is told to end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from web.server import Server, connections
from workflows.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

SPEC = "gh/binder-examples/requirements/main"
START_SECONDS = 30


def start(folder: Path, port: int, *, lines: int, lines_per_second: float) -> subprocess.Popen[bytes]:
    """The server as a process of its own, once it answers. Its build speaks when ``folder/go`` appears.

    It publishes when ``folder/publish`` appears.
    """
    command = [sys.executable, "-m", __name__, str(folder), str(port), str(lines), str(lines_per_second)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if server.poll() is not None or time.monotonic() > deadline:
            stop(server)
            raise AssertionError((folder / "server.log").read_text())
        time.sleep(0.1)
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    """End it."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    server.wait(30)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /versions HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b"200")
    except OSError:
        return False


def serve(folder: Path, port: int, lines: int, lines_per_second: float) -> None:
    def make(settings: Settings) -> Flask:
        # In the worker: gevent patches it before anything that uses the network is loaded.
        from tests.integration.script import application  # noqa: PLC0415

        return application(settings, lines, lines_per_second)

    Server(Settings(state=folder, port=port, keep_alive_seconds=5), connections(), make).run()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
