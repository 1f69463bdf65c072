"""Which suites a change has to pass before it is called done: the table of CONTRIBUTING, and `make affected`.

    python tools/affected.py [BASE]

Prints the suites for everything that differs from the commit BASE: what is committed since, what is not committed yet,
and files that git does not know. Without BASE it is the branch's upstream, or the last commit where there is none.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TEST, DEEP, FARM, CLUSTER, BENCH = "test", "test-deep", "test-deep-farm", "test-cluster", "bench"
IN_ORDER = (TEST, DEEP, FARM, CLUSTER, BENCH)
EVERYTHING = (TEST, DEEP, CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Files that the same suites are run for.

    Args:
        paths: How their paths begin, or end where one begins with ``*``.
        suites: Targets of the Makefile, in the order in which they are run.
    """

    paths: tuple[str, ...]
    suites: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether a file is one of these."""
        return any(path.endswith(each[1:]) if each.startswith("*") else path.startswith(each) for each in self.paths)


ROOMS = (
    Room(paths=("*.md", "LICENSE", ".gitignore"), suites=(TEST,)),
    Room(paths=("tests/unit/", "tests/integration/", "tests/chart/"), suites=(TEST,)),
    Room(paths=("tests/local/",), suites=(TEST, DEEP)),
    Room(paths=("tests/cluster/",), suites=(TEST, CLUSTER)),
    Room(paths=("tests/benchmarks/",), suites=(TEST, BENCH)),
    Room(paths=("charts/",), suites=(TEST, CLUSTER)),
    Room(paths=("web/routes/", "web/templates/", "web/static/", "web/clicks/"), suites=(TEST, FARM)),
    Room(paths=("web/",), suites=(TEST, FARM, CLUSTER)),
    Room(paths=("workflows/cleaning/",), suites=(TEST, DEEP)),
    Room(paths=("workflows/", "hub-config/", "tools/", "tests/"), suites=EVERYTHING),
    Room(paths=("Makefile", ".ci/", "pyproject.toml", "requirements.lock", ".dockerignore"), suites=EVERYTHING),
)
"""The first room that holds a file counts. Too wide costs minutes; too narrow costs the next developer a day."""


def suites(paths: Iterable[str]) -> list[str]:
    """The suites that a change of these files has to pass, in the order in which they are run.

    Raises:
        LookupError: No room holds a file.
    """
    found = {suite for path in paths for suite in room_of(path).suites}
    if DEEP in found:
        found.discard(FARM)  # half of it
    return [suite for suite in IN_ORDER if suite in found]


def room_of(path: str) -> Room:
    """The room of a file.

    Args:
        path: From the top of the repository.

    Raises:
        LookupError: No room holds it.
    """
    for room in ROOMS:
        if room.holds(path):
            return room
    raise LookupError(f"{path} is in no room: add it to ROOMS of tools/affected.py, and run `make docs`")


def table() -> str:
    """The rooms as a table in Markdown."""
    rows = (f"| {_listed(room.paths)} | {_listed(f'make {suite}' for suite in room.suites)} |\n" for room in ROOMS)
    return "| change in | run |\n|---|---|\n" + "".join(rows)


def changed(base: str) -> list[str]:
    """Files that differ from a commit, and files that git neither knows nor ignores."""
    unknown = _git("ls-files", "--others", "--exclude-standard")
    return sorted({*_git("diff", "--name-only", "--no-renames", base), *unknown})


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the suites, one command a line."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    base = words[0] if words else _upstream()
    paths = changed(base)
    print(f"{len(paths)} files differ from {base}", file=sys.stderr)
    for suite in suites(paths):
        print(f"make {suite}")
    return 0


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _upstream() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--abbrev-ref", "@{upstream}"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "HEAD"


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
