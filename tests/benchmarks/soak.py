"""``make soak``: clicks, builds, failures and leavings for a set time, then what of the farm is not flat.

The farm is the one that `make run` starts, with limits so small that they are reached within minutes. It is measured
after a warm-up and again at the end, each time when nothing has been going on for a while.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests

from tests.benchmarks.measure import LIMITS, Measured, compare, measure
from tests.githost import GitHost
from tests.local.farm import Farm
from tests.visitor import Visitor, git_spec

SECONDS = 300
WARM_SECONDS = 60
QUIET_SECONDS = 150
"""Until servers that nobody uses are culled, builds are filed and a round of cleaning has passed."""

PAUSE_SECONDS = 1.0
SMALL = "FROM localhost/argosy/base:bookworm\nRUN head -c 5000000 /dev/urandom > /data\n"
BROKEN = "FROM localhost/argosy/base:bookworm\nRUN echo it does not build; exit 1\n"
SLOW = "FROM localhost/argosy/base:bookworm\nRUN echo begins; sleep 5\n"


class Town:
    """Those who use a farm, each kind in a thread of its own, and what came of it."""

    def __init__(self, farm: Farm, githost: GitHost) -> None:
        self.count: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._farm = farm
        self._visitor = Visitor(farm.url)
        self._githost = githost
        self._numbers = itertools.count()
        self._chance = random.Random(5)
        self._is_over = threading.Event()

    def live(self, seconds: float) -> None:
        """For so long everybody does what they do."""
        self._is_over.clear()
        kinds = (self.launch, self.build, self.fail, self.ask_for_nothing, self.leave)
        people = [threading.Thread(target=self._go_on, args=(kind,)) for kind in kinds]
        for each in people:
            each.start()
        self._is_over.wait(seconds)
        self._is_over.set()
        for each in people:
            each.join()

    def _go_on(self, kind: Callable[[], None]) -> None:
        while not self._is_over.wait(PAUSE_SECONDS):
            try:
                kind()
                self.count[kind.__name__] += 1
            except (AssertionError, requests.RequestException) as error:
                self.wrong.append(f"{kind.__name__}: {error!r}"[:2000])

    def launch(self) -> None:
        """A known image, used once and left to the culler."""
        ready = self._end("soak/known", "ready")
        headers = {"Authorization": f"token {ready['token']}"}
        requests.get(f"{ready['url']}api/status", headers=headers, timeout=30).raise_for_status()

    def build(self) -> None:
        """A repository that is new."""
        self._end(self._new("build", SMALL), "ready", build_only=True)

    def fail(self) -> None:
        """One that does not build."""
        assert self._end(self._new("fail", BROKEN), "failed", build_only=True)["reason"] == "build"

    def ask_for_nothing(self) -> None:
        """One that does not exist."""
        assert self._end("soak/nothing", "failed")["reason"] == "not-found"

    def leave(self) -> None:
        """After some events of a build or of a launch."""
        name = self._chance.choice(("soak/known", self._new("leave", SLOW)))
        with closing(self._visitor.stream(self._path(name))) as stream:
            for _ in zip(range(self._chance.randrange(1, 12)), stream, strict=False):
                pass

    def _new(self, kind: str, dockerfile: str) -> str:
        name = f"soak/{kind}{next(self._numbers)}"
        self._githost.create(name, {"Dockerfile": dockerfile, "README.md": name})
        return name

    def _path(self, name: str) -> str:
        return git_spec(f"{self._githost.url}/{name}")

    def _end(self, name: str, phase: str, *, build_only: bool = False) -> dict[str, str]:
        click = self._visitor.click(self._path(name), build_only=build_only)
        assert click.last["phase"] == phase, click.log
        return click.last


def main() -> None:
    """Runs it.

    Raises:
        SystemExit: Something is not flat, or went otherwise than it should.
    """
    seconds = float(os.environ.get("ARGOSY_SOAK_SECONDS") or SECONDS)
    with _farm() as (farm, githost):
        town = Town(farm, githost)
        town.live(min(WARM_SECONDS, seconds))
        before = _quiet(farm)
        town.count.clear()
        town.live(seconds)
        after = _quiet(farm)
    print(f"In {seconds:.0f} s: " + ", ".join(f"{count} times {kind}" for kind, count in sorted(town.count.items())))
    for each in town.wrong:
        print(f"went wrong: {each}")
    growing = compare(before, after)
    if town.wrong or growing:
        sys.exit(f"not flat: {', '.join(growing)}" if growing else "something went wrong")
    print("flat")


@contextmanager
def _farm() -> Iterator[tuple[Farm, GitHost]]:
    with tempfile.TemporaryDirectory(prefix="argosy-soak-") as folder:
        githost = GitHost(Path(folder) / "git").start()
        limits = {f"ARGOSY_{name.upper()}": str(limit) for name, limit in LIMITS.items()}
        farm = Farm(Path(folder) / "state", ARGOSY_CLEAN_EVERY_SECONDS="15", ARGOSY_VISITOR_IDLE_SECONDS="20", **limits)
        try:
            farm.start()
            githost.create("soak/known", {"requirements.txt": "six==1.17.0\n"})
            yield farm, githost
        finally:
            farm.stop()
            githost.stop()


def _quiet(farm: Farm) -> list[Measured]:
    """What there is once nothing is going on any more."""
    deadline = time.monotonic() + QUIET_SECONDS
    while (farm.users() or farm.servers()) and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(45)
    return measure(farm)


if __name__ == "__main__":
    main()
