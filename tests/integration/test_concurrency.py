"""Waiting under gevent: what comes after silence is told at once, what comes thick and fast is gathered."""

from __future__ import annotations

import json
import subprocess
import sys

RELAYED = """
from gevent import monkey; monkey.patch_all()
import json, time
from web import concurrency
concurrency.GATHER_SECONDS = 5

def items():
    time.sleep(0.2)
    for number in range(4):
        yield number
        time.sleep(1 if number == 0 else 0.05)

print(json.dumps([each for each in concurrency.relay(items(), idle_seconds=60, is_native=False) if each]))
"""


def test_the_first_item_is_told_at_once_and_those_that_follow_are_gathered() -> None:
    done = subprocess.run([sys.executable, "-c", RELAYED], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0], [1, 2, 3]]
