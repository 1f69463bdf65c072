"""Workflows that do nothing, by an installed web: how many end in a minute, and what of its CPU they take.

Goal (issue 5): figures. The steps are scripted ones that end at once; queue, watch, filing and Argo are the real ones.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from tests.cluster import images
from tests.cluster.farm import Farm, farm
from tests.cluster.namespace import kubectl
from tests.cluster.replica import wish
from workflows.engines.argo import order

WORKFLOWS, AT_ONCE = 60, 8
_TICKS_SECOND = 100

_CPU = "import glob; print(sum(sum(map(int, open(p).read().rpartition(')')[2].split()[11:13])) for p in glob.glob('/proc/[0-9]*/stat')))"  # noqa: E501  # one line, because it is an argument


def main() -> None:
    script = images.scripted()
    limits = {"limits__builds": AT_ONCE, "limits__buildsPerOwner": AT_ONCE}
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        given = {"images__steps": script, "images__builder": script} | limits
        with farm("bench-flow", Path(folder), **given) as made:
            _measure(made)


def _measure(made: Farm) -> None:
    builds = made.release.builds
    events = Path(tempfile.mkstemp(prefix="argosy-bench-events-")[1])
    watch = ["kubectl", "get", "workflows", "--namespace", builds.name, "--watch", "--output=name"]
    with events.open("w") as output, subprocess.Popen(watch, stdout=output) as watching:
        cpu, began = _cpu(made), time.monotonic()
        builds.create(
            *(order.workflow(wish(number), made.release.current(), time.time()) for number in range(WORKFLOWS))
        )
        while (left := _left(made)) and time.monotonic() - began < 600:
            time.sleep(1)
        seconds, used = time.monotonic() - began, _cpu(made) - cpu
        watching.terminate()
    seen = len(events.read_text().splitlines())
    events.unlink()
    assert not left, made.logs()
    print(
        f"{WORKFLOWS} Workflows of two pods, {AT_ONCE} at a time: {seconds:.0f} s,"
        f" {WORKFLOWS / seconds * 60:.0f} a minute"
    )
    print(f"{seen} events of Workflows; CPU of web: {used:.1f} s, {used / seen * 1000:.1f} s for 1,000 of them")


def _left(made: Farm) -> int:
    """Workflows that have not ended, or that web has not recorded yet."""
    found = made.release.builds.list("workflows", "argosy/pipeline=true,argosy/recorded!=true")
    return len(found)


def _cpu(made: Farm) -> float:
    """Seconds of CPU that all processes of web's pod have had."""
    (pod,) = made.replicas
    said = kubectl("exec", pod, "--namespace", made.release.web.name, "--", "python", "-I", "-c", _CPU)
    return int(json.loads(said)) / _TICKS_SECOND
