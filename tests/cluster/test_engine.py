"""The engine on a real Kubernetes and a real Argo: what becomes of a build, whoever has a hand in it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cluster import site
from tests.cluster.namespace import kubectl
from tests.cluster.replica import Replica, fails, patiently, replica, wish
from workflows.build import BuildStatus, LogLine, State, only_lines
from workflows.engines.argo.site import RECORDED, SETTINGS_MAP
from workflows.errors import Reason
from workflows.image import BuildName

DIGEST = "sha256:" + "1" * 64
PUSHED = json.dumps({"image": "x", "digest": DIGEST})
HANGS = "sleep 600"


@pytest.fixture(scope="module")
def farm() -> Iterator[Replica]:
    with replica("engine") as made:
        yield made


@pytest.fixture
def number(request: pytest.FixtureRequest) -> int:
    """A number for this test's builds, and no other's: tests run in any order."""
    return 100 * (1 + sorted(item.nodeid for item in request.session.items).index(request.node.nodeid))


def is_cancelled(farm: Replica, name: BuildName, reason: Reason = Reason.CANCELLED) -> BuildStatus:
    """That a build ended so, published nothing, and left no pod."""
    status = farm.ended(name)
    assert (status.state, status.reason, status.published) == (State.FAILED, reason, 0)
    farm.until(lambda: not farm.pods(name))
    return status


def lines_of(farm: Replica, name: BuildName, into: list[LogLine]) -> threading.Thread:
    """Follows a log in a thread of its own."""
    thread = threading.Thread(target=lambda: into.extend(only_lines(farm.engine.logs(name))), daemon=True)
    thread.start()
    return thread


def test_a_build_goes_through_every_step_and_leaves_what_it_said(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), push=f"echo '{PUSHED}'", fetch="echo one; sleep 1; echo two", scan="sleep 10")
    lines = [line for line in only_lines(farm.engine.logs(name)) if not line.text.startswith("argument ")]
    status = farm.ended(name)
    assert status.state is State.SUCCEEDED
    assert {step.exit_code for step in status.steps} == {0}
    assert status.created <= status.started <= status.published <= status.ended
    assert [(line.step, line.text) for line in lines] == [("fetch", "one"), ("fetch", "two"), ("push", PUSHED)]
    assert json.loads(farm.engine.outputs(name)["pushed.json"])["digest"] == DIGEST
    heard = [each for each in farm.heard if each.name == name]
    assert heard[0].state is State.QUEUED
    # A visitor may launch before Argo calls the Workflow ended.
    assert any(each.published and not each.state.ended for each in heard)
    spec = farm.workflow(name)["spec"]
    assert spec["workflowTemplateRef"]["name"] == farm.settings.workflow_template


def test_a_failure_has_the_reason_of_its_step_and_the_visitors_sentence(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), build=fails(10, "The environment does not build."))
    status = farm.ended(name)
    assert (status.reason, status.message) == (Reason.BUILD, "The environment does not build.")
    assert {step.name: step.exit_code for step in status.steps}["stage"] == 64
    farm.engine.forget(name)
    farm.until(lambda: farm.engine.seen(name) is None)
    assert farm.engine.status(name) is None
    # Argo's own list says our sentence then, and the Workflow stays.
    assert farm.workflow(name)["status"]["message"] == "The environment does not build."
    assert farm.workflow(name)["metadata"]["labels"][RECORDED] == "true"


def test_two_replicas_that_submit_at_once_have_one_build(farm: Replica, number: int) -> None:
    other = Replica(farm.place)
    asked = wish(number)
    farm.plan(asked, {"fetch": "echo once"})
    found: list[BuildStatus] = []
    jobs = [
        threading.Thread(target=lambda engine=engine: found.append(patiently(lambda: engine.submit(asked))))
        for engine in (farm.engine, other.engine) * 5
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert {status.name for status in found} == {asked.name}
    assert len({status.created for status in found}) == 1
    assert farm.ended(asked.name).state is State.SUCCEEDED
    other.until(lambda: (last := other.last(asked.name)) and last.state.ended)
    for engine in (farm.engine, other.engine):
        assert [line.text for line in only_lines(engine.logs(asked.name)) if line.text == "once"] == ["once"]
    other.close()


def test_a_name_that_is_filed_is_still_taken(farm: Replica, number: int) -> None:
    """Who submits it again learns that it ended; `web.recording.attempts` goes on to the next attempt then."""
    asked = wish(number)
    farm.submit(asked, fetch=fails(66))
    farm.ended(asked.name)
    farm.engine.forget(asked.name)
    farm.until(lambda: farm.engine.status(asked.name) is None)
    assert farm.engine.submit(asked).state is State.FAILED


def test_a_build_that_waits_is_stopped_without_a_pod(farm: Replica, number: int) -> None:
    farm.is_admitting = False
    try:
        name = farm.submit(wish(number))
        farm.until(lambda: farm.last(name))
        farm.engine.stop(name, Reason.CANCELLED)
        is_cancelled(farm, name)
        assert farm.place.list("pods", f"workflows.argoproj.io/workflow={name}") == []
    finally:
        farm.is_admitting = True


def test_a_build_that_runs_is_stopped_for_the_reason_that_was_given(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), build=HANGS)
    farm.until(lambda: farm.runs(name, "build"))
    farm.engine.stop(name, Reason.SUPERSEDED)
    is_cancelled(farm, name, Reason.SUPERSEDED)
    farm.engine.stop(name, Reason.CANCELLED)
    assert farm.status(name).reason is Reason.SUPERSEDED


@pytest.mark.parametrize("is_running", [True, False])
def test_a_build_that_is_deleted_was_cancelled(farm: Replica, number: int, is_running: bool) -> None:  # noqa: FBT001
    farm.is_admitting = is_running
    try:
        name = farm.submit(wish(number), build=HANGS)
        farm.until(lambda: farm.last(name) and (not is_running or farm.runs(name, "build")))
        kubectl("delete", "workflow", name, "--namespace", farm.place.name, "--wait=false")
        is_cancelled(farm, name)
        assert farm.engine.status(name) is None
        assert list(only_lines(farm.engine.logs(name))) == []
    finally:
        farm.is_admitting = True


def test_an_operator_who_resubmits_a_filed_build_has_a_new_one(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), fetch=fails(66))
    first = farm.ended(name)
    farm.engine.forget(name)
    farm.until(lambda: farm.engine.status(name) is None)
    farm.argo("resubmit", name)
    (made,) = farm.place.list("workflow", f"workflows.argoproj.io/resubmitted-from-workflow={name}")
    status = farm.ended(BuildName(made["metadata"]["name"]))
    assert status.state is State.SUCCEEDED
    # Whole seconds both; times that were copied would be of before it ended.
    assert first.ended <= status.created <= status.started <= status.published
    assert status.request.image == first.request.image


def test_an_operator_who_resumes_overrules_the_queue(farm: Replica, number: int) -> None:
    farm.is_admitting = False
    try:
        name = farm.submit(wish(number), build="sleep 2")
        farm.argo("resume", name)
        status = farm.ended(name)
        assert status.state is State.SUCCEEDED
        assert status.started > 0
    finally:
        farm.is_admitting = True


def test_an_operator_may_pause_a_build_between_its_halves(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), stage="sleep 20")
    farm.until(lambda: farm.runs(name, "stage"))
    farm.argo("suspend", name)
    farm.until(lambda: farm.says(name, "paused"))
    assert farm.status(name).state is State.RUNNING
    farm.argo("resume", name)
    assert farm.ended(name).state is State.SUCCEEDED


def test_a_late_reader_has_every_line_from_the_first_and_sees_the_next_at_once(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), build="seq 1 500; sleep 8; echo last", fetch="echo first")
    farm.until(lambda: farm.runs(name, "build"))
    time.sleep(2)
    early: list[LogLine] = []
    late: list[LogLine] = []
    threads = [lines_of(farm, name, early)]
    time.sleep(2)
    threads.append(lines_of(farm, name, late))
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert early == late
    built = [line for line in late if line.step == "build" and not line.text.startswith("argument ")]
    assert [line.text for line in built] == [*map(str, range(1, 501)), "last"]
    for step in ("fetch", "build"):
        numbers = [line.number for line in late if line.step == step]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_workflow_by_hand_is_a_build_like_any_other(farm: Replica, number: int) -> None:
    asked = wish(number, named="nightly")
    outputs = {"standing": "absent", "request": asked.to_json(), "commit": asked.commit, "image": asked.image}
    data = {f"OUTPUT_{name}_nightly": value for name, value in outputs.items()} | {"SCRIPT_resolve_nightly": "sleep 4"}
    path = f"/api/v1/namespaces/{farm.place.name}/configmaps/{SETTINGS_MAP}"
    farm.cluster.patch(path, {"data": data})
    farm.place.create(site.workflow("nightly", provider="gh", spec="owner/repo/main"))
    name = BuildName("nightly")
    status = farm.ended(name)
    assert status.state is State.SUCCEEDED
    assert status.request == asked
    first = next(each for each in farm.heard if each.name == name)
    assert (first.request.spec, first.request.commit) == ("owner/repo/main", "")
    assert {step.name: step.exit_code for step in status.steps} == dict.fromkeys(
        ("resolve", *(step.name for step in status.steps[1:])), 0
    )
    assert any(line.step == "resolve" for line in only_lines(farm.engine.logs(name)))


def test_a_pod_that_is_deleted_is_made_again_or_the_build_is_lost(farm: Replica, number: int) -> None:
    name = farm.submit(wish(number), build="sleep 12")
    farm.until(lambda: farm.runs(name, "build"))
    pod = farm.pods(name)[0]["metadata"]["name"]
    kubectl("delete", "pod", pod, "--namespace", farm.place.name, "--force", "--grace-period=0")
    status = farm.ended(name)
    assert status.state is State.SUCCEEDED or (status.reason, status.lost) == (Reason.TRANSIENT, True)


def test_the_clock_of_a_whole_build_is_kept_by_whoever_admits() -> None:
    with replica("engine", build_timeout_seconds=8) as farm:
        name = farm.submit(wish(1), build=HANGS)
        is_cancelled(farm, name, Reason.TIMEOUT)


def test_who_waits_for_too_long_is_given_up() -> None:
    with replica("engine", queue_timeout_seconds=15, parallel_builds=1, parallel_builds_per_owner=1) as farm:
        first = farm.submit(wish(1), build=HANGS)
        farm.until(lambda: farm.runs(first, "build"))
        second = farm.submit(wish(2))
        is_cancelled(farm, second, Reason.QUEUE_TIMEOUT)


def patch(**more: object) -> dict[str, str]:
    """The chart's patch of the strangers' pod, and more."""
    return {"strangers-patch": json.dumps(site.STRANGERS_PATCH | more)}


def test_a_pod_without_a_node_waits_in_words_and_ends_by_the_clock() -> None:
    with replica("engine", parameters=patch(nodeSelector={"no": "where"}), start_timeout_seconds=30) as farm:
        name = farm.submit(wish(1))
        farm.until(lambda: farm.says(name, "Waiting for a node: none has room"))
        is_cancelled(farm, name, Reason.START_TIMEOUT)


def test_an_image_that_cannot_be_pulled_is_told_and_ends_by_the_clock() -> None:
    containers = [*site.STRANGERS_PATCH["containers"], {"name": "fetch", "image": f"{site.REGISTRY}/tests/no:1"}]
    with replica("engine", parameters=patch(containers=containers), start_timeout_seconds=45) as farm:
        name = farm.submit(wish(1))
        farm.until(lambda: farm.says(name, "cannot be pulled: "))
        is_cancelled(farm, name, Reason.START_TIMEOUT)


def test_memory_disk_and_deadline_each_have_their_reason() -> None:
    build = site.STRANGERS_PATCH["containers"][0] | {"resources": {"limits": {"memory": "60Mi"}}}
    volumes = [{"name": "workspace", "emptyDir": {"sizeLimit": "4Mi"}}]
    with replica("engine", parameters=patch(containers=[build], volumes=volumes)) as farm:
        memory = farm.submit(wish(1), build="x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
        disk = farm.submit(wish(2), build="yes aaaaaaaaaaaa | head -c 20000000 >/workspace/big; sleep 600")
        assert farm.ended(memory).reason is Reason.OUT_OF_MEMORY
        # A node measures a volume every one or two minutes.
        assert farm.ended(disk, seconds=300).reason is Reason.TOO_LARGE
    with replica("engine", parameters={"deadline-seconds": "20"}) as farm:
        assert farm.ended(farm.submit(wish(1), build="sleep 300")).reason is Reason.TIMEOUT
