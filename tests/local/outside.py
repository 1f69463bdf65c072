"""A world beside this machine: a network namespace behind an uplink of its own, with a metadata service in it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.registries import wait_until

NEAR, FAR, METADATA = "198.51.100.1", "198.51.100.2", "169.254.169.254"
PORT = 8080
SECRET = "credentials of this machine's role"

_SERVER = f"""
import pathlib, socket, sys, threading
folder = pathlib.Path(sys.argv[1])
def note(kind, peer):
    with (folder / "seen").open("a") as seen:
        seen.write(f"{{kind}} {{peer[0]}}\\n")
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.bind(("0.0.0.0", {PORT}))
def datagrams():
    while True:
        note("udp", datagram.recvfrom(100)[1])
threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("0.0.0.0", {PORT}))
(folder / "ready").touch()
while True:
    connection, peer = server.accept()
    note("tcp " + connection.getsockname()[0], peer)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n{SECRET}\\n")
    connection.close()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is there, and what reached it.

    Args:
        folder: Where its server notes who came.
    """

    folder: Path

    def seen(self) -> list[str]:
        """Who came, as ``udp <source>`` and ``tcp <address asked> <source>``."""
        path = self.folder / "seen"
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    """The world, as a second default route that this machine never prefers."""
    with ExitStack() as stack:
        _ip(stack, "netns add argosy-test", "netns delete argosy-test")
        _ip(stack, "link add argosytest0 type veth peer name eth0 netns argosy-test", "link delete argosytest0")
        _ip(stack, f"address add {NEAR}/30 dev argosytest0")
        _ip(stack, "link set argosytest0 up")
        for inside in ("link set lo up", f"address add {FAR}/30 dev eth0", f"address add {METADATA}/32 dev lo",
                       "link set eth0 up", f"route add default via {NEAR}"):  # fmt: skip
            _ip(stack, f"-n argosy-test {inside}")
        _ip(stack, f"route add {METADATA}/32 via {FAR} dev argosytest0")
        # What makes it an uplink in the eyes of the firewall.
        _ip(stack, f"route add default via {FAR} dev argosytest0 metric 9999")
        command = ["ip", "netns", "exec", "argosy-test", sys.executable, "-c", textwrap.dedent(_SERVER), str(folder)]
        server = stack.enter_context(subprocess.Popen(command))
        stack.callback(server.kill)
        wait_until((folder / "ready").exists, server)
        yield Outside(folder=folder)


def _ip(stack: ExitStack, command: str, undo: str = "") -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    if undo:
        stack.callback(subprocess.run, ["ip", *undo.split()], check=False, capture_output=True)
