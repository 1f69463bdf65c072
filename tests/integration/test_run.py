"""What `make run` says, in one line, where something is in the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tools.farm import free_ports

ROOT = Path(__file__).resolve().parents[2]


def run(state: Path, *around: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
    web, hub = free_ports(2)
    environment |= {
        "ARGOSY_STATE": str(state),
        "ARGOSY_PORT": str(web),
        "ARGOSY_HUB_URL": f"http://127.0.0.1:{hub}/",
    }
    command = [*around, sys.executable, str(ROOT / "tools" / "run.py")]
    return subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("who", "setting", "value", "advice"),
    [
        ("web", "ARGOSY_PORT", "{}", "set another ARGOSY_PORT."),
        ("the Hub", "ARGOSY_HUB_URL", "http://127.0.0.1:{}/", "set another ARGOSY_HUB_URL and ARGOSY_HUB_API_URL."),
    ],
)
def test_a_port_that_is_taken_is_told_with_whose_it_is_and_what_to_set(
    tmp_path: Path, who: str, setting: str, value: str, advice: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path / "state", **{setting: value.format(port)})
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"Port {port}, on which {who} should listen, is taken by process {os.getpid()} (")
    assert line.endswith(advice)


def test_whoever_is_not_root_is_told_so_before_anything_is_made(tmp_path: Path) -> None:
    done = run(tmp_path / "state", "unshare", "--user")
    assert done.returncode == 1
    assert done.stdout == "Builds run behind walls that only root can make: sudo make run\n"
    assert not (tmp_path / "state").exists()
