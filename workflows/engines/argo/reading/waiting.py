"""Words for a build that runs and has nothing to show: what it is that it waits for.

Argo tells of a pod that has not started what Kubernetes tells of it, so neither pods nor events need to be watched.
"""

from __future__ import annotations

from collections.abc import Sequence

from workflows.engines.argo.reading.nodes import Node
from workflows.events import printable

_SAID = 300
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_NODE = "Unschedulable"
_REFUSED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def words(workflow: Node, pods: Sequence[Node]) -> str:
    """What a build waits for, in one sentence; empty where it does not, and in the queue, which counts places.

    Args:
        workflow: One that has not ended.
        pods: The nodes of its pods, in pipeline order.
    """
    if workflow["spec"].get("suspend"):
        return "An operator of this service has paused this build." if pods else ""
    if not pods:
        said = (workflow.get("status") or {}).get("message")
        return f"Waiting for Argo: {_clean(said)}" if said else "Waiting for Argo to start the build."
    pending = next((pod for pod in pods if pod["phase"] == "Pending"), None)
    return _of_pod(pending.get("message") or "") if pending is not None else ""


def _of_pod(message: str) -> str:
    word, _, said = message.partition(": ")
    if word == _NODE:
        return "Waiting for a node: none has room for this build yet."
    if word in _PULL:
        return f"The image of this build's steps cannot be pulled: {_clean(said or word)}"
    if word in _REFUSED:
        return f"A node cannot start this build: {_clean(said or word)}"
    return "Waiting for a node to start the build."


def _clean(text: str) -> str:
    return " ".join(printable(text).split())[:_SAID]
