"""Helm as the tests of the chart use it: what it renders, and what it says where it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "argosy"
CI = sorted((CHART / "ci").glob("*.yaml"))
LEAST = CHART / "ci" / "one-replica.yaml"

TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argosy" / "bin"

Object = dict[str, Any]


def helm(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Helm's answer; it is on the PATH, or where ``make chart-tools`` puts it."""
    path = os.pathsep.join((str(TOOLS), os.environ["PATH"]))
    program = shutil.which("helm", path=path)
    assert program, "Helm is not installed: make chart-tools"
    return subprocess.run([program, *arguments], input=given, capture_output=True, text=True, check=False)


def render(values: Path = LEAST, **changes: Any) -> list[Object]:
    """The objects that the chart makes of a file of values and of changes to it, ``web__replicas=2``."""
    return [each for each in yaml.safe_load_all(text(values, **changes)) if each]


def text(values: Path = LEAST, **changes: Any) -> str:
    """The same as Helm writes it."""
    done = _template(values, **changes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: Path = LEAST, **changes: Any) -> str:
    """What Helm says where it renders nothing."""
    done = _template(values, **changes)
    assert done.returncode != 0, "Helm rendered it"
    return done.stderr


def pick(objects: list[Object], kind: str, name: str = "", namespace: str = "") -> Object:
    """The one object of that kind, and of that name or namespace where one is given."""
    found = [
        each
        for each in objects
        if each["kind"] == kind
        and name in {"", each["metadata"]["name"]}
        and namespace in {"", each["metadata"].get("namespace", "argosy")}
    ]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """The pods that the chart itself runs: name of their owner and their specification."""
    for each in objects:
        if each["kind"] in {"Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def lint(values: Path) -> str:
    """What ``helm lint`` prints; it must be content."""
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def _run(values: Path, changes: str) -> subprocess.CompletedProcess[str]:
    files = ("--values", str(values), "--values", "-")
    return helm("template", "argosy", str(CHART), "--namespace", "argosy", *files, given=changes)


def tree(changes: Mapping[str, Any]) -> Object:
    """Changes such as ``{"web__replicas": 2}`` as values."""
    values: Object = {}
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return values


def _template(values: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    return _run(values, json.dumps(tree(changes)))
