"""What a step sees in its pod, as plain data: the counterpart of `workflows.engines.attempt.environment`.

Nothing here knows hera; `rendering` puts it into the templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflows.pipeline import RESOLVE, RUNNER, SECRET_FILES, SECRET_SETTINGS, SECRETS_FOLDER, Half, Step
from workflows.settings import PREFIX

WORKSPACE = "/workspace"
"""Shared by the containers of one pod, and by nobody else."""

OUTPUTS = f"{WORKSPACE}/outputs"
TMP = "/tmp"  # noqa: S108  # in a container: a volume of this step's own
"""Not shared: what a step with a secret lays down there is out of the reach of strangers' code."""

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where every client of Kubernetes looks for the pod's account."""

ACCOUNT_SECRETS = frozenset({"catalogue-write", "catalogue-read"})
"""Secrets that are no file of the site's but the right of the pod's account: its token goes to this step alone."""

RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The Pod Security level of that name, and a root file system that nobody writes."""

# The user of Argo's own image. Said, because Kubernetes starts nothing that might be root.
_ARGOS = {**RESTRICTED, "runAsUser": 8737}

ALL_PODS: Mapping[str, Any] = {
    "enableServiceLinks": False,
    "initContainers": [{"name": "init", "securityContext": _ARGOS}],
    "containers": [{"name": "wait", "securityContext": _ARGOS}],
}
"""What is patched into every pod: Argo's own containers at the same level, and no variables that Services leave."""


def arguments(step: Step, beside: tuple[Step, ...]) -> list[str]:
    """The step's command line, with an input wherever a value goes. The build is called what the Workflow is.

    Args:
        step: The step.
        beside: The steps of its pod. Of these it awaits by itself what it needs; a pod awaits the pods before it.
    """
    places = {name: f"{{{{inputs.parameters.{name}}}}}" for name in step.parameters} | {"build": "{{workflow.name}}"}
    needs = [f"--after={container_of(each)}" for each in beside if each.name in step.needs]
    return [*RUNNER[1:], *needs, *step.command(places)]


def inputs(steps: tuple[Step, ...]) -> list[str]:
    """The arguments that a pod with these steps takes, each once."""
    return list(dict.fromkeys(name for step in steps for name in step.parameters if name != "build"))


def environment(step: Step, policy: str) -> dict[str, str]:
    """The step's variables beside the settings of all. An empty one is an unset one, whatever the ConfigMap says."""
    told = {
        "image_store": "registry",
        "scan_policy": policy,  # the template's: push asks for a verdict exactly where a scan stands before it
        "workspace": WORKSPACE,
        **dict.fromkeys(sorted(SECRET_SETTINGS), ""),
        **{SECRET_FILES[name].setting: f"{SECRETS_FOLDER}/{name}/{SECRET_FILES[name].file}" for name in files(step)},
    }
    return {f"{PREFIX}{name.upper()}": value for name, value in told.items()} | {"HOME": TMP, "TMPDIR": TMP}


def files(step: Step) -> list[str]:
    """The step's secrets that are files."""
    return [name for name in step.secrets if name in SECRET_FILES]


def has_account(step: Step) -> bool:
    """Whether the step acts in the name of the pod's account."""
    return bool(ACCOUNT_SECRETS.intersection(step.secrets))


def halves(steps: tuple[Step, ...]) -> dict[str, tuple[Step, ...]]:
    """The steps of each pod, by the pod's name, in the order in which its containers are listed.

    (1) resolve is a pod of its own: it alone has outputs, and runs no code of strangers'.
    (2) build is listed last in the strangers' pod. The kubelet starts containers in their order, so whatever else runs
        there has started, with the programs that we put there, before strangers' code can touch any of it.
    """
    pods = {
        RESOLVE.name: tuple(step for step in steps if step.name == RESOLVE.name),  # (1)
        Half.STRANGERS.value: tuple(
            step for step in steps if step.half is Half.STRANGERS and step.name != RESOLVE.name
        ),
        Half.OURS.value: tuple(step for step in steps if step.half is Half.OURS),
    }
    strangers = pods[Half.STRANGERS.value]
    pods[Half.STRANGERS.value] = tuple(sorted(strangers, key=lambda step: step.name == "build"))  # (2)
    return {name: steps for name, steps in pods.items() if steps}


def container_of(step: Step) -> str:
    """What the step's container is called: Argo insists on ``main`` in a pod that has outputs."""
    return "main" if step.outputs else step.name


def template_of(pod: str) -> str:
    """The template of a pod. Not its own name: `Entry.OURS` is called so already."""
    return pod if pod == RESOLVE.name else f"{pod}-half"
