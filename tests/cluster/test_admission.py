"""What web's account may do with Workflows, asked of the real API server as that account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.namespace import Object, RefusedError, eventually, kubectl
from tests.cluster.release import Release, release

ARGUMENTS = {"parameters": [{"name": "commit", "value": "1a2b3c4"}, {"name": "title", "value": "A title"}]}
CONTAINER = {"name": "build", "container": {"image": "evil", "command": ["sh"]}}


@pytest.fixture(scope="module")
def farm() -> Iterator[Release]:
    with release("chart-admission") as made:
        made.install()
        # The policy is looked at by the API server a moment after it was made.
        early = _workflow(made, "build-early", spec={"templates": [CONTAINER]})
        eventually(lambda: "is thin" in _refusal(made, early))
        yield made


def _workflow(
    farm: Release, name: str, *, spec: Object | None = None, metadata: Object | None = None, **more: Any
) -> Object:
    thin: Object = {
        "entrypoint": "build",
        "workflowTemplateRef": {"name": farm.current()},
        "arguments": ARGUMENTS,
        "suspend": True,
        "priority": 1,
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "labels": {"argosy/pipeline": "true"}, **(metadata or {})},
        "spec": {key: value for key, value in (thin | (spec or {})).items() if value is not None},
        **more,
    }


def as_web(farm: Release, *arguments: str, document: Object | None = None) -> None:
    account = f"system:serviceaccount:{farm.web.name}:argosy-web"
    kubectl(*arguments, "--namespace", farm.builds.name, "--as", account, document=document)


def _refusal(farm: Release, document: Object) -> str:
    """What the API server says where it refuses a Workflow of web's; empty where it does not."""
    try:
        as_web(farm, "create", "--dry-run=server", "--filename", "-", document=document)
    except RefusedError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("entrypoint", ["build", "ours"])
@pytest.mark.parametrize("suspend", [True, None])
def test_a_thin_workflow_is_accepted(farm, entrypoint, suspend):
    notes = {"workflows.argoproj.io/title": "t", "workflows.argoproj.io/description": "d", "argosy/request": "{}"}
    document = _workflow(
        farm, "build-thin", spec={"entrypoint": entrypoint, "suspend": suspend}, metadata={"annotations": notes}
    )
    as_web(farm, "create", "--dry-run=server", "--filename", "-", document=document)


REFUSED: dict[str, tuple[Object, str]] = {
    "templates of its own": ({"spec": {"workflowTemplateRef": None, "templates": [CONTAINER]}}, "is thin"),
    "templates beside ours": ({"spec": {"templates": [CONTAINER]}}, "is thin"),
    "another template": ({"spec": {"workflowTemplateRef": {"name": "evil"}}}, "refers to a template of Argosy"),
    "a template of the whole cluster": (
        {"spec": {"workflowTemplateRef": {"name": "argosy-prebuild", "clusterScope": True}}},
        "refers to a template of Argosy",
    ),
    "no template": ({"spec": {"workflowTemplateRef": None}}, "refers to a template of Argosy"),
    "a pod's template as entry point": ({"spec": {"entrypoint": "strangers-half"}}, "begins at"),
    "no entry point": ({"spec": {"entrypoint": None}}, "begins at"),
    "the site's argument": (
        {"spec": {"arguments": {"parameters": [{"name": "site-image", "value": "evil"}]}}},
        "arguments",
    ),
    "an unknown argument": ({"spec": {"arguments": {"parameters": [{"name": "x", "value": "1"}]}}}, "arguments"),
    "an argument read from a ConfigMap": (
        {
            "spec": {
                "arguments": {
                    "parameters": [{"name": "commit", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}]
                }
            }
        },
        "arguments",
    ),
    "an artifact": ({"spec": {"arguments": {"artifacts": [{"name": "x", "raw": {"data": "1"}}]}}}, "arguments"),
    "a patch of its pods": ({"spec": {"podSpecPatch": '{"hostNetwork": true}'}}, "is thin"),
    "an account": ({"spec": {"serviceAccountName": "argosy-ours"}}, "is thin"),
    "volumes": ({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}, "is thin"),
    "an exit handler": ({"spec": {"onExit": "ours-half"}}, "is thin"),
    "hooks": ({"spec": {"hooks": {"running": {"template": "ours-half", "expression": "true"}}}}, "is thin"),
    "a longer life": ({"spec": {"ttlStrategy": {"secondsAfterCompletion": 1}}}, "is thin"),
    "a status": (
        {"status": {"storedWorkflowTemplateSpec": {"entrypoint": "build", "templates": [CONTAINER]}}},
        "no status",
    ),
    "an owner": (
        {
            "metadata": {
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}],
            }
        },
        "no owner",
    ),
    "a finalizer": ({"metadata": {"finalizers": ["example.org/never"]}}, "no owner and no finalizer"),
    "another's label": (
        {"metadata": {"labels": {"workflows.argoproj.io/controller-instanceid": "other"}}},
        "no labels but",
    ),
    "another's annotation": ({"metadata": {"annotations": {"example.org/x": "1"}}}, "no annotations but"),
    "another name": ({"metadata": {"name": "nightly"}}, "is named as a build is"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_whatever_is_more_than_thin_is_refused(farm, what):
    changes, sentence = REFUSED[what]
    with pytest.raises(RefusedError, match=sentence):
        as_web(farm, "create", "--filename", "-", document=_workflow(farm, "build-fat", **changes))


def test_other_verbs_and_other_kinds_are_refused(farm):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    with pytest.raises(RefusedError, match="forbidden"):
        as_web(farm, "create", "--filename", "-", document=pod)
    with pytest.raises(RefusedError, match="forbidden"):
        as_web(farm, "delete", "workflow", "build-fat")
    with pytest.raises(RefusedError, match="forbidden"):
        as_web(farm, "get", "secrets")


def test_whoever_is_not_web_is_none_of_the_policys_business(farm):
    document = _workflow(farm, "by-hand", spec={"workflowTemplateRef": None, "templates": [CONTAINER]})
    farm.builds.try_out(document)


# --- what web may change ---


@pytest.fixture(scope="module")
def running(farm: Release) -> str:
    name = "build-changed"
    as_web(farm, "create", "--filename", "-", document=_workflow(farm, name))
    eventually(lambda: farm.builds.get("workflow", name).get("status", {}).get("phase") == "Running")
    return name


def patch(farm: Release, name: str, change: str) -> None:
    as_web(farm, "patch", "workflow", name, "--type=merge", "--dry-run=server", "--patch", change)


@pytest.mark.parametrize(
    "change",
    [
        '{"spec": {"suspend": null}}',
        '{"spec": {"suspend": null, "shutdown": "Stop"}}',
        '{"spec": {"priority": 7}}',
        '{"metadata": {"labels": {"argosy/recorded": "true"}, "annotations": {"argosy/owner": "someone"}}}',
        '{"metadata": {"annotations": {"workflows.argoproj.io/title": "another"}}}',
    ],
)
def test_web_may_admit_stop_hurry_and_mark(farm, running, change):
    patch(farm, running, change)


@pytest.mark.parametrize(
    "change",
    [
        '{"spec": {"entrypoint": "ours"}}',
        '{"spec": {"workflowTemplateRef": {"name": "evil"}}}',
        '{"spec": {"arguments": null}}',
        '{"spec": {"arguments": {"parameters": [{"name": "site-image", "value": "evil"}]}}}',
        '{"spec": {"templates": [{"name": "x"}]}}',
        '{"spec": {"podSpecPatch": "{}"}}',
        '{"status": {"message": "not ended yet"}}',
        '{"status": {"phase": "Succeeded"}}',
        '{"status": {"storedWorkflowTemplateSpec": {"entrypoint": "ours"}}}',
        '{"status": null}',
        '{"metadata": {"labels": {"workflows.argoproj.io/completed": "true"}}}',
        '{"metadata": {"labels": {"workflows.argoproj.io/phase": null}}}',
        '{"metadata": {"annotations": {"example.org/x": "1"}}}',
        '{"metadata": {"finalizers": ["example.org/never"]}}',
        '{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}}',
    ],
)
def test_web_may_change_nothing_else(farm, running, change):
    with pytest.raises(RefusedError, match=r"Web (changes|sets)"):
        patch(farm, running, change)


def test_web_may_say_why_a_finished_one_ended(farm):
    name = "build-finished"
    as_web(farm, "create", "--filename", "-", document=_workflow(farm, name))
    eventually(lambda: farm.builds.get("workflow", name).get("status", {}).get("phase") == "Running")
    stop = '{"spec": {"suspend": null, "shutdown": "Stop"}}'
    as_web(farm, "patch", "workflow", name, "--type=merge", "--patch", stop)
    farm.builds.ended(name)
    as_web(farm, "patch", "workflow", name, "--type=merge", "--patch", '{"status": {"message": "Our sentence."}}')
    assert farm.builds.get("workflow", name)["status"]["message"] == "Our sentence."
    with pytest.raises(RefusedError, match="changes nothing of a Workflow's status"):
        patch(farm, name, '{"status": {"phase": "Succeeded"}}')
