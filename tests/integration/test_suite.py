"""`tools/suite.py`, with real suites of a few tests: what is tried once more, and what makes it red all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.suite import FLAKY_FILE, FLAKY_LIMIT

SUITE = Path(__file__).resolve().parents[2] / "tools" / "suite.py"

PASSES = "def test_that_passes():\n    pass\n"
FAILS = "def test_that_fails():\n    assert False\n"
ONCE = """
from pathlib import Path
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_that_fails_once(number):
    mark = Path("mark-{name}-" + str(number))
    is_first = not mark.exists()
    mark.touch()
    assert not is_first
"""


@dataclass
class Suite:
    """A folder of tests, and how its suite ended."""

    folder: Path
    code: int = -1
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        (self.folder / "pytest.ini").write_text("[pytest]\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / f"test_{name}.py").write_text(text)

    def write_flaky(self, name: str, count: int = 1) -> None:
        self.write(name, ONCE.format(name=name, count=count))

    def run(self, *arguments: str, noted: Path | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != FLAKY_FILE}
        done = subprocess.run(
            [sys.executable, SUITE, *arguments],
            cwd=self.folder,
            env=environment | ({FLAKY_FILE: str(noted)} if noted else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        self.code, self.lines = done.returncode, tuple(done.stdout.splitlines())

    @property
    def closings(self) -> list[str]:
        """What pytest's closing lines count."""
        return [
            line.strip("= ").rpartition(" in ")[0] for line in self.lines if line.startswith("=") and " in " in line
        ]

    @property
    def runs(self) -> int:
        return sum("test session starts" in line for line in self.lines)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def test_a_suite_that_passes_is_run_once_and_nothing_of_it_is_flaky(suite: Suite) -> None:
    suite.write("good", PASSES)
    suite.run("-n", "2")
    assert (suite.code, suite.runs, suite.lines[-1]) == (0, 1, "FLAKY: none")


def test_what_fails_once_passes_alone_and_is_named(suite: Suite) -> None:
    suite.write("good", PASSES)
    suite.write_flaky("loose")
    suite.run("-n", "2")
    assert (suite.code, suite.runs) == (0, 2)
    # The first run's closing line comes again, after the second one's.
    assert suite.closings == ["1 failed, 1 passed", "1 passed", "1 failed, 1 passed"]
    assert suite.lines[-1] == "FLAKY: test_loose.py::test_that_fails_once[0]"


def test_what_fails_again_is_red(suite: Suite) -> None:
    suite.write("bad", FAILS)
    suite.write_flaky("loose")
    suite.run()
    assert (suite.code, suite.runs) == (pytest.ExitCode.TESTS_FAILED, 2)
    assert "FLAKY" not in suite.lines[-1]


def test_more_than_a_few_failures_are_not_tried_again(suite: Suite) -> None:
    suite.write_flaky("loose", FLAKY_LIMIT + 1)
    suite.run()
    assert (suite.code, suite.runs) == (pytest.ExitCode.TESTS_FAILED, 1)


def test_all_runs_of_a_suite_share_one_limit_and_the_first_red_one_is_the_last(suite: Suite) -> None:
    suite.write_flaky("first", 2)
    suite.write_flaky("second", FLAKY_LIMIT - 1)
    suite.write("third", PASSES)
    suite.run("test_first.py", "--", "test_second.py", "--", "test_third.py")
    assert (suite.code, suite.runs) == (pytest.ExitCode.TESTS_FAILED, 3)
    assert suite.closings[-1] == f"{FLAKY_LIMIT - 1} failed"


def test_suites_that_share_a_file_share_the_limit_too(suite: Suite, tmp_path: Path) -> None:
    noted = tmp_path / "flaky"
    suite.write_flaky("first", 2)
    suite.write_flaky("second", FLAKY_LIMIT - 1)
    suite.run("test_first.py", noted=noted)
    assert suite.code == 0
    assert noted.read_text().splitlines() == [f"test_first.py::test_that_fails_once[{number}]" for number in range(2)]
    suite.run("test_second.py", noted=noted)
    assert suite.code == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-k", "none_of_them"], pytest.ExitCode.NO_TESTS_COLLECTED),
        (["no_such_file.py"], pytest.ExitCode.USAGE_ERROR),
        (["--cov", "--cov-fail-under=101"], pytest.ExitCode.USAGE_ERROR),
        (["--cov=test_good", "--cov-fail-under=100"], pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_a_run_that_is_red_without_a_failed_test_is_red(suite: Suite, arguments: list[str], code: int) -> None:
    suite.write("good", f"{PASSES}def never():\n    pass\n")
    suite.run(*arguments)
    assert (suite.code, suite.runs) == (code, 1 if code != pytest.ExitCode.USAGE_ERROR else suite.runs)


def test_a_module_that_cannot_be_imported_is_red(suite: Suite) -> None:
    suite.write("broken", "import argosy_no_such_module\n")
    suite.run()
    assert suite.code == pytest.ExitCode.INTERRUPTED
