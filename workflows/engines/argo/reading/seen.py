"""From a Workflow as Kubernetes has it to what the farm says of a build."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workflows.build import BuildRequest, BuildStatus, Lane, State, StepStatus
from workflows.engines.argo.order import ADMITTED, CREATED, REQUEST
from workflows.engines.argo.reading.ending import ending_of
from workflows.engines.argo.reading.nodes import Node, node_of, nodes_of, pods_of, seconds, steps_of
from workflows.engines.argo.reading.waiting import words
from workflows.engines.argo.site import LABEL, RECORDED
from workflows.image import BuildName, CommitSHA, ImageName
from workflows.pipeline import PUBLISH, RESOLVE, Entry, Step, ours_of, plan
from workflows.settings import Settings

_logger = logging.getLogger(__name__)

_RESUBMITTED = "workflows.argoproj.io/resubmitted-from-workflow"
"""Label that `argo resubmit` puts on what it makes, beside labels and annotations of the Workflow that it copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Workflow, read.

    Args:
        status: What the farm says of it.
        plan: Its steps.
        pending_since: Since when a pod of it has not started, in seconds since the epoch; 0 where none is waited for.
        is_told_to_end: Whether somebody has said that it should end.
        is_recorded: Whether it is filed.
    """

    status: BuildStatus
    plan: tuple[Step, ...]
    pending_since: float = 0
    is_told_to_end: bool = False
    is_recorded: bool = False


def read(workflow: Node, settings: Settings) -> Seen | None:
    """What a Workflow says of a build; None where it is none of ours, or what makes it ours cannot be read.

    Args:
        workflow: The Workflow.
        settings: For the scan policy, which decides the plan.
    """
    about = workflow["metadata"]
    labels = about.get("labels") or {}
    if labels.get(LABEL) != "true":
        return None
    name, nodes = BuildName(about["name"]), nodes_of(workflow)
    entry = _entry(workflow)
    steps = _plan(entry, settings)
    try:
        request = _request(workflow, name, nodes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _logger.warning("Workflow %s says nothing that can be read as a build: %s", name, error)
        return None
    status = _status(workflow, request, steps, nodes)
    return Seen(
        status=status,
        plan=steps,
        pending_since=_pending_since(status, pods_of(name, steps, nodes)),
        is_told_to_end=bool(workflow["spec"].get("shutdown")),
        is_recorded=labels.get(RECORDED) == "true",
    )


def _entry(workflow: Node) -> Entry:
    given = workflow["spec"].get("entrypoint") or Entry.FROM_SPEC.value
    return Entry(given) if given in set(Entry) else Entry.FROM_SPEC


def _plan(entry: Entry, settings: Settings) -> tuple[Step, ...]:
    steps = plan(policy=settings.scan_policy, attach=True, resolve=entry is Entry.FROM_SPEC)
    return ours_of(steps) if entry is Entry.OURS else steps


# --- what was asked for ---


def _request(workflow: Node, name: BuildName, nodes: Mapping[str, Node]) -> BuildRequest:
    annotations = workflow["metadata"].get("annotations") or {}
    text = annotations.get(REQUEST) or _resolved(name, nodes)
    if not text:
        return _unresolved(workflow, name)
    request = BuildRequest.from_json(text)
    # `argo resubmit` copies the annotations of another: a build is called what its Workflow is.
    return request if request.name == name else replace(request, named=name)


def _resolved(name: BuildName, nodes: Mapping[str, Node]) -> str:
    node = node_of(RESOLVE, name, nodes) or {}
    found = _values((node.get("outputs") or {}).get("parameters"))
    return found.get("request", "")


def _unresolved(workflow: Node, name: BuildName) -> BuildRequest:
    """What is known of a Workflow that stands on its own before its first step has ended."""
    given = _values((workflow["spec"].get("arguments") or {}).get("parameters"))
    provider, spec = given.get("provider", ""), given.get("spec", "")
    return BuildRequest(
        image=ImageName(""),
        provider=provider,
        spec=spec,
        ref="",
        commit=CommitSHA(""),
        repo_url="",
        clone_url="",
        slug=spec,
        owner="",
        lane=Lane.PREBUILD,
        named=name,
    )


def _values(parameters: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    return {each["name"]: str(each.get("value") or "") for each in parameters or ()}


# --- how it stands ---


def _status(workflow: Node, request: BuildRequest, steps: tuple[Step, ...], nodes: Mapping[str, Node]) -> BuildStatus:
    about, said = workflow["metadata"], workflow.get("status") or {}
    # The times of one that was copied are not its own.
    annotations = {} if _RESUBMITTED in (about.get("labels") or {}) else about.get("annotations") or {}
    state = _state(workflow, nodes)
    found = _steps(request.name, steps, nodes, state, seconds(said.get("finishedAt")))
    status = BuildStatus(
        request=request,
        state=state,
        created=_number(annotations.get(CREATED)) or seconds(about["creationTimestamp"]),
        started=_started(annotations, nodes, state),
        ended=seconds(said.get("finishedAt")) if state.ended else 0,
        published=next((step.ended for step in found if step.name == PUBLISH.name and step.exit_code == 0), 0),
        steps=tuple(found),
    )
    if state is State.FAILED:
        return _failed(workflow, status, steps, nodes)
    return replace(status, message=words(workflow, pods_of(request.name, steps, nodes)) if not state.ended else "")


def _state(workflow: Node, nodes: Mapping[str, Node]) -> State:
    phase = (workflow.get("status") or {}).get("phase", "")
    if phase == "Succeeded":
        return State.SUCCEEDED
    if phase in {"Failed", "Error"}:
        return State.FAILED
    # One that an operator suspends in the middle has left the queue all the same.
    return State.QUEUED if workflow["spec"].get("suspend") and not nodes else State.RUNNING


def _steps(
    name: BuildName, steps: tuple[Step, ...], nodes: Mapping[str, Node], state: State, ended: float
) -> list[StepStatus]:
    if state is State.SUCCEEDED and not nodes:
        # Argo keeps the nodes elsewhere, and says all the same that every one of them has ended well.
        return [StepStatus(name=step.name, ended=ended, exit_code=0) for step in steps]
    return steps_of(name, steps, nodes, is_over=state.ended)


def _started(annotations: Mapping[str, str], nodes: Mapping[str, Node], state: State) -> float:
    if state is State.QUEUED:
        return 0
    # Who was not admitted by us (submitted by hand, or resumed in Argo's UI) began with the first node.
    first = min((at for node in nodes.values() if (at := seconds(node.get("startedAt")))), default=0)
    return _number(annotations.get(ADMITTED)) or first


def _failed(workflow: Node, status: BuildStatus, steps: tuple[Step, ...], nodes: Mapping[str, Node]) -> BuildStatus:
    ending = ending_of(workflow, status.name, steps, nodes, status.steps)
    if ending is None:
        return replace(status, state=State.SUCCEEDED)
    return replace(status, reason=ending.reason, message=ending.message, lost=ending.is_lost)


def _pending_since(status: BuildStatus, pods: Sequence[Node]) -> float:
    if status.state is not State.RUNNING:
        return 0
    if not pods:
        return status.started
    return next((seconds(pod.get("startedAt")) for pod in pods if pod["phase"] == "Pending"), 0)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0
