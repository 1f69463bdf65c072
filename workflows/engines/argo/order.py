"""The Workflow that a build is submitted as: thin, because all that it does stands in the WorkflowTemplate.

It is created suspended: the queue is then visible in Argo's UI, and survives every process of ours.
"""

from __future__ import annotations

import re
from typing import Any

from workflows.build import BuildRequest, Lane
from workflows.engines.argo.site import LABEL, RECORDED
from workflows.errors import Reason
from workflows.pipeline import Entry

REQUEST = "argosy/request"
"""Annotation: the whole request as JSON."""
OWNER = "argosy/owner"
"""Label and annotation: a label holds no ``/`` and no more than 63 characters, so the text itself stands beside it."""
CREATED = "argosy/created"
ADMITTED = "argosy/admitted"
"""Annotations: seconds since the epoch. Argo's own are whole seconds, and its start is the Workflow's creation."""
REASON = "argosy/reason"
"""Annotation: why we stopped it. Who stops it by other means gives none."""

_PRIORITIES = {Lane.LAUNCH: 20, Lane.API: 10, Lane.PREBUILD: 0}
"""Argo's own queue, should it have one (``parallelism``), knows the lanes, too."""

_LABEL_LENGTH = 63


def workflow(request: BuildRequest, template: str, created: float) -> dict[str, Any]:
    """The Workflow of a build.

    Args:
        request: What is asked for; its name becomes the Workflow's.
        template: The WorkflowTemplate.
        created: Seconds since the epoch.
    """
    arguments = request.parameters() | {"title": request.title}
    # The build is called what the Workflow is.
    del arguments["build"]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": request.name,
            "labels": {LABEL: "true"} | _labels(request),
            "annotations": {REQUEST: request.to_json(), OWNER: request.owner, CREATED: f"{created:.3f}"},
        },
        "spec": {
            "workflowTemplateRef": {"name": template},
            "entrypoint": (Entry.OURS if request.held else Entry.BUILD).value,
            "arguments": {"parameters": [{"name": name, "value": value} for name, value in arguments.items()]},
            "priority": _PRIORITIES[request.lane],
            "suspend": True,
        },
    }


def admission(at: float) -> dict[str, Any]:
    """The patch that lets a waiting build run."""
    return {"metadata": {"annotations": {ADMITTED: f"{at:.3f}"}}, "spec": {"suspend": None}}


def stopping(reason: Reason) -> dict[str, Any]:
    """The patch that ends a build in every state. Argo does not look at ``shutdown`` while a Workflow is suspended."""
    return {"metadata": {"annotations": {REASON: reason.value}}, "spec": {"suspend": None, "shutdown": "Stop"}}


def recording(request: BuildRequest, message: str) -> dict[str, Any]:
    """The patch that marks an ended build as filed, and lets Argo's UI say what its page says.

    One that somebody submitted by hand gets the labels that web gives its own, so that Argo's filters find both.
    """
    return {"metadata": {"labels": {RECORDED: "true"} | _labels(request)}, "status": {"message": message}}


def label(text: str) -> str:
    """`text` as far as a label's value can hold it; empty where nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LABEL_LENGTH].strip("._-")


def _labels(request: BuildRequest) -> dict[str, str]:
    values = {
        "argosy/provider": request.provider,
        "argosy/repository": request.slug,
        "argosy/commit": request.commit,
        "argosy/lane": request.lane.value,
        "argosy/requester": request.network,
        OWNER: request.owner,
    }
    return {name: safe for name, value in values.items() if (safe := label(value))}
