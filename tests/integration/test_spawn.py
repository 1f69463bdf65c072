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
import gevent, json, os, subprocess, sys, tempfile
from web.spawn import spawner

seconds = float(sys.argv[1])
with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
    environment = {"PATH": os.environ["PATH"], "ONLY": "this"}
    process = spawner()(sys.argv[2:], environment=environment, output=output, complaint=complaint)
    is_leader = os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    while seconds < 1 and not os.fstat(output.fileno()).st_size:
        gevent.sleep(0.01)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        assert process.returncode is None
        os.killpg(process.pid, 9)
        code = process.wait()
    assert process.returncode == process.wait(5) == code
    output.seek(0)
    complaint.seek(0)
    print(json.dumps([code, output.read().decode(), complaint.read().decode(), is_leader]))
"""


def spawned(*command: str, seconds: float = 30) -> Any:
    """What becomes of a program in a process of gevent: code, stdout, stderr, whether it leads a session of its own.

    It is killed after so many seconds; less than one begins when it has printed something.
    """
    script = [sys.executable, "-c", SPAWN, str(seconds), *command]
    done = subprocess.run(script, input="none of its own", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("script", "code", "output", "complaint"),
    [
        ("echo said; echo complained >&2; exit 3", 3, "said\n", "complained\n"),
        ("kill -TERM $$", -15, "", ""),
        ('cat; echo "$ONLY$HOME"', 0, "this\n", ""),
    ],
    ids=["code", "signal", "environment"],
)
def test_it_ends_and_says_as_it_would_elsewhere(script: str, code: int, output: str, complaint: str) -> None:
    assert spawned("sh", "-c", f"sleep 0.1; {script}") == [code, output, complaint, True]


def test_one_that_takes_too_long_is_still_there_to_be_killed() -> None:
    assert spawned("sh", "-c", "echo begins; sleep 600; echo ends", seconds=0.2) == [-9, "begins\n", "", True]


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGXFSZ])
def test_signals_that_python_ignores_end_it(number: signal.Signals) -> None:
    assert spawned("sh", "-c", f"sleep 0.1; kill -{number.value} $$; echo lives")[:2] == [-number, ""]


def test_a_program_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        spawned("no-such-program")
