"""Programs that a server of gevent starts: to whoever waits for them, as those that ``subprocess`` starts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

SPAWN = """
from gevent import monkey; monkey.patch_all()
import json, os, subprocess, sys, tempfile
from web.spawn import spawner

with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
    environment = {"PATH": os.environ["PATH"], "ONLY": "this"}
    process = spawner()(sys.argv[1:], environment=environment, output=output, complaint=complaint)
    is_leader = os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    try:
        code = process.wait(10)
    except subprocess.TimeoutExpired:
        assert process.returncode is None
        os.killpg(process.pid, 9)
        code = process.wait()
    assert process.returncode == process.wait(5) == code
    output.seek(0)
    complaint.seek(0)
    print(json.dumps([code, output.read().decode(), complaint.read().decode(), is_leader]))
"""


def spawned(*command: str) -> Any:
    """What becomes of a program in a process of gevent: code, stdout, stderr, whether it leads a session of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SPAWN, *command], input="none of its own", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("script", "code", "output", "complaint"),
    [
        ("echo said; echo complained >&2; exit 3", 3, "said\n", "complained\n"),
        ("kill -TERM $$", -15, "", ""),
        ("echo begins; sleep 600; echo ends", -9, "begins\n", ""),
        ('cat; echo "$ONLY$HOME"', 0, "this\n", ""),
    ],
    ids=["code", "signal", "too long", "environment"],
)
def test_it_ends_and_says_as_it_would_elsewhere(script: str, code: int, output: str, complaint: str) -> None:
    assert spawned("sh", "-c", f"sleep 0.1; {script}") == [code, output, complaint, True]


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGXFSZ])
def test_signals_that_python_ignores_end_it(number: signal.Signals) -> None:
    assert spawned("sh", "-c", f"sleep 0.1; kill -{number.value} $$; echo lives")[:2] == [-number, ""]


def test_a_program_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        spawned("no-such-program")
