"""Click to server on a cluster, nothing on the way played: the chart's web, Argo's pods, a registry, a real Hub."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.cluster.farm import Farm
from tests.cluster.namespace import eventually
from tests.visitor import Visitor, git_spec, run_cell
from workflows.image import BuildName, attempt_of


@pytest.mark.smoke
def test_a_repository_becomes_a_server_by_a_workflow_and_the_second_visitor_needs_none(running: Farm) -> None:
    commit = running.githost.create("class/first", {"requirements.txt": "six==1.17.0\n"})
    url = f"{running.githost.url}/class/first"
    visitor = Visitor(running.url)

    first = visitor.click(git_spec(url))

    assert first.last["phase"] == "ready", f"{first.log}\n{running.logs()}"
    order = [first.phases.index(phase) for phase in ("waiting", "fetching", "building", "built", "launching", "ready")]
    assert order == sorted(order)
    assert first.last["image"].split("@")[0].endswith(f":{commit}")
    answer = requests.get(
        f"{first.last['url']}api/status", headers={"Authorization": f"token {first.last['token']}"}, timeout=30
    )
    assert answer.status_code == 200
    assert requests.get(f"{first.last['url']}api/status", timeout=30).status_code == 403
    assert run_cell(first.last["url"], first.last["token"], "import six; print(six.__version__)").split() == ["1.17.0"]

    workflow = running.release.builds.ended(first.build)
    assert workflow["status"]["phase"] == "Succeeded", workflow["status"]
    assert workflow["spec"]["workflowTemplateRef"]["name"] == running.release.current()
    entries = [each["data"]["entry"] for each in running.release.catalogue.list("configmaps", "argosy/image")]
    assert sum(first.last["image"].split("@")[0] in entry for entry in entries) == 1
    _is_shown(running, first.build)
    workflows = _workflows(running)

    second = visitor.click(git_spec(url))

    assert second.last["phase"] == "ready", second.log
    assert "building" not in second.phases
    assert second.last["url"] != first.last["url"]
    assert first.build in workflows
    assert _workflows(running) == workflows


def test_a_build_that_fails_says_whose_fault_it_is_and_can_be_tried_again(running: Farm) -> None:
    running.githost.create("class/broken", {"requirements.txt": "argosy-no-such-package==1.0\n"})
    visitor, spec = Visitor(running.url), git_spec(f"{running.githost.url}/class/broken")

    click = visitor.click(spec, build_only=True)

    assert (click.last["phase"], click.last["reason"]) == ("failed", "build"), f"{click.log}\n{running.logs()}"
    assert "argosy-no-such-package" in click.log
    page = f"{running.url}/builds/{click.build}"
    assert "argosy-no-such-package" in requests.get(f"{page}/log", timeout=60).text
    requests.post(f"{page}/retry", timeout=60).raise_for_status()
    again = visitor.click(spec, build_only=True)
    assert attempt_of(BuildName(again.build)) == 2


def _workflows(running: Farm) -> set[str]:
    return {each["metadata"]["name"] for each in running.release.builds.list("workflows", "argosy/pipeline")}


def _is_shown(running: Farm, build: str) -> None:
    """The build's page has its log, its SBOM and the findings, whoever's pods are gone."""
    page = f"{running.url}/builds/{build}"
    assert requests.get(page, timeout=60).status_code == 200
    assert "Fetching" in requests.get(f"{page}/log", timeout=120).text
    sbom = eventually(lambda: _found(f"{page}/sbom"), seconds=180)
    assert "pkg:pypi/six@1.17.0" in {part.get("purl") for part in sbom["components"]}
    assert eventually(lambda: _found(f"{page}/findings"), seconds=180)["verdict"] in {"pass", "findings"}


def _found(address: str) -> Any:
    answer = requests.get(address, timeout=60)
    return answer.json() if answer.status_code == 200 else None
