"""An upgrade in the middle of a build: the build goes on with the pipeline and the settings that it began with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import CHART
from tests.cluster import images
from tests.cluster.namespace import Object, eventually, kubectl
from tests.cluster.release import Release, release
from tests.cluster.test_admission import as_web

BEFORE, AFTER = "the settings before", "the settings after"
IMAGE = "registry.example/owner-repo:1a2b3c4"
WORKFLOWS = "count/workflows.argoproj.io"
"""What the quota of the namespace of builds limits."""


@pytest.fixture
def farm() -> Iterator[Release]:
    with release("chart-upgrade") as made:
        yield made


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The chart of a version before this one: another number, and another pipeline."""
    chart = tmp_path / "argosy"
    shutil.copytree(CHART, chart)
    for name, old, new in (
        ("Chart.yaml", "version: 0.1.0", "version: 0.0.1"),
        ("files/pipeline.yaml", "secondsAfterCompletion: 604800", "secondsAfterCompletion: 3600"),
    ):
        text = (chart / name).read_text(encoding="utf-8")
        assert old in text
        (chart / name).write_text(text.replace(old, new), encoding="utf-8")
    return chart


def script(farm: Release, said: str) -> str:
    """Let every step of the current pipeline say something, and `build` wait for a file; the pipeline's name."""
    name = farm.current()
    steps = {f"SCRIPT_{step}": f"echo {said}" for step in ("fetch", "stage", "push", "publish", "scan", "attach")}
    steps["SCRIPT_build"] = f"echo {said}; while [ ! -e /workspace/go ]; do sleep 0.2; done"
    patch = json.dumps({"data": steps})
    kubectl("patch", "configmap", f"{name}-settings", "--namespace", farm.builds.name, "--type=merge", "--patch", patch)
    return name


def submit(farm: Release, name: str) -> None:
    arguments = {"commit": "1a2b3c4", "image": IMAGE, "clone-url": "https://git.example/x", "title": "A build"}
    document: Object = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": "build",
            "workflowTemplateRef": {"name": farm.current()},
            "arguments": {"parameters": [{"name": key, "value": value} for key, value in arguments.items()]},
        },
    }
    # Kubernetes refuses what a quota limits until it has counted for the first time.
    eventually(lambda: WORKFLOWS in farm.builds.get("resourcequota", "argosy").get("status", {}).get("used", {}))
    as_web(farm, "create", "--filename", "-", document=document)


def pod(farm: Release, workflow: str, half: str) -> str | None:
    found = farm.builds.list("pods", f"workflows.argoproj.io/workflow={workflow},argosy/half={half}")
    running = [each for each in found if each["status"]["phase"] != "Pending"]
    return str(running[0]["metadata"]["name"]) if running else None


def generations(farm: Release) -> set[str]:
    """The pipelines of which a part is there."""
    kinds = ("workflowtemplates", "configmaps")
    found = [each for kind in kinds for each in farm.builds.list(kind, "argosy/generation")]
    return {each["metadata"]["labels"]["argosy/generation"] for each in found}


def test_the_last_two_pipelines_stay_and_those_that_a_build_still_refers_to(farm):
    values = {"images__steps": images.scripted(), "images__web": images.real()["web"]}
    made = []
    for source in ("1Gi", "2Gi", "3Gi", "4Gi"):
        farm.install(**values, limits__source=source)
        made.append(farm.current())
        if source == "1Gi":
            script(farm, BEFORE)
            submit(farm, "build-in-the-middle")
            strangers = eventually(lambda: pod(farm, "build-in-the-middle", "strangers"))
    assert generations(farm) == {made[0], made[2], made[3]}
    assert farm.builds.list("jobs") == []

    kubectl("exec", strangers, "--container=build", "--namespace", farm.builds.name, "--", "touch", "/workspace/go")
    assert farm.builds.ended("build-in-the-middle")["status"]["phase"] == "Succeeded"
    farm.install(**values, limits__source="5Gi")
    assert generations(farm) == {made[3], farm.current()}

    farm.install(**values, limits__source="4Gi")
    assert farm.current() == made[3], "a step back finds what it had left"
    assert len(generations(farm)) == 2

    farm.install(**values, limits__source="6Gi")
    assert generations(farm) == {made[3], farm.current()}, "what was current before is older than what it replaced"


def test_a_build_that_runs_goes_on_with_what_it_began_with(farm, previous):
    image = images.scripted()
    values = {"images__steps": image, "images__web": images.real()["web"]}
    farm.install(chart=previous, **values, limits__builds=3)
    before = script(farm, BEFORE)
    submit(farm, "build-in-the-middle")
    strangers = eventually(lambda: pod(farm, "build-in-the-middle", "strangers"))

    farm.install(**values, limits__builds=4)

    after = script(farm, AFTER)
    assert after != before
    assert set(farm.templates()) == {before, after}
    kubectl("exec", strangers, "--container=build", "--namespace", farm.builds.name, "--", "touch", "/workspace/go")
    ended = farm.builds.ended("build-in-the-middle")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert BEFORE in farm.builds.log(strangers, "stage")
    ours = pod(farm, "build-in-the-middle", "ours")
    assert BEFORE in farm.builds.log(ours, "push"), "the half that began after the upgrade read other settings"
    assert AFTER not in farm.builds.log(ours, "publish")

    submit(farm, "build-afterwards")
    assert farm.builds.get("workflow", "build-afterwards")["spec"]["workflowTemplateRef"]["name"] == after
