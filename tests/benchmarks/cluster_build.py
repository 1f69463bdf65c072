"""A build on a cluster, where each second goes; and click to `ready` of numpy, pandas and matplotlib.

Goals (issue 5): at most 6 s beyond the steps' own times; 4 s from submit to the first line of the log at the client.
"""

from __future__ import annotations

import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.cluster.farm import Farm, farm
from tests.cluster.namespace import eventually, kubectl
from tests.visitor import Visitor, git_spec
from workflows.engines.argo import order

NOTHING = {"Dockerfile": "FROM localhost/argosy/base:bookworm\nRUN true\n"}
LARGE = {"requirements.txt": "numpy\npandas\nmatplotlib\n"}
STEPS = {"strangers": ("fetch", "build", "stage"), "ours": ("push", "publish", "scan", "attach")}
UNTIL_PUBLISHED = ("fetch", "build", "stage", "push", "publish")
ROUNDS = 3

_STAMP = re.compile(r"^(\S+?)(\.\d+)?Z ")


class Span(NamedTuple):
    """From when to when something went on, in seconds since the epoch."""

    began: float
    ended: float


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder, farm("bench", Path(folder)) as made:
        made.githost.create("bench/nothing", NOTHING)
        for number in range(1 + ROUNDS):
            made.githost.commit("bench/nothing", {"round": str(number)})
            _measure(made, "bench/nothing", "the first build: images are pulled" if not number else f"build {number}")
        made.githost.create("bench/large", LARGE)
        _measure(made, "bench/large", "numpy, pandas and matplotlib, click to ready", is_build_only=False)
        made.githost.commit("bench/large", {"a.ipynb": "{}"})
        _measure(made, "bench/large", "a new commit with the same requirements, click to ready", is_build_only=False)


def _measure(made: Farm, name: str, title: str, *, is_build_only: bool = True) -> None:
    query = "?build_only=true" if is_build_only else ""
    began, heard, build = time.time(), dict[str, float](), ""
    for _, event in Visitor(made.url).stream(git_spec(f"{made.githost.url}/{name}", "HEAD") + query):
        kind = "line" if event.get("step") else str(event.get("phase"))
        heard.setdefault(kind, time.time())
        build = build or str(event.get("build", ""))
        if event.get("phase") in {"ready", "failed"}:
            assert event["phase"] == "ready", event
            break
    workflow = eventually(lambda: _filed(made, build), seconds=120, what=made.logs)
    notes = workflow["metadata"]["annotations"]
    created, admitted = float(notes[order.CREATED]), float(notes[order.ADMITTED])
    steps = _steps(made, build)
    own = sum(span.ended - span.began for step, span in steps.items() if step in UNTIL_PUBLISHED)
    published = steps["publish"].ended
    print(f"{title}: {heard['ready'] - began:.1f} s at the client")
    print(f"    submit to the first line at the client: {heard['line'] - created:.1f} s (goal: 4)")
    beyond = f"{own:.1f} s are the steps' own, {published - created - own:.1f} s are not (goal: 6)"
    print(f"    submit to published: {published - created:.1f} s, of which {beyond}:")
    _print("click to submit", began, created)
    _print("in the queue", created, admitted)
    _print("a pod for the strangers' half", admitted, steps["fetch"].began)
    _print("a pod for our half", steps["stage"].ended, steps["push"].began)
    _print("until the client knows", published, heard.get("built", heard["ready"]))
    for step, span in steps.items():
        _print(f"step {step}", *span)


def _print(what: str, began: float, ended: float) -> None:
    print(f"    {what:34} {ended - began:6.1f} s", flush=True)


def _filed(made: Farm, build: str) -> dict[str, object] | None:
    found = made.release.builds.get("workflow", build)
    return found if found["metadata"]["labels"].get("argosy/recorded") == "true" else None


def _steps(made: Farm, build: str) -> dict[str, Span]:
    """When each step ended, by what Argo's program says in its container, and began: when the one before had ended."""
    found: dict[str, Span] = {}
    for half, steps in STEPS.items():
        pods = made.release.builds.list("pods", f"workflows.argoproj.io/workflow={build},argosy/half={half}")
        said = {step: _said(made, pods[0]["metadata"]["name"], step) for step in steps}
        began = min(at for lines in said.values() for at, _ in lines)
        for step in steps:
            ended = next(at for at, text in said[step] if "sub-process exited" in text)
            found[step] = Span(began, ended)
            began = ended
    return found


def _said(made: Farm, pod: str, step: str) -> list[tuple[float, str]]:
    text = kubectl("logs", pod, "--container", step, "--timestamps", "--namespace", made.release.builds.name)
    return [(_seconds(line), line) for line in text.splitlines() if _STAMP.match(line)]


def _seconds(line: str) -> float:
    whole, fraction = _STAMP.match(line).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(fraction or 0)
