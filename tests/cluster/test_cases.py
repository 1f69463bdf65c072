"""The cases of `tests/cases` on a farm in a cluster, with the reasons that they have on one machine."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.farm import Farm, farm
from tests.cluster.namespace import Namespace, eventually, namespace
from tests.visitor import Click, Visitor, git_spec

CASES = Path(__file__).resolve().parents[1] / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/case.toml") if path.parent.name != "walls")
BASE = "localhost/argosy/base:bookworm"
"""What Dockerfiles of cases stand on: it is in the builder's image."""

MEMORY = "512Mi"
"""Of a build: less than the case that asks for too much, more than all others need."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"resolve_timeout_seconds": 5, "repo2docker_args": [f"--build-arg=BASE={BASE}"]}
    with farm("cases", tmp_path_factory.mktemp("farm"), settings=settings, limits__build__memory=MEMORY) as made:
        yield made


@pytest.fixture(scope="module")
def visits() -> Iterator[Namespace]:
    """Where images are run that were built."""
    with namespace("cases-visits") as place:
        yield place


@pytest.mark.parametrize("name", NAMES)
def test_a_case_ends_as_on_one_machine(running: Farm, visits: Namespace, tmp_path: Path, name: str) -> None:
    case: dict[str, Any] = tomllib.loads((CASES / name / "case.toml").read_text())
    running.githost.create(f"cases/{name}", files_of(name, case, tmp_path))
    held = catalogue(running)
    click = Visitor(running.url).click(git_spec(f"{running.githost.url}/cases/{name}"), build_only=True)
    assert click.last.get("reason", "") == case["reason"], f"{click.log}\n{running.logs()}"
    for text in case["contains"]:
        assert text in click.log, click.log
    assert len(catalogue(running) - held) == (0 if case["reason"] else 1)
    if "run" in case:
        assert case["prints"] in printed(visits, click, case["run"])


def catalogue(running: Farm) -> set[str]:
    """The images that the Hub may start, as the catalogue calls them."""
    return {each["metadata"]["name"] for each in running.release.catalogue.list("configmaps", "argosy/image")}


def files_of(name: str, case: dict[str, Any], scratch: Path) -> dict[str, bytes]:
    """The files of a case, with those that a tool makes."""
    shutil.copytree(CASES / name / "repository", scratch, dirs_exist_ok=True)
    if command := case.get("make"):
        subprocess.run([images.ROOT / ".venv/bin" / command[0], *command[1:]], cwd=scratch, check=True)
    return {str(path.relative_to(scratch)): path.read_bytes() for path in scratch.rglob("*") if path.is_file()}


def printed(place: Namespace, click: Click, command: list[str]) -> str:
    """What a command prints in a pod of the image that was built."""
    image = next(event["imageName"] for event in reversed(click.events) if event.get("imageName"))
    container = {"name": "main", "image": image, "args": command}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    place.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": click.build}, "spec": spec})
    ended = eventually(
        lambda: (found := place.get("pod", click.build)["status"]["phase"]) in {"Succeeded", "Failed"} and found,
        seconds=180,
    )
    assert ended == "Succeeded"
    return place.log(click.build, "main")
