"""The pipeline under the name of its content, with what it reads."""

from __future__ import annotations

import pytest
import yaml

from tests.chart.helm import CHART, CI, pick, render
from workflows.engines.argo import site

GOLDEN = list(yaml.safe_load_all((CHART / "files" / "pipeline.yaml").read_text(encoding="utf-8")))
KEPT = {"helm.sh/resource-policy": "keep", "argosy/revision": "1"}


def templates(objects):
    """The one named after its content, and the one whose name stays."""
    found = sorted(
        (each for each in objects if each["kind"] == "WorkflowTemplate"), key=lambda each: each["metadata"]["name"]
    )
    named, stable = found
    assert stable["metadata"]["name"] == "argosy-prebuild"
    return named, stable


def name_with(values=CI[0], **changes):
    return templates(render(values, **changes))[0]["metadata"]["name"]


@pytest.mark.parametrize("policy", ["report", "enforce", "off"])
def test_the_chart_ships_the_policys_document_and_changes_nothing_but_names(policy):
    named, stable = templates(render(scan__policy=policy))
    name = named["metadata"]["name"]
    golden = next(each for each in GOLDEN if each["metadata"]["labels"]["argosy/policy"] == policy)
    expected = yaml.safe_load(yaml.safe_dump(golden["spec"]).replace("argosy-build", name))
    assert named["spec"] == stable["spec"] == expected


def test_every_configmap_that_the_pipeline_reads_is_there_with_all_its_keys():
    objects = render()
    named, _ = templates(objects)
    text = yaml.safe_dump(named["spec"])
    assert named["metadata"]["name"] in text
    parameters = pick(objects, "ConfigMap", named["metadata"]["name"])
    assert parameters["metadata"]["labels"]["workflows.argoproj.io/configmap-type"] == "Parameter"
    assert set(parameters["data"]) >= {*site.REQUIRED, *site.DEFAULTS}
    settings = pick(objects, "ConfigMap", f"{named['metadata']['name']}-settings")
    assert all(name.startswith("ARGOSY_") for name in settings["data"])
    assert pick(objects, "ConfigMap", "argosy-web")["data"]["ARGOSY_WORKFLOW_TEMPLATE"] == named["metadata"]["name"]


def test_what_a_running_build_reads_stays_through_an_upgrade():
    objects = render()
    named, stable = templates(objects)
    name = named["metadata"]["name"]
    for each in (named, pick(objects, "ConfigMap", name), pick(objects, "ConfigMap", f"{name}-settings")):
        assert each["metadata"]["annotations"] == KEPT
        assert each["metadata"]["labels"]["argosy/generation"] == name
    assert "annotations" not in stable["metadata"]


@pytest.mark.parametrize(
    "changes",
    [
        {"images__steps": "registry.example.org/argosy/steps:2"},
        {"scan__policy": "enforce"},
        {"limits__build__memory": "3Gi"},
        {"registry__write__secret": "another"},
        {"settings__appendix": "RUN true"},
    ],
    ids="-".join,
)
def test_whatever_changes_a_build_changes_the_name(changes):
    assert name_with(**changes) != name_with()


def test_what_changes_no_build_changes_no_name():
    assert name_with(web__service__port=8080) == name_with()
