"""What a Workflow says of a build: the files in ``workflows/`` are Workflows that a real Argo wrote."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fakes import request
from workflows.build import BuildOptions, BuildRequest, Lane, State
from workflows.engines.argo import order
from workflows.engines.argo.reading.nodes import places, seconds
from workflows.engines.argo.reading.seen import Seen, read
from workflows.errors import SENTENCES, Reason
from workflows.pipeline import Entry, plan
from workflows.settings import Settings

FOLDER = Path(__file__).parent / "workflows"
SETTINGS = Settings(engine="argo", image_store="registry")


def workflow(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def seen(given: str | dict[str, Any], settings: Settings = SETTINGS) -> Seen:
    found = read(workflow(given) if isinstance(given, str) else given, settings)
    assert found is not None
    return found


def codes(found: Seen) -> dict[str, int | None]:
    return {step.name: step.exit_code for step in found.status.steps}


def test_a_build_that_went_well() -> None:
    status = seen("succeeded").status
    assert (status.state, status.reason, status.message, status.lost) == (State.SUCCEEDED, None, "", False)
    assert {step.exit_code for step in status.steps} == {0}
    assert [step.name for step in status.steps] == [step.name for step in plan(policy="report", attach=True)]
    assert status.created < status.started < status.published <= status.ended
    assert all(status.started - 1 < step.started <= step.ended for step in status.steps)
    assert status.name == workflow("succeeded")["metadata"]["name"]


def test_a_step_begins_when_what_it_needs_has_ended() -> None:
    steps = {step.name: step for step in seen("succeeded").status.steps}
    assert steps["build"].started >= steps["fetch"].ended
    assert steps["stage"].started >= steps["build"].ended


def test_a_suspended_workflow_without_a_pod_waits_in_the_queue() -> None:
    status = seen("queued").status
    assert (status.state, status.started, status.ended, status.message) == (State.QUEUED, 0, 0, "")
    assert {step.exit_code for step in status.steps} == {None}


def test_a_running_build_shows_which_step_runs() -> None:
    found = seen("running")
    assert found.status.state is State.RUNNING
    steps = {step.name: step for step in found.status.steps}
    assert steps["fetch"].exit_code == 0
    assert steps["build"].started > 0
    assert steps["build"].exit_code is None
    assert (steps["stage"].started, steps["push"].started) == (0, 0)
    assert (found.pending_since, found.status.message) == (0, "")


@pytest.mark.parametrize(
    ("name", "reason", "failed", "message"),
    [
        ("build-failed", Reason.BUILD, ("build", 10), "The environment does not build."),
        ("not-found", Reason.NOT_FOUND, ("fetch", 66), "The repository does not exist."),
        ("push-failed", Reason.TRANSIENT, ("push", 75), "The registry does not answer."),
        ("out-of-memory", Reason.OUT_OF_MEMORY, ("build", 71), SENTENCES[Reason.OUT_OF_MEMORY]),
        ("too-large", Reason.TOO_LARGE, ("build", 75), SENTENCES[Reason.TOO_LARGE]),
        ("deadline", Reason.TIMEOUT, ("build", 75), SENTENCES[Reason.TIMEOUT]),
        ("stopped", Reason.SUPERSEDED, ("build", 75), SENTENCES[Reason.SUPERSEDED]),
        ("terminated", Reason.CANCELLED, ("build", 75), SENTENCES[Reason.CANCELLED]),
        ("by-hand-wrong", Reason.NOT_FOUND, ("resolve", 66), "There is no such repository."),
    ],
)
def test_each_failure_has_its_reason_and_its_sentence(
    name: str, reason: Reason, failed: tuple[str, int], message: str
) -> None:
    found = seen(name)
    status = found.status
    assert (status.state, status.reason, status.message) == (State.FAILED, reason, message)
    assert codes(found)[failed[0]] == failed[1]
    assert status.ended > 0
    assert not status.published
    order_of = [step.name for step in found.plan]
    after = order_of[order_of.index(failed[0]) + 1 :]
    assert {codes(found)[step] for step in after} == {64}


def test_a_build_that_was_stopped_in_the_queue_ran_nothing() -> None:
    found = seen("stopped-queued")
    assert found.status.reason is Reason.QUEUE_TIMEOUT
    assert set(codes(found).values()) == {64}


def test_a_scan_that_fails_beside_takes_no_image_away() -> None:
    found = seen("scan-failed")
    assert (found.status.state, found.status.reason) == (State.SUCCEEDED, None)
    assert found.status.published > 0
    assert codes(found)["scan"] == 78


def test_under_enforce_the_same_scan_is_why_it_failed() -> None:
    settings = Settings(engine="argo", image_store="registry", scan_policy="enforce")
    found = seen("scan-failed", settings)
    assert (found.status.state, found.status.reason) == (State.FAILED, Reason.CONFIG)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unschedulable", "Waiting for a node: none has room"),
        ("unpullable", "image of this build's steps cannot be pulled: "),
    ],
)
def test_a_pod_that_does_not_start_is_told_in_words_and_counted(name: str, words: str) -> None:
    found = seen(name)
    assert found.status.state is State.RUNNING
    assert words in found.status.message
    assert found.pending_since > 0


def test_where_argo_has_not_begun_yet_that_is_said() -> None:
    given = workflow("queued")
    del given["spec"]["suspend"]
    given["metadata"]["annotations"][order.ADMITTED] = "1795558000.5"
    found = seen(given)
    assert (found.status.state, found.status.started) == (State.RUNNING, 1795558000.5)
    assert found.pending_since == 1795558000.5
    assert "Argo" in found.status.message
    del given["status"]
    assert "Argo" in seen(given).status.message


def test_a_build_that_an_operator_pauses_says_so_and_is_not_in_the_queue() -> None:
    given = workflow("running")
    given["spec"]["suspend"] = True
    status = seen(given).status
    assert status.state is State.RUNNING
    assert "paused" in status.message


def test_who_resumes_by_hand_has_overruled_the_queue() -> None:
    given = workflow("running")
    del given["metadata"]["annotations"][order.ADMITTED]
    status = seen(given).status
    assert status.state is State.RUNNING
    assert status.started > 0


def test_who_told_a_waiting_one_to_end_is_noticed() -> None:
    given = workflow("queued")
    given["spec"]["shutdown"] = "Terminate"
    found = seen(given)
    assert (found.status.state, found.is_told_to_end) == (State.QUEUED, True)


@pytest.mark.parametrize(
    ("message", "reason", "lost"),
    [
        (
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1, available: 0. ",
            Reason.EVICTED,
            False,
        ),
        ("The node had condition: [DiskPressure]. ", Reason.EVICTED, False),
        ("Pod was terminated in response to imminent node shutdown.", Reason.EVICTED, False),
        ("Preempted in order to admit critical pod", Reason.EVICTED, False),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", Reason.TOO_LARGE, False),
        ('Container build exceeded its local ephemeral storage limit "1Gi". ', Reason.TOO_LARGE, False),
        ("Step exceeded its deadline", Reason.TIMEOUT, False),
        ("pod deleted", Reason.TRANSIENT, True),
    ],
)
def test_what_became_of_a_pod_counts_more_than_what_its_containers_said(
    message: str, reason: Reason, *, lost: bool
) -> None:
    given = workflow("deadline")
    for node in given["status"]["nodes"].values():
        if node["type"] == "Pod":
            node["message"] = message
    status = seen(given).status
    assert (status.reason, status.lost) == (reason, lost)


def test_a_container_cannot_speak_for_the_kubelet() -> None:
    given = workflow("build-failed")
    for node in given["status"]["nodes"].values():
        if node.get("message", "").startswith("build: "):
            node["message"] = "build: Error (exit code 10): The node was low on resource: pod deleted"
    status = seen(given).status
    assert (status.reason, status.lost) == (Reason.BUILD, False)
    assert status.message == "The node was low on resource: pod deleted"


def test_a_step_that_was_killed_from_outside_is_lost() -> None:
    given = workflow("build-failed")
    for node in given["status"]["nodes"].values():
        if node.get("message", "").startswith("build: "):
            node["message"] = "build: Error (exit code 137): "
    status = seen(given).status
    assert (status.reason, status.lost, status.message) == (Reason.TRANSIENT, True, SENTENCES[Reason.TRANSIENT])


def test_what_a_container_says_is_made_harmless_and_short() -> None:
    given = workflow("build-failed")
    for node in given["status"]["nodes"].values():
        if node.get("message", "").startswith("build: "):
            node["message"] = f"build: Error (exit code 10): \x1b[31mred\x1b[0m\n\u202e{'x' * 5000}\n"
    message = seen(given).status.message
    assert message.startswith("red �x")
    assert len(message) == 1000


def test_where_nothing_says_why_it_is_the_services_fault(caplog: pytest.LogCaptureFixture) -> None:
    given = workflow("build-failed")
    given["status"]["nodes"] = {}
    given["status"]["message"] = 'templates.argoproj.io "argosy-build" not found'
    status = seen(given).status
    assert status.reason is Reason.CONFIG
    assert "not found" in caplog.text
    given = workflow("build-failed")
    for node in given["status"]["nodes"].values():
        node["message"] = "init: Error (exit code 64)"
    assert seen(given).status.reason is Reason.INTERNAL


# --- Workflows that stand on their own ---


def test_a_workflow_by_hand_is_a_build_by_its_own_name() -> None:
    found = seen("by-hand")
    assert found.status.state is State.SUCCEEDED
    assert found.status.name == "by-hand"
    asked = found.status.request
    assert (asked.named, asked.lane, asked.owner) == ("by-hand", Lane.PREBUILD, "owner")
    assert found.status.steps[0].name == "resolve"
    assert set(codes(found).values()) == {0}
    assert found.status.started > 0


def test_before_it_is_resolved_its_provider_and_spec_are_known() -> None:
    found = seen("by-hand-resolving")
    asked = found.status.request
    assert (asked.provider, asked.spec, asked.commit, asked.image) == ("gh", "owner/repo/main", "", "")
    assert found.status.name == "by-hand-resolving"
    assert found.status.state is State.RUNNING


def test_one_whose_image_is_known_ends_well_and_publishes_nothing() -> None:
    found = seen("by-hand-known")
    assert (found.status.state, found.status.published) == (State.SUCCEEDED, 0)
    assert codes(found) == {"resolve": 0} | dict.fromkeys([step.name for step in found.plan[1:]], 64)


def test_who_resubmits_a_build_has_a_build_of_another_name() -> None:
    given = workflow("succeeded")
    about = given["metadata"]
    about["name"] += "-x7k2p"
    about["labels"] |= {
        "workflows.argoproj.io/resubmitted-from-workflow": "build-of-old",
        "argosy/recorded": "false",  # the template's; that of the other was copied before
    }
    about["annotations"] |= {order.CREATED: "1.000", order.ADMITTED: "2.000"}
    found = seen(given)
    assert found.status.name == about["name"]
    assert found.status.request.named == found.status.name
    assert not found.is_recorded
    assert found.status.created == seconds(about["creationTimestamp"])
    assert found.status.created <= found.status.started <= found.status.ended


def test_an_image_that_is_held_goes_through_our_half_alone() -> None:
    held = request(held="sha256:" + "a" * 64)
    given = order.workflow(held, "argosy-build", 1.0)
    assert given["spec"]["entrypoint"] == Entry.OURS
    given["metadata"] |= {"creationTimestamp": "2026-11-24T00:00:00Z"}
    assert [step.name for step in seen(given).plan] == ["push", "publish", "scan", "attach"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"image": "x"}', '{"lane": "none"}', "[" * 50_000])
def test_what_cannot_be_read_is_no_build(text: str) -> None:
    given = workflow("queued")
    given["metadata"]["annotations"][order.REQUEST] = text or "x"
    assert read(given, SETTINGS) is None


def test_somebody_elses_workflow_is_no_build() -> None:
    given = workflow("queued")
    given["metadata"]["labels"] = {}
    assert read(given, SETTINGS) is None


# --- where Argo keeps the nodes ---


def test_compressed_nodes_are_nodes() -> None:
    given = workflow("build-failed")
    plain = seen(copy.deepcopy(given))
    nodes = given["status"].pop("nodes")
    given["status"]["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    assert seen(given) == plain


def test_of_nodes_in_a_database_the_end_is_known_all_the_same() -> None:
    given = workflow("succeeded")
    given["status"].pop("nodes")
    given["status"]["offloadNodeStatusVersion"] = "fnv:1"
    status = seen(given).status
    assert (status.state, status.published > 0) == (State.SUCCEEDED, True)
    given["status"]["phase"] = "Failed"
    assert seen(given).status.state is State.FAILED
    given["status"]["phase"] = "Running"
    assert seen(given).status.state is State.RUNNING


# --- what is submitted ---


def test_a_workflow_is_thin_and_suspended() -> None:
    wish = request(network="192.0.2.0/24", options=BuildOptions(appendix="RUN {{workflow.name}}"))
    made = order.workflow(wish, "argosy-build-0123456789", 1.5)
    assert set(made["spec"]) == {"workflowTemplateRef", "entrypoint", "arguments", "priority", "suspend"}
    assert made["spec"]["suspend"] is True
    given = {each["name"]: each["value"] for each in made["spec"]["arguments"]["parameters"]}
    assert "{{" not in json.dumps(given)
    assert given["title"] == "owner/repo @ aaaaaaa (launch)"
    assert "build" not in given
    assert BuildRequest.from_json(made["metadata"]["annotations"][order.REQUEST]) == wish
    assert made["metadata"]["labels"] == {
        "argosy/pipeline": "true",
        "argosy/provider": "gh",
        "argosy/repository": "owner-repo",
        "argosy/commit": "a" * 40,
        "argosy/lane": "launch",
        "argosy/requester": "192.0.2.0-24",
        "argosy/owner": "owner",
    }


def test_lanes_are_argos_priorities_too() -> None:
    priorities = [order.workflow(request(lane=lane), "x", 1)["spec"]["priority"] for lane in Lane]
    assert priorities == sorted(priorities, reverse=True)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("owner/repo", "owner-repo"),
        ("https://git.example/a b", "https-git.example-a-b"),
        ("-.x.-", "x"),
        ("ä", ""),
        ("", ""),
        ("a" * 62 + "/" + "b" * 10, "a" * 62),
        ("x_Y.z-0", "x_Y.z-0"),
    ],
)
def test_a_label_holds_what_it_can(text: str, safe: str) -> None:
    assert order.label(text) == safe


def test_what_would_be_an_empty_label_is_none() -> None:
    labels = order.workflow(request(slug="///", network=""), "x", 1)["metadata"]["labels"]
    assert {"argosy/repository", "argosy/requester"}.isdisjoint(labels)


@pytest.mark.parametrize("name", ["succeeded", "build-failed", "by-hand"])
def test_pods_are_found_by_the_name_that_argo_gives_them(name: str) -> None:
    given = workflow(name)
    nodes = given["status"]["nodes"].values()
    expected = {
        f"{given['metadata']['name']}-{node['templateName']}-{node['id'].rpartition('-')[2]}"
        for node in nodes
        if node["type"] == "Pod"
    }
    found = {place.pod for place in places(given["metadata"]["name"], seen(given).plan).values()}
    assert expected <= found
