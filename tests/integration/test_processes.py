"""What `make run` starts, and starts again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.farm import eventually
from tests.processes import lives
from tools.processes import Component, Processes
from workflows.errors import ConfigError

SAYS_WHO_IT_IS = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
print("began", flush=True)
time.sleep(600)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path / "log")
    yield made
    made.stop()


def component(name: str, mark: Path, code: str = SAYS_WHO_IT_IS) -> Component:
    def is_ready() -> bool:
        return mark.exists() and bool(mark.read_text())

    return Component(name=name, command=[sys.executable, "-c", code, str(mark)], is_ready=is_ready)


def start(processes: Processes, each: Component) -> None:
    processes.start(each, timeout_seconds=20, is_over=lambda: False)


def pids(mark: Path) -> list[int]:
    return [int(pid) for pid in mark.read_text().split()]


def revived(processes: Processes) -> list[str]:
    """What is started again, once something has ended."""
    found: list[str] = eventually(processes.revive)
    return found


def test_what_is_killed_is_started_again_without_what_it_left_and_nothing_else_is(
    processes: Processes, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    start(processes, component("first", first))
    start(processes, component("second", second))
    before, untouched = pids(first), pids(second)
    assert processes.revive() == []
    os.kill(before[0], signal.SIGKILL)
    assert revived(processes) == ["first"]
    eventually(lambda: first.read_text() and pids(first) != before)
    assert not any(lives(pid) for pid in before)
    assert all(lives(pid) for pid in (*pids(first), *untouched))
    assert pids(second) == untouched
    eventually(lambda: (tmp_path / "log" / "first.log").read_text().splitlines() == ["began"] * 2)
    everybody = [*pids(first), *pids(second)]
    processes.stop()
    eventually(lambda: not any(lives(pid) for pid in everybody))


def test_what_ends_again_and_again_is_given_up_and_its_log_says_why(processes: Processes, tmp_path: Path) -> None:
    says = "import sys, time; print('no such file', flush=True); open(sys.argv[1], 'a').write('x')"
    code = f"{says}; time.sleep(0.3); sys.exit(3)"
    mark = tmp_path / "mark"
    with pytest.raises(ConfigError, match=r"loop has ended 6 times .exit code 3.*\n.*no such file"):
        start_and_revive(processes, component("loop", mark, code))
    assert mark.read_text() == "x" * 6


def start_and_revive(processes: Processes, each: Component) -> None:
    start(processes, each)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        processes.revive()
        time.sleep(0.02)
