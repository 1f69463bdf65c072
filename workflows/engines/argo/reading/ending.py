"""Why a Workflow failed: who stopped it, what became of its pods, and only then what its steps said."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.build import StepStatus
from workflows.engines.argo.order import REASON
from workflows.engines.argo.reading.nodes import Node, is_killed, node_of, pods_of, said
from workflows.errors import SENTENCES, SKIPPED_EXIT_CODES, Reason
from workflows.image import BuildName
from workflows.pipeline import Step, reason_of

_logger = logging.getLogger(__name__)

_PODS = (
    # The kubelet's and Argo's own words, which no container can put at the beginning of a pod's message: what those
    # say stands behind the container's name.
    ("Pod was active on the node longer than", Reason.TIMEOUT),
    ("Step exceeded its deadline", Reason.TIMEOUT),
    ("Usage of EmptyDir volume", Reason.TOO_LARGE),
    ("Pod ephemeral local storage usage exceeds", Reason.TOO_LARGE),
    ("Container ", Reason.TOO_LARGE),  # "… exceeded its local ephemeral storage limit"
    ("The node ", Reason.EVICTED),  # "… was low on resource", "… had condition"
    ("Pod was terminated in response to imminent node shutdown", Reason.EVICTED),
    ("Preempted", Reason.EVICTED),
    ("Pod was rejected", Reason.EVICTED),
    ("pod deleted", Reason.TRANSIENT),
)
"""How the message of a pod that failed begins, and the reason that it stands for."""

_LOST = "pod deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a failed build ended.

    Args:
        reason: Why.
        message: The sentence for the visitor.
        is_lost: Whether its pod was taken away, by nobody's fault and with nothing said.
    """

    reason: Reason
    message: str
    is_lost: bool = False


def ending_of(
    workflow: Node, name: BuildName, plan: Sequence[Step], nodes: Mapping[str, Node], steps: Sequence[StepStatus]
) -> Ending | None:
    """How a Workflow that failed ended; None where its image is published all the same.

    Args:
        workflow: The Workflow.
        name: The build.
        plan: Its steps.
        nodes: By name.
        steps: How each of them ended.
    """
    codes = {step.name: step.exit_code for step in steps if step.exit_code is not None}
    if all(codes.get(step.name) == 0 for step in plan if step.gates):
        # What ran beside (a scan under policy `report`) may have failed: everybody can launch the image by now.
        return None
    pods = pods_of(name, plan, nodes)
    if (told := _stopped(workflow)) or (told := _of_pods(pods)):
        return Ending(reason=told, message=SENTENCES[told], is_lost=any(pod.get("message") == _LOST for pod in pods))
    failed = next((step for step in plan if step.gates and codes.get(step.name, 0) not in SKIPPED_EXIT_CODES), None)
    node = node_of(failed, name, nodes) if failed else None
    reason = reason_of(codes, tuple(plan)) if node else None
    if node is None or reason is None:
        return _unexplained(workflow, name, nodes, Reason.INTERNAL if pods else Reason.CONFIG)
    is_lost = reason is Reason.TRANSIENT and is_killed(node)
    return Ending(reason=reason, message=said(node) or SENTENCES[reason], is_lost=is_lost)


def _stopped(workflow: Node) -> Reason | None:
    if not workflow["spec"].get("shutdown"):
        return None
    given = (workflow["metadata"].get("annotations") or {}).get(REASON)
    # `argo stop`, `argo terminate` and Argo's UI give no reason.
    return Reason(given) if given in set(Reason) else Reason.CANCELLED


def _of_pods(pods: Sequence[Node]) -> Reason | None:
    messages = [pod.get("message") or "" for pod in pods if pod["phase"] in {"Failed", "Error"}]
    return next((reason for text in messages for start, reason in _PODS if text.startswith(start)), None)


def _unexplained(workflow: Node, name: BuildName, nodes: Mapping[str, Node], reason: Reason) -> Ending:
    # Where there is not even a first pod, Argo did not understand what it was given: a template, a ConfigMap.
    messages = [workflow["status"].get("message"), *(node.get("message") for node in nodes.values())]
    _logger.error("%s failed, and no step says why: %s", name, "; ".join(text for text in messages if text)[:2000])
    return Ending(reason=reason, message=SENTENCES[reason])
