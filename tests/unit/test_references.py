"""The reference check: each fault that neither hera nor the API server notices."""

from __future__ import annotations

import copy

import pytest
import yaml

from workflows.engines.argo.references import faults
from workflows.engines.argo.rendering import m, template


@pytest.fixture(scope="module")
def rendered():
    return yaml.safe_load(template("report").to_yaml())


@pytest.fixture
def document(rendered):
    return copy.deepcopy(rendered)


def named(document, name):
    return next(each for each in document["spec"]["templates"] if each["name"] == name)


def containers(document, name):
    return named(document, name)["containerSet"]["containers"]


def tasks(document, name):
    return named(document, name)["dag"]["tasks"]


def test_what_we_render_has_no_fault(document):
    assert faults(document) == []


def test_an_unknown_entrypoint(document):
    document["spec"]["entrypoint"] = "biuld"
    assert faults(document) == ["entrypoint biuld: no such template"]


def test_an_unknown_template(document):
    tasks(document, "build")[0]["template"] = "strangers"
    assert "build: strangers: no template strangers" in faults(document)


def test_a_template_that_is_never_run(document):
    for entry in ("build", "from-spec", "ours"):
        named(document, entry)["dag"]["tasks"] = [t for t in tasks(document, entry) if t["name"] != "ours"]
    assert "template ours-half is never run" in faults(document)


def test_a_misspelt_input(document):
    containers(document, "ours-half")[0]["args"].append("--x={{inputs.parameters.imgae}}")
    assert faults(document) == ["ours-half: input imgae is not declared"]


def test_an_input_that_nothing_uses(document):
    named(document, "resolve")["inputs"]["parameters"].append({"name": "more", "value": ""})
    assert faults(document) == ["resolve: input more is not used"]


def test_a_misspelt_workflow_parameter(document):
    tasks(document, "build")[0]["arguments"]["parameters"][0]["value"] = "{{workflow.parameters.clone_url}}"
    assert "workflow parameter clone_url is not declared" in faults(document)


def test_a_misspelt_workflow_parameter_in_an_expression(document):
    document["spec"]["workflowMetadata"]["annotations"]["x"] = "{{=workflow.parameters['repo_url']}}"
    assert faults(document) == ["workflow parameter repo_url is not declared"]


def test_an_argument_that_nobody_takes_and_one_that_is_missing(document):
    argument = tasks(document, "ours")[0]["arguments"]["parameters"][0]
    argument["name"] = "imgae"
    assert faults(document) == ["ours: ours: argument imgae: no such input", "ours: ours: argument image is missing"]


def test_an_unknown_task_and_an_end_that_no_task_has(document):
    tasks(document, "build")[1]["depends"] = "strangers.Succeded || fetch"
    assert faults(document) == [
        "build: ours: depends on strangers.Succeded: no task ends so",
        "build: ours: depends on fetch: no such task",
    ]


def test_an_output_that_nobody_gives_or_that_is_not_waited_for(document):
    task = tasks(document, "from-spec")[1]
    task["arguments"]["parameters"][0]["value"] = "{{tasks.resolve.outputs.parameters.cloneurl}}"
    assert faults(document) == ["from-spec: strangers: reads cloneurl of resolve, which has no such output"]
    del task["depends"]
    assert "from-spec: strangers: reads an output of resolve, on which it does not depend" in faults(document)


def test_an_output_of_a_containerset_without_main(document):
    named(document, "ours-half")["outputs"] = {"parameters": [{"name": "digest", "valueFrom": {"path": "/x"}}]}
    assert faults(document) == [
        "ours-half: has outputs, and no container called main, the only one whose outputs Argo takes"
    ]


def test_volumes_that_are_not_there_and_volumes_that_nobody_mounts(document):
    mounts = containers(document, "strangers-half")[0]["volumeMounts"]
    mounts[1]["name"] = "tmp"
    assert faults(document) == [
        "strangers-half: fetch: mounts tmp: no such volume",
        "strangers-half: volume tmp-fetch is not mounted",
    ]


def test_a_sidecars_mounts_are_looked_at_too(document):
    mount = {"name": "nowhere", "mountPath": "/x"}
    named(document, "ours-half")["sidecars"] = [{"name": "proxy", "command": ["x"], "volumeMounts": [mount]}]
    assert faults(document) == ["ours-half: proxy: mounts nowhere: no such volume"]


def test_containers_that_need_nobody_or_have_argos_names(document):
    containers(document, "ours-half")[1]["args"].insert(3, "--after=psuh")
    containers(document, "ours-half")[2]["dependencies"] = ["pubilsh"]
    containers(document, "ours-half")[3]["name"] = "wait"
    assert faults(document) == [
        "ours-half: container wait has a name of Argo's",
        "ours-half: publish: needs psuh: no such container",
        "ours-half: scan: needs pubilsh: no such container",
    ]


def test_a_container_without_a_command(document):
    del containers(document, "ours-half")[0]["command"]
    assert faults(document) == ["ours-half: push: has no command, so that Argo would ask the registry for it"]


def test_what_stands_for_nothing(document):
    containers(document, "ours-half")[0]["args"].append("{{workflow.nmae}}")
    assert faults(document) == ["ours-half: workflow.nmae stands for nothing in a pod"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (("templates", 0), "template resolve is there twice"),
        (("arguments", "parameters", 0), "workflow parameter title is there twice"),
        (("templates", 0, "inputs", "parameters", 0), "resolve: input provider is there twice"),
        (("templates", 0, "volumes", 0), "resolve: volume workspace is there twice"),
        (("templates", 0, "container", "env", 0), "resolve: main: variable ARGOSY_IMAGE_STORE is there twice"),
        (("templates", 0, "container", "volumeMounts", 0), "resolve: main: mount at /workspace is there twice"),
        (("templates", 2, "containerSet", "containers", 0), "ours-half: container push is there twice"),
        (("templates", 4, "dag", "tasks", 0), "from-spec: task resolve is there twice"),
        (
            ("templates", 4, "dag", "tasks", 0, "arguments", "parameters", 0),
            "from-spec: resolve: argument provider is there twice",
        ),
    ],
)
def test_what_is_there_twice(document, path, fault):
    part = document["spec"]
    for key in path[:-1]:
        part = part[key]
    part.append(part[path[-1]])
    assert fault in faults(document)


def test_a_misspelt_field_is_an_error_and_not_silence():
    with pytest.raises(ValueError, match="second_after_completion"):
        m.TTLStrategy(second_after_completion=1)
