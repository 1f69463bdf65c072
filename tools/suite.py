"""Runs a suite of tests as CI does: tests that fail are run once more, alone, and those that then pass are flaky.

    python tools/suite.py PYTEST-ARGUMENTS [-- PYTEST-ARGUMENTS]...

The arguments between two ``--`` are those of one run of pytest; the runs follow one another, and the first red one
ends the suite. A run is green where every test passed, or where at most `FLAKY_LIMIT` tests failed and all of them
pass in a second process that has no xdist and no other tests. Such tests are printed behind ``FLAKY:``, because each
is a defect to be mended. Where ``ARGOSY_TEST_FLAKY`` names a file, suites that share it share the limit, too, and each
adds its flaky tests to it, one a line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

FLAKY_LIMIT = 3
"""More failures than this at once are no matter of chance."""
FLAKY_FILE = "ARGOSY_TEST_FLAKY"
SLOWEST = "--durations=10"

_CLOSING = re.compile(rb"^(?:\x1b\[[\d;]*m)*=+ .* in \d[\d.]*s.*$")
"""The last line of pytest's own, such as ``=== 2 failed, 8 passed in 1.25s ===``; coloured at a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line names.

    Returns:
        0 where every run was green; pytest's own exit code of the first one that was not.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    noted = Path(os.environ[FLAKY_FILE]) if os.environ.get(FLAKY_FILE) else None
    flaky = noted.read_text(encoding="utf-8").splitlines() if noted and noted.exists() else []
    mine: list[str] = []
    code = 0
    for run in _runs(words):
        code, passed_later = _run(run, FLAKY_LIMIT - len(flaky) - len(mine))
        mine += passed_later
        if code != 0:
            break
    if noted:
        noted.write_text("".join(f"{name}\n" for name in flaky + mine), encoding="utf-8")
    if code == 0:
        print(f"FLAKY: {' '.join(mine) or 'none'}", flush=True)
    return code


def _runs(words: Sequence[str]) -> list[list[str]]:
    """The arguments of each run of pytest; at least one run, because a suite of none would always be green."""
    runs: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs


def _run(arguments: list[str], allowed: int) -> tuple[int, list[str]]:
    """Runs pytest, and once more what failed.

    Args:
        arguments: Of pytest.
        allowed: How many tests may be flaky.

    Returns:
        The exit code, and the tests that passed only when they were run alone.
    """
    with tempfile.TemporaryDirectory(prefix="argosy-suite-") as folder:
        code, closing = _pytest([SLOWEST, *arguments], Path(folder))
        failed = _failed(Path(folder))
        # Where nothing failed, something else did: the coverage, a plug-in, or there was no test at all.
        if code != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed) <= allowed:
            return code, []
    print(f"\nsuite: {len(failed)} failed; run once more, alone: {' '.join(failed)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="argosy-suite-") as folder:
        code, _ = _pytest(["-p", "no:xdist", *failed], Path(folder))
    print(closing, flush=True)
    return code, failed if code == 0 else []


def _pytest(arguments: list[str], cache: Path) -> tuple[int, str]:
    """Runs pytest, and shows what it prints as it prints it.

    Args:
        arguments: Of pytest.
        cache: A folder for what pytest remembers of this run.

    Returns:
        The exit code and the closing line.
    """
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    if sys.stdout.isatty():
        command.append("--color=yes")
    last = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while piece := os.read(process.stdout.fileno(), 65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            last = (last + piece)[-65536:]
    closing = [line for line in last.splitlines() if _CLOSING.match(line)]
    return process.returncode, closing[-1].decode(errors="replace") if closing else ""


def _failed(cache: Path) -> list[str]:
    """The tests that failed, by their names for pytest; a module that could not be imported counts as one."""
    path = cache / "v" / "cache" / "lastfailed"
    return sorted(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
