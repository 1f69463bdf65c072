"""The step runner against real processes: how each step ends, and that nothing outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.processes import lives

_SCRIPT = """
import os, re, subprocess, sys, time, signal
from workflows.errors import *
from workflows.run.supervisor import Limits, Supervisor
def step():
{body}
limits = dict(seconds=20, silent_seconds=20, max_log_bytes=1 << 20, backoff_seconds=0.05, grace_seconds=0.5)
os._exit(Supervisor(Limits(**(limits | {limits}))).run(step))
"""


def start(body: str, **limits: float) -> subprocess.Popen[bytes]:
    script = _SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    "), limits=limits)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def run(body: str, **limits: float) -> tuple[int, str, str]:
    process = start(body, **limits)
    out, err = process.communicate(timeout=40)
    return process.returncode, out.decode(), err.decode()


def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    for _ in range(100):
        if not lives(pid):
            return True
        time.sleep(0.05)
    return False


def wait_for(path: Path) -> int:
    for _ in range(200):
        if path.exists() and path.read_text(encoding="utf-8"):
            return int(path.read_text(encoding="utf-8"))
        time.sleep(0.05)
    raise AssertionError(f"{path} was never written")


DAEMON = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open({path!r}, "w").write(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not os.path.exists({path!r}): time.sleep(0.01)
"""


def test_a_good_step_ends_with_0_and_its_lines():
    assert run("print('one'); os.system('echo two >&2')") == (0, "one\ntwo\n", "")


def test_a_step_whose_log_is_a_file_writes_to_it(tmp_path: Path):
    script = _SCRIPT.format(body="    print('one'); os.system('echo two')", limits={})
    with (tmp_path / "log").open("ab") as log:
        subprocess.run([sys.executable, "-I", "-c", script], stdout=log, stderr=log, check=True)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "one\ntwo\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [("BuildError", 10), ("NotFoundError", 66), ("TooLargeError", 67), ("PolicyError", 77), ("ConfigError", 78)],
)
def test_an_error_of_ours_ends_with_its_code_and_its_sentence_last(error: str, code: int):
    got, out, err = run(f"print('line'); raise {error}('What to do.', detail='secret path')")
    assert (got, out) == (code, "line\nWhat to do.\n")
    assert "[operator] WARNING" in err
    assert "secret path" in err


def test_the_sentence_of_a_failure_is_left_where_kubernetes_looks_for_it(tmp_path: Path):
    notice = tmp_path / "termination-log"
    notice.write_text("what an earlier try left, and a good deal longer than what comes")
    script = _SCRIPT.format(body='    raise NotFoundError("No such thing.")', limits={}).replace(
        "Supervisor(", f"functools.partial(Supervisor, notice=Path({str(notice)!r}))("
    )
    script = f"import functools\nfrom pathlib import Path\n{script}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (66, "No such thing.\n")
    assert notice.read_text() == "No such thing."


def test_an_unforeseen_exception_is_internal_and_its_traceback_is_the_operators():
    code, out, err = run("raise ValueError('token=abc')")
    assert code == 70
    assert "abc" not in out
    assert all(line.startswith("[operator] ") for line in err.splitlines())
    assert "ValueError: token=abc" in err


def test_a_full_disk_is_transient():
    code, out, _ = run("raise OSError(28, 'No space left on device')", tries=1)
    assert code == 75
    assert "disk" in out


def test_a_transient_end_is_tried_again_and_told():
    code, out, _ = run("""
        path = f"/tmp/argosy-try-{os.getppid()}"
        first = not os.path.exists(path)
        open(path, "a").close()
        if first: raise TransientError("The registry is away.")
        os.unlink(path)
        print("done")
    """)
    assert (code, out) == (0, "Try 1 of 3: The registry is away. Next try in 0.05 s.\ndone\n")


def test_a_transient_end_is_given_up_after_three_tries():
    code, out, _ = run("print('try'); raise TransientError('Away.')")
    assert code == 75
    assert out.splitlines().count("try") == 3
    assert out.endswith("try\nAway.\n")


def test_other_ends_are_not_tried_again():
    assert run("print('try'); raise BuildError('No.')") == (10, "try\nNo.\n", "")


def test_a_step_over_its_time_is_ended_with_its_grandchildren(tmp_path: Path):
    path = str(tmp_path / "pid")
    code, out, _ = run(f"{DAEMON.format(path=path)}\n    while True: print('.'); time.sleep(0.05)", seconds=1.5)
    assert code == 72
    assert out.endswith("The build took longer than this service allows.\n")
    assert gone(wait_for(Path(path)))


def test_a_silent_step_is_ended():
    code, out, _ = run("print('hello'); time.sleep(600)", silent_seconds=3)
    assert code == 73
    assert out.startswith("hello\n")


def test_a_step_that_closes_its_output_counts_as_silent():
    assert run("os.close(1); os.close(2); time.sleep(600)", silent_seconds=0.5)[0] == 73


def test_what_a_good_step_leaves_behind_is_ended_though_it_ignores_sigterm(tmp_path: Path):
    path = tmp_path / "pid"
    code, _, _ = run(DAEMON.format(path=str(path)))
    assert code == 0
    assert gone(wait_for(path))


def test_what_a_step_leaves_behind_cannot_hold_it_up_by_writing():
    assert run("subprocess.Popen(['yes'])\ntime.sleep(0.2)", seconds=15)[0] == 0


def test_a_fork_bomb_is_ended():
    code, _, _ = run(
        """
        for _ in range(30):
            subprocess.Popen(["sh", "-c", "trap '' TERM; for i in 1 2 3; do sleep 600 & done; wait"])
        time.sleep(600)
        """,
        seconds=1,
    )
    assert code == 72


def test_sigterm_ends_the_whole_tree(tmp_path: Path):
    path = tmp_path / "pid"
    process = start(f"{DAEMON.format(path=str(path))}\n    time.sleep(600)")
    pid = wait_for(path)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 75
    assert out == b"The service ended this step before it was done.\n"
    assert gone(pid)


def test_a_step_whose_runner_is_killed_ends(tmp_path: Path):
    path = tmp_path / "pid"
    process = start(f"open({str(path)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    pid = wait_for(path)
    process.kill()
    process.communicate(timeout=20)
    assert gone(pid)


def test_a_step_that_somebody_kills_is_tried_again():
    code, out, _ = run("print('try'); os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 75
    assert out.splitlines().count("try") == 3


def test_a_crash_of_the_step_is_internal():
    assert run("os.kill(os.getpid(), signal.SIGSEGV)")[0] == 70
    assert run("os._exit(3)")[0] == 70


def test_a_million_lines_keep_head_and_tail_and_say_so():
    code, out, _ = run(
        "sys.stdout.reconfigure(line_buffering=False)\nfor n in range(1_000_000): print(n)", max_log_bytes=64 * 1024
    )
    lines = out.splitlines()
    assert code == 0
    assert lines[:3] == ["0", "1", "2"]
    assert lines[-1] == "999999"
    assert len(out) < 66 * 1024
    assert any("are left out here" in line for line in lines)


def test_a_line_of_100_megabytes_stays_within_bounded_memory():
    # The step reads the high-water mark of its supervisor: the parent's own rusage counts what pytest had at the fork.
    code, out, _ = run(
        "for _ in range(1600): sys.stdout.write('x' * 65536)\n"
        "print(flush=True)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open(f'/proc/{os.getppid()}/status').read())[1])"
    )
    lines = out.splitlines()
    assert code == 0
    assert lines[-2].endswith("bytes of this line are left out]")
    assert len(out) < 300_000
    assert int(lines[-1]) < 60_000  # kB


def test_a_step_whose_engine_is_killed_ends_with_its_grandchildren(tmp_path: Path):
    path, runner = tmp_path / "pid", tmp_path / "runner"
    body = f"{DAEMON.format(path=str(path))}\n    time.sleep(600)"
    script = _SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    "), limits={})
    # What stands between the two is an engine that is killed and can end nothing.
    engine = f"""
import subprocess, sys, time
open({str(runner)!r}, "w").write(str(subprocess.Popen([sys.executable, "-I", "-c", {script!r}]).pid))
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", engine], stdout=subprocess.DEVNULL)
    pid = wait_for(path)
    process.kill()
    process.wait()
    assert gone(pid)
    assert gone(wait_for(runner))
