"""Workflows that stand on their own, with the real steps on an installed chart: nothing but a provider and a spec."""

from __future__ import annotations

import json
from urllib.parse import quote

import requests

from tests.cluster.farm import Farm
from tests.cluster.namespace import Object, argo, eventually, kubectl
from workflows.build import BuildRequest
from workflows.pipeline import ours_of, plan

TEMPLATE = "argosy-prebuild"
"""Under which the chart ships the pipeline for people and schedules."""

FILES = {"Dockerfile": "FROM localhost/argosy/base:bookworm\nRUN echo a-line-of-this-build\n"}
OURS = {step.name for step in ours_of(plan(policy="report", attach=True))}
EVERYTHING = {step.name for step in plan(policy="report", attach=True)}


def run(running: Farm, name: str, repository: str) -> Object:
    """A Workflow as a person submits it, once it has ended."""
    spec = quote(f"{running.githost.url}/{repository}", safe="") + "/main"
    given = ("--name", name, "--parameter", "provider=git", "--parameter", f"spec={spec}")
    builds = running.release.builds
    argo("submit", "--namespace", builds.name, "--from", f"workflowtemplate/{TEMPLATE}", *given)
    return builds.ended(name, seconds=300)


def recorded(running: Farm, name: str) -> Object:
    """A Workflow once web has recorded it."""

    def look() -> Object | None:
        found = running.release.builds.get("workflow", name)
        return found if found["metadata"]["labels"].get("argosy/recorded") == "true" else None

    return dict(eventually(look, what=running.logs))


def page(running: Farm, name: str) -> str:
    answer = requests.get(f"{running.url}/builds/{name}", timeout=30)
    answer.raise_for_status()
    return answer.text


def nodes(found: Object) -> dict[str, Object]:
    return {node["displayName"]: node for node in found["status"]["nodes"].values()}


def ran(found: Object) -> set[str]:
    ends = {name for name, node in nodes(found).items() if node["phase"] == "Succeeded"}
    return ends & (EVERYTHING | {"resolve"})


def resolved(found: Object) -> BuildRequest:
    outputs = {each["name"]: each["value"] for each in nodes(found)["resolve"]["outputs"]["parameters"]}
    return BuildRequest.from_json(outputs["request"])


def entries(running: Farm, repository: str) -> dict[str, Object]:
    """What the catalogue says of a repository's images, by the names of the ConfigMaps."""
    found = running.release.catalogue.list("configmaps", "argosy/image")
    said = {each["metadata"]["name"]: json.loads(each["data"]["entry"]) for each in found}
    return {name: entry for name, entry in said.items() if entry["repo_url"].endswith(f"/{repository}")}


def test_it_builds_and_publishes_then_ends_early_and_builds_nothing_that_the_registry_holds(running: Farm) -> None:
    commit = running.githost.create("o/r", FILES)

    first = run(running, "first", "o/r")
    assert first["status"]["phase"] == "Succeeded", first["status"]
    assert ran(first) == EVERYTHING | {"resolve"}
    request = resolved(first)
    assert (request.commit, request.named, request.provider) == (commit, "first", "git")
    ((written, entry),) = entries(running, "o/r").items()
    assert (entry["image"], entry["commit"], entry["build"]) == (request.image, commit, "first")
    assert "argosy" in entry["builder"]

    second = run(running, "second", "o/r")
    assert second["status"]["phase"] == "Succeeded"
    assert ran(second) == {"resolve"}

    # As after a crash between push and publish.
    kubectl("delete", "configmap", written, "--namespace", running.release.catalogue.name)
    third = run(running, "third", "o/r")
    assert third["status"]["phase"] == "Succeeded", third["status"]
    assert ran(third) == OURS | {"resolve"}
    assert resolved(third).held == entry["digest"]
    (again,) = entries(running, "o/r").values()
    assert (again["digest"], again["builder"], again["build"]) == (entry["digest"], "unknown", "third")

    # All three are builds like any other to whoever looks at the pages.
    for name in ("first", "second", "third"):
        labels = recorded(running, name)["metadata"]["labels"]
        found = [labels[f"argosy/{each}"] for each in ("provider", "commit", "lane")]
        assert found == ["git", commit, "prebuild"]
        assert "o/r" in page(running, name)
    log = requests.get(f"{running.url}/builds/first/log", timeout=30).text
    assert "a-line-of-this-build" in log


def test_what_is_not_there_says_so_where_people_look(running: Farm) -> None:
    found = run(running, "nowhere", "o/nowhere")
    message = nodes(found)["resolve"]["message"]
    assert message.startswith("main: Error (exit code 66): Could not resolve ref for git:")
    assert message.strip().endswith("Double check your URL and that your repo is public.")
    assert ran(found) == set()
    sentence = message.strip().removeprefix("main: Error (exit code 66): ")
    assert recorded(running, "nowhere")["status"]["message"] == sentence
    assert "not-found" in page(running, "nowhere")


def test_a_repository_that_does_not_build_says_so_where_people_look(running: Farm) -> None:
    running.githost.create("o/broken", {"Dockerfile": "FROM localhost/argosy/base:bookworm\nRUN false\n"})
    found = run(running, "broken", "o/broken")
    message = nodes(found)["build"]["message"].strip()
    assert message.startswith("build: Error (exit code 10): ")
    assert nodes(found)["strangers"]["message"].strip() == message
    assert ran(found) == {"resolve", "fetch"}
    assert entries(running, "o/broken") == {}
    assert recorded(running, "broken")["status"]["message"] == message.removeprefix("build: Error (exit code 10): ")
