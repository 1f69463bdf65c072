"""Whoever ends a build, by any means and wherever it stands: it was cancelled, publishes nothing, leaves no pod."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.cluster import site
from tests.cluster.crowd import Follower, steps_of
from tests.cluster.farm import Farm
from tests.cluster.guard import Guard
from tests.cluster.namespace import eventually, kubectl
from tests.cluster.replica import Replica, replica, wish
from tests.registries import Fault
from tests.visitor import git_spec
from workflows.build import State
from workflows.errors import Reason
from workflows.image import BuildName

HANGS = "sleep 600"

WAYS: dict[str, Callable[[Replica, BuildName], object]] = {
    "its page": lambda farm, name: farm.engine.stop(name, Reason.CANCELLED),
    "argo stop": lambda farm, name: farm.argo("stop", name),
    "argo terminate": lambda farm, name: farm.argo("terminate", name),
    "kubectl delete": lambda farm, name: kubectl(
        "delete", "workflow", name, "--namespace", farm.place.name, "--wait=false"
    ),
}
"""What each of them does to a Workflow."""


@pytest.fixture(scope="module")
def farm() -> Iterator[Replica]:
    with replica("stop") as made:
        yield made


def end(farm: Replica, names: dict[str, BuildName]) -> None:
    """Ends each build by its way, and looks what becomes of all."""
    for way, name in names.items():
        WAYS[way](farm, name)
    farm.is_admitting = True
    for way, name in names.items():
        status = farm.ended(name)
        assert (status.state, status.reason, status.published) == (State.FAILED, Reason.CANCELLED, 0), way
        assert 0 not in {step.exit_code for step in status.steps if step.name == "publish"}, way
    farm.until(lambda: not any(farm.pods(name) for name in names.values()))


def test_a_build_in_the_queue_ends_without_a_pod(farm: Replica) -> None:
    farm.is_admitting = False
    names = {way: farm.submit(wish(10 + number)) for number, way in enumerate(WAYS)}
    farm.until(lambda: all(farm.last(name) for name in names.values()))
    # Argo does not look at one that is suspended; who admits does, and must not let it run instead.
    end(farm, names)
    for name in names.values():
        assert farm.place.list("pods", f"workflows.argoproj.io/workflow={name}") == []


@pytest.mark.parametrize("step", ["build", "push"])
def test_a_build_at_work_ends_where_it_stands(farm: Replica, step: str) -> None:
    first = 20 if step == "build" else 30
    names = {way: farm.submit(wish(first + number), **{step: HANGS}) for number, way in enumerate(WAYS)}
    farm.until(lambda: all(farm.runs(name, step) for name in names.values()))
    end(farm, names)


def test_a_build_whose_image_is_being_pulled_ends() -> None:
    containers = [*site.STRANGERS_PATCH["containers"], {"name": "fetch", "image": f"{site.REGISTRY}/tests/no:1"}]
    patch = json.dumps(site.STRANGERS_PATCH | {"containers": containers})
    with replica("stop", parameters={"strangers-patch": patch}) as farm:
        names = {way: farm.submit(wish(40 + number)) for number, way in enumerate(WAYS)}
        farm.until(lambda: all(farm.says(name, "cannot be pulled: ") for name in names.values()))
        end(farm, names)


@pytest.mark.smoke
def test_the_page_of_a_real_build_ends_it(running: Farm) -> None:
    cancel(running, begun(running, "stop/by-page"))


def test_the_page_of_a_real_build_in_the_queue_ends_it_before_it_has_a_pod(running: Farm) -> None:
    at_work = [begun(running, f"stop/at-work-{number}") for number in range(2)]  # as many as the farm builds at once
    waiting = clicked(running, "stop/waiting")
    eventually(
        lambda: any(event.get("queue_position") == 1 for event in tuple(waiting.events)),
        what=lambda: f"{waiting.events}\n{running.logs()}",
    )
    build = cancel(running, waiting)
    assert running.release.builds.list("pods", f"workflows.argoproj.io/workflow={build}") == []
    for follower in at_work:
        assert not follower.is_over
        cancel(running, follower)


def test_the_page_of_a_real_build_ends_it_while_it_is_pushed(
    guarded: Farm, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def rule(method: str, path: str) -> Fault | None:
        if method != "PUT" or "pushed" not in path or "/staging/" in path:
            return None
        asked.append(path)
        return Fault(hang=True)

    monkeypatch.setattr(guard, "rule", rule)
    pushed = clicked(guarded, "stop/pushed", lines=1)
    eventually(lambda: asked, seconds=120, what=guarded.logs)
    cancel(guarded, pushed)


@pytest.fixture
def imageless(guarded: Farm) -> Iterator[Farm]:
    """A farm whose builds' image is in no registry."""
    builder = guarded.value("images__builder")
    guarded.install(images__builder=f"{site.REGISTRY}/tests/no:1")
    yield guarded
    guarded.install(images__builder=builder)


def test_the_page_of_a_real_build_ends_it_while_its_image_is_pulled(imageless: Farm) -> None:
    waiting = clicked(imageless, "stop/pulled")
    eventually(
        lambda: any("cannot be pulled" in str(event.get("message")) for event in tuple(waiting.events)),
        seconds=120,
        what=imageless.logs,
    )
    cancel(imageless, waiting)


def clicked(running: Farm, name: str, lines: int = 600) -> Follower:
    """A click on a repository whose build prints a line a second."""
    running.githost.create(name, {"Dockerfile": f"FROM localhost/argosy/base:bookworm\n{steps_of(lines, 1)}"})
    return Follower([running.url], f"{git_spec(f'{running.githost.url}/{name}')}?build_only=true")


def begun(running: Farm, name: str) -> Follower:
    """The same, once the build prints."""
    follower = clicked(running, name)
    eventually(lambda: follower.numbers, seconds=120, what=running.logs)
    return follower


def cancel(running: Farm, follower: Follower) -> str:
    """End a build by its page, and look what becomes of it; its name."""
    build: str = next(event["build"] for event in tuple(follower.events) if event.get("build"))
    requests.post(f"{running.url}/builds/{build}/cancel", timeout=60).raise_for_status()
    follower.join(120)
    assert (follower.events[-1]["phase"], follower.events[-1]["reason"]) == ("failed", "cancelled")
    pods = f"workflows.argoproj.io/workflow={build}"
    alive = {"Pending", "Running"}
    eventually(lambda: not [p for p in running.release.builds.list("pods", pods) if p["status"]["phase"] in alive])
    entries = [each["data"]["entry"] for each in running.release.catalogue.list("configmaps", "argosy/image")]
    assert not [entry for entry in entries if build in entry]
    assert "cancelled" in requests.get(f"{running.url}/builds/{build}", timeout=60).text
    return build
