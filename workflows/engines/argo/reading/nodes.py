"""What Argo says of a build's pods and containers, by step.

Source: https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus, and Argo's ``assessNodeStatus``, which
writes ``<container>: <word> (exit code <n>): <what the container left in its termination log>``.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflows.build import StepStatus
from workflows.engines.argo import pod
from workflows.errors import EXIT_CODES, SKIPPED, Reason
from workflows.events import printable
from workflows.image import BuildName
from workflows.pipeline import RESOLVE, Step

Node = Mapping[str, Any]

_ENDING = re.compile(r"[a-z-]+: (?P<word>\w*) \(exit code (?P<code>\d+)\)(: (?P<said>.*))?", re.DOTALL)
_FULFILLED = frozenset({"Succeeded", "Failed", "Error", "Skipped", "Omitted"})
_OUT_OF_MEMORY = "OOMKilled"
_SAID = 1000
_MAX_NODES_BYTES = 64 * 1024**2
_KILLED = frozenset({137, 143})
"""By SIGKILL and SIGTERM: not the step's own word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step runs.

    Args:
        pod: Name of the pod.
        container: Name of the container in it.
    """

    pod: str
    container: str


def nodes_of(workflow: Node) -> dict[str, Node]:
    """The nodes by their names; none where Argo keeps them in a database of its own (``offloadNodeStatusVersion``)."""
    status = workflow.get("status") or {}
    nodes = status.get("nodes") or {}
    if not nodes and (packed := status.get("compressedNodes")):
        # Of a very large Workflow. Nobody but Argo writes it; it is bounded all the same.
        with gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(packed))) as file:
            nodes = json.loads(file.read(_MAX_NODES_BYTES))
    return {node["name"]: node for node in nodes.values()}


def places(name: BuildName, steps: Sequence[Step]) -> dict[str, Place]:
    """Where each step runs, by the step's name and in pipeline order: known before there is a pod."""
    return {step.name: Place(pod=_pod_name(name, _task(step)), container=pod.container_of(step)) for step in steps}


def pods_of(name: BuildName, steps: Sequence[Step], nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes of those pods that there are, in pipeline order."""
    return [nodes[node] for task in pod.halves(tuple(steps)) if (node := f"{name}.{task}") in nodes]


def steps_of(name: BuildName, steps: Sequence[Step], nodes: Mapping[str, Node], *, is_over: bool) -> list[StepStatus]:
    """How each step stands.

    Args:
        name: The build.
        steps: Its plan.
        nodes: By name.
        is_over: Whether nothing goes on any more: a step without a word of its own has then been left out.
    """
    known: dict[str, StepStatus] = {}
    for step in steps:
        known[step.name] = _step(step, node_of(step, name, nodes), known, is_over=is_over)
    return list(known.values())


def node_of(step: Step, name: BuildName, nodes: Mapping[str, Node]) -> Node | None:
    """The node of a step; None before Argo has made one, and where it left the step out."""
    task = _task(step)
    # resolve's pod has one container, and Argo speaks of the pod alone.
    return nodes.get(f"{name}.{task}" if step.name == RESOLVE.name else f"{name}.{task}.{step.name}")


def said(node: Node) -> str:
    """What a container that failed told the visitor, in its termination log; empty where it told nothing."""
    return _parse(node)[2]


def is_killed(node: Node) -> bool:
    """Whether somebody else ended a container: not it itself, and not its memory limit."""
    code, word, _ = _parse(node)
    return code in _KILLED and word != _OUT_OF_MEMORY


def seconds(text: object) -> float:
    """A time of Kubernetes' in seconds since the epoch; 0 where there is none."""
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) and text else 0


def _step(step: Step, node: Node | None, known: Mapping[str, StepStatus], *, is_over: bool) -> StepStatus:
    needs = [known[need] for need in step.needs if need in known]
    is_begun = node is not None and node["phase"] not in {"Pending", "Skipped", "Omitted"}
    if any(need.exit_code != 0 for need in needs):
        # Argo starts every container at once; one whose needs did not end well has done nothing.
        is_left_out = is_over or any(need.exit_code for need in needs)
        return StepStatus(name=step.name, exit_code=SKIPPED if is_left_out else None)
    if node is None or not is_begun:
        return StepStatus(name=step.name, exit_code=SKIPPED if is_over or _is_fulfilled(node) else None)
    started = max([seconds(node.get("startedAt")), *(need.ended for need in needs)])
    code = _code(node) if _is_fulfilled(node) else EXIT_CODES[Reason.TRANSIENT] if is_over else None
    ended = max(started, seconds(node.get("finishedAt"))) if code is not None else 0
    return StepStatus(name=step.name, started=started, ended=ended, exit_code=code)


def _is_fulfilled(node: Node | None) -> bool:
    return node is not None and node["phase"] in _FULFILLED


def _code(node: Node) -> int:
    if node["phase"] == "Succeeded":
        return 0
    code, word, _ = _parse(node)
    if word == _OUT_OF_MEMORY:
        return EXIT_CODES[Reason.OUT_OF_MEMORY]
    # Without a code of its own it was ended from outside, as the local engine says it of a step.
    return EXIT_CODES[Reason.TRANSIENT] if code is None or code in _KILLED else code


def _parse(node: Node) -> tuple[int | None, str, str]:
    """Exit code, Kubernetes' word for it, and what the container said."""
    found = _ENDING.fullmatch(node.get("message") or "")
    if found is None:
        return None, "", ""
    text = " ".join(printable(found["said"] or "").split())
    return int(found["code"]), found["word"], text[:_SAID]


def _task(step: Step) -> str:
    return next(iter(pod.halves((step,))))


def _pod_name(name: BuildName, task: str) -> str:
    """As Argo names the pod of a task (its format v2, the default since 3.4).

    Source: Argo's ``util.GeneratePodName``: FNV-1a, 32 bits, of the node's name.
    """
    digest = 0x811C9DC5
    for byte in f"{name}.{task}".encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{name}-{pod.template_of(task)}-{digest}"
