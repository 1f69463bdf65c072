"""Click to `ready` for a new commit that needs numpy, pandas and matplotlib, and where each second goes.

Goal (issue 3): 25 s with base image and wheels warm. Two things are measured, because a repository's own layer cache
makes the second one a different race: a commit whose requirements were never installed in that repository (wheels
alone are warm), and one that changes a notebook only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.githost import GitHost
from tests.local.farm import Farm
from tests.visitor import Click, Visitor, git_spec
from workflows.build import BuildStatus

REQUIREMENTS = "numpy\npandas\nmatplotlib\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        githost = GitHost(Path(folder) / "git")
        farm = Farm(Path(folder) / "state", ARGOSY_SCAN_POLICY="report")
        githost.start()
        try:
            farm.start()
            _measure(farm, githost)
        finally:
            farm.stop()
            githost.stop()


def _measure(farm: Farm, githost: GitHost) -> None:
    githost.create("warm/up", {"requirements.txt": REQUIREMENTS})
    _click(farm, githost, "warm/up", "first build of all: everything cold but the base image")
    _wait_until_idle(farm)
    githost.create("bench/new", {"requirements.txt": REQUIREMENTS, "a.ipynb": "{}"})
    _click(farm, githost, "bench/new", "another repository, base image and wheels warm")
    _wait_until_idle(farm)
    githost.commit("bench/new", {"requirements.txt": REQUIREMENTS + "six\n"})
    _click(farm, githost, "bench/new", "a new commit with other requirements, base image and wheels warm (goal: 25 s)")
    _wait_until_idle(farm)
    githost.commit("bench/new", {"a.ipynb": "{}\n"})
    _click(farm, githost, "bench/new", "a new commit with the same requirements, base image, wheels and layers warm")


def _click(farm: Farm, githost: GitHost, name: str, title: str) -> None:
    started, began = time.time(), time.monotonic()
    click = Visitor(farm.url).click(git_spec(f"{githost.url}/{name}"))
    seconds = time.monotonic() - began
    assert click.last["phase"] == "ready", click.log
    print(f"{title}: {seconds:.1f} s")
    for what, length in _breakdown(farm, click, started, seconds):
        print(f"    {what:28} {length:6.1f} s")


def _breakdown(farm: Farm, click: Click, started: float, seconds: float) -> list[tuple[str, float]]:
    status = _status(farm, click.build)
    steps = [(step.name, step.ended - step.started) for step in status.steps if step.name not in {"scan", "warm"}]
    before = [("until the first step", min(step.started for step in status.steps if step.started) - started)]
    between = status.published - started - before[0][1] - sum(length for _, length in steps)
    return [*before, *steps, ("between the steps", between), ("launch", started + seconds - status.published)]


def _status(farm: Farm, build: str) -> BuildStatus:
    return BuildStatus.from_json((farm.state / "builds" / build / "status.json").read_text())


def _wait_until_idle(farm: Farm) -> None:
    """Until scan and warm of the last build have ended too: they would compete for two cores."""
    while any(not _status(farm, folder.name).state.ended for folder in (farm.state / "builds").glob("build-*")):
        time.sleep(0.5)
