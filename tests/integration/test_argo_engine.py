"""The Argo engine before an API server that fails: faults that a real one cannot be made to show."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apiserver import ApiServer, apiserver
from tests.integration.fakes import request
from workflows.build import BuildStatus, Lane, LogEnd, LogLine, State, only_lines
from workflows.cluster import watch
from workflows.engines.argo import order
from workflows.engines.argo.engine import SELECTOR, ArgoEngine
from workflows.engines.argo.reading import log
from workflows.engines.argo.reading.nodes import places
from workflows.engines.argo.site import RECORDED
from workflows.engines.turns import Turns
from workflows.errors import Reason, TransientError
from workflows.image import BuildName
from workflows.pipeline import plan
from workflows.settings import Settings

SETTINGS = Settings(engine="argo", image_store="registry", registry_insecure=True)
PATH = f"/apis/argoproj.io/v1alpha1/namespaces/{SETTINGS.builds_namespace}/workflows"
WORKFLOWS = Path(__file__).parents[1] / "unit/workflows"
ARGOS = b'time="2026-11-24T21:52:11.441Z" level=info msg="capturing logs" argo=true\n'
STEPS = plan(policy="report", attach=True)


def workflow(name: str, version: int = 5) -> dict[str, Any]:
    """A Workflow that a real Argo wrote."""
    found: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    found["metadata"]["resourceVersion"] = str(version)
    return found


RUNNING, SUCCEEDED, QUEUED = workflow("running"), workflow("succeeded"), workflow("queued")
NAME = BuildName(RUNNING["metadata"]["name"])


def at(found: dict[str, Any], version: int) -> dict[str, Any]:
    """The same Workflow in another version."""
    return copy.deepcopy(found) | {"metadata": found["metadata"] | {"resourceVersion": str(version)}}


def ended(found: dict[str, Any], version: int = 90) -> dict[str, Any]:
    """How a running Workflow ends well, under its own name."""
    text = (WORKFLOWS / "succeeded.json").read_text(encoding="utf-8")
    made: dict[str, Any] = json.loads(text.replace(SUCCEEDED["metadata"]["name"], found["metadata"]["name"]))
    made["metadata"] = found["metadata"] | {"resourceVersion": str(version)}
    return made


class EndedError(Exception):
    """The test is over: whoever waits stops."""


class Replica:
    """One engine before the fake, its watch running."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        # Its registry is there, and empty.
        prefix = f"{server.url.removeprefix('http://')}/argosy/"
        settings = SETTINGS.model_copy(update={"image_prefix": prefix})
        self.engine = ArgoEngine(settings, server.cluster(), sleep=self._sleep)
        self.is_over = False
        self.heard: list[BuildStatus] = []
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def watch(self) -> Replica:
        self._watching.start()
        self.until(lambda: self.engine.is_current)
        return self

    def tell(self, kind: str, found: dict[str, Any]) -> None:
        self.server.stream(PATH, json.dumps({"type": kind, "object": found}).encode() + b"\n")

    def log(self, step: str, name: BuildName = NAME) -> str:
        place = places(name, STEPS)[step]
        return f"/api/v1/namespaces/{SETTINGS.builds_namespace}/pods/{place.pod}/log?{place.container}"

    def follow(self, name: BuildName = NAME) -> list[LogLine]:
        found: list[LogLine] = []
        thread = threading.Thread(target=lambda: found.extend(only_lines(self.engine.logs(name))), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "the log does not end"
        return found

    def end(self) -> None:
        """Once its API server is gone: until its watch has noticed that the test is over."""
        if self._watching.is_alive():
            self._watching.join(20)
            assert not self._watching.is_alive(), "the watch does not end"

    @staticmethod
    def until(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.01)

    def _watch(self) -> None:
        with contextlib.suppress(EndedError):
            for status in self.engine.watch():
                self.heard.append(status)

    def _sleep(self, seconds: float) -> None:
        if self.is_over:
            raise EndedError
        time.sleep(seconds)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    monkeypatch.setattr(watch, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_LAST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(log, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(log, "_SETTLE_SECONDS", 0.3)
    with apiserver() as server:
        made = Replica(server)
        yield made
        made.is_over = True
    made.end()


def put(replica: Replica, found: dict[str, Any]) -> None:
    """Puts a Workflow there, as if it had always been."""
    replica.server.objects[f"{PATH}/{found['metadata']['name']}"] = copy.deepcopy(found)


# --- the watch ---


def test_only_what_is_not_filed_is_watched(replica: Replica) -> None:
    put(replica, RUNNING)
    filed = workflow("build-failed")
    filed["metadata"]["labels"][RECORDED] = "true"
    put(replica, filed)
    replica.watch()
    assert [status.name for status in replica.heard] == [NAME]
    assert replica.server.count("GET", PATH, labelSelector=SELECTOR) >= 1
    assert replica.engine.status(filed["metadata"]["name"]) is None


def test_what_leaves_the_watch_before_its_end_was_cancelled_and_after_it_was_filed(replica: Replica) -> None:
    put(replica, RUNNING)
    put(replica, SUCCEEDED)
    replica.watch()
    for found in (SUCCEEDED, RUNNING):
        del replica.server.objects[f"{PATH}/{found['metadata']['name']}"]
        replica.tell("DELETED", at(found, 2000))
    replica.until(lambda: len(replica.heard) == 3)
    gone = replica.heard[-1]
    assert (gone.name, gone.state, gone.reason) == (NAME, State.FAILED, Reason.CANCELLED)
    assert gone.ended > 0
    assert replica.engine.known() == []


def test_what_went_while_the_watch_was_away_is_noticed_too(replica: Replica) -> None:
    put(replica, RUNNING)
    replica.watch()
    del replica.server.objects[f"{PATH}/{NAME}"]
    replica.server._version = 5000
    replica.tell("ERROR", {"code": 410})
    replica.until(lambda: replica.heard[-1].state is State.FAILED)


def test_places_in_the_queue_are_counted_by_every_replica_for_itself(replica: Replica) -> None:
    for number, lane in enumerate((Lane.PREBUILD, Lane.LAUNCH, Lane.API), start=1):
        wish = request(lane=lane, image=f"x/y{number}:1")
        about = {"creationTimestamp": "2026-11-24T00:00:00Z", "uid": str(number), "resourceVersion": "7"}
        made = order.workflow(wish, "t", float(number))
        put(replica, made | {"metadata": made["metadata"] | about})
    replica.watch()
    replica.until(lambda: len(replica.heard) == 6)
    assert {status.request.lane: status.queue_position for status in replica.engine.known()} == {
        Lane.LAUNCH: 1,
        Lane.API: 2,
        Lane.PREBUILD: 3,
    }
    first = next(status for status in replica.engine.known() if status.queue_position == 1)
    replica.tell("DELETED", at(replica.server.objects[f"{PATH}/{first.name}"], 3000))
    replica.until(lambda: {status.queue_position for status in replica.engine.known()} == {1, 2})
    # One who joins the queue again under the same name is told of it by the watch, and each place once.
    told = [(status.name, status.queue_position) for status in replica.heard if status.queue_position]
    assert len(told) == len(set(told)) == 5


def test_a_workflow_that_says_nothing_harms_no_other(replica: Replica) -> None:
    broken = copy.deepcopy(QUEUED)
    broken["metadata"] |= {"name": "broken", "annotations": {order.REQUEST: "{"}}
    put(replica, broken)
    put(replica, RUNNING)
    replica.watch()
    assert [status.name for status in replica.heard] == [NAME]


# --- submit, admit, stop, forget ---


def test_who_comes_second_joins(replica: Replica) -> None:
    wish = request()
    first, second = replica.engine.submit(wish), replica.engine.submit(wish)
    assert (first.name, first.created) == (second.name, second.created)
    assert len(replica.server.objects) == 1


def test_a_workflow_of_somebody_elses_under_that_name_is_not_joined(replica: Replica) -> None:
    wish = request()
    foreign = {"metadata": {"name": wish.name, "creationTimestamp": "2026-11-24T00:00:00Z"}, "spec": {}}
    replica.server.keep(f"{PATH}/{wish.name}", foreign)
    with pytest.raises(TransientError):
        replica.engine.submit(wish)


def test_one_that_is_deleted_in_that_moment_may_be_asked_for_again(replica: Replica) -> None:
    replica.server.answers["POST", PATH] = [(409, {})]
    with pytest.raises(TransientError):
        replica.engine.submit(request())
    assert replica.engine.submit(request()).state is State.QUEUED


def test_nothing_is_changed_that_has_ended_or_is_no_name(replica: Replica) -> None:
    put(replica, SUCCEEDED)
    name = BuildName(SUCCEEDED["metadata"]["name"])
    replica.engine.admit(name)
    replica.engine.stop(name, Reason.CANCELLED)
    replica.engine.stop(BuildName("none"), Reason.CANCELLED)
    for wrong in ("../../secrets/x", "a/b", "", "A"):
        assert replica.engine.status(BuildName(wrong)) is None
        assert list(replica.engine.logs(BuildName(wrong))) == []
        replica.engine.admit(BuildName(wrong))
    assert {each[0] for each in replica.server.asked} == {"GET"}
    assert all("secrets" not in each[1] for each in replica.server.asked)


def test_what_ends_well_and_what_fails_are_marked_once_they_are_filed(replica: Replica) -> None:
    failed = workflow("build-failed")
    for found in (failed, SUCCEEDED, RUNNING):
        put(replica, found)
        replica.engine.forget(BuildName(found["metadata"]["name"]))
    marked = replica.server.objects[f"{PATH}/{failed['metadata']['name']}"]
    assert marked["metadata"]["labels"][RECORDED] == "true"
    assert marked["status"]["message"] == "The environment does not build."
    assert RECORDED in replica.server.objects[f"{PATH}/{SUCCEEDED['metadata']['name']}"]["metadata"]["labels"]
    assert RECORDED not in replica.server.objects[f"{PATH}/{NAME}"]["metadata"]["labels"]


def test_an_api_server_that_fails_holds_up_one_build_and_not_the_queue(replica: Replica) -> None:
    class Queue:
        def __init__(self) -> None:
            self.admitted: list[BuildName] = []

        def statuses(self) -> list[BuildStatus]:
            return [
                BuildStatus(request=request(image=f"x/y{number}:1"), state=State.QUEUED, created=time.time())
                for number in (1, 2)
            ]

        def tend(self, status: BuildStatus) -> None:
            raise TransientError(detail="away")

        def admit(self, name: BuildName) -> None:
            self.admitted.append(name)
            if len(self.admitted) == 1:
                raise TransientError(detail="away")

        def stop(self, name: BuildName, reason: Reason) -> None:
            raise AssertionError(name)

    queue = Queue()
    Turns(queue, SETTINGS).move()
    assert len(queue.admitted) == 2


# --- logs ---


def test_a_log_that_breaks_off_goes_on_where_it_was(replica: Replica) -> None:
    put(replica, RUNNING)
    replica.watch()
    fetch = replica.log("fetch")
    for step in ("build", "stage", "push", "publish", "scan", "attach"):
        replica.server.logs[replica.log(step)] = b""
    whole = ARGOS + b"".join(b"line %d\n" % number for number in range(1, 7))
    replica.server.logs[fetch] = whole
    running = copy.deepcopy(RUNNING)
    for node in running["status"]["nodes"].values():
        if node["name"].endswith(".fetch"):
            node["phase"] = "Running"
    put(replica, at(running, 1500))
    replica.tell("MODIFIED", at(running, 1500))
    replica.until(lambda: not replica.engine.status(NAME).steps[0].ended)  # type: ignore[union-attr]
    # Broken off in the middle of a line; then again; then an API server that goes down in good order, whose end looks
    # like the container's.
    replica.server.stream(fetch, whole[:-25], OSError())
    replica.server.stream(fetch, whole[:-16], OSError())
    replica.server.stream(fetch, whole[:-14])
    threading.Timer(1.0, lambda: replica.tell("MODIFIED", ended(RUNNING, 1600))).start()
    lines = replica.follow()
    assert [(line.number, line.text) for line in lines if line.step == "fetch"] == [
        (number, f"line {number}") for number in range(1, 7)
    ]


def test_the_next_step_is_read_once_the_executor_says_that_the_one_before_is_over(replica: Replica) -> None:
    running = copy.deepcopy(RUNNING)
    for node in running["status"]["nodes"].values():
        if node["name"].endswith(".fetch"):
            node["phase"] = "Running"  # as Argo has it a second or two after
    put(replica, running)
    replica.watch()
    for step, text in (("fetch", b"fetched\n"), ("build", b"built\n")):
        replica.server.logs[replica.log(step)] = text + ARGOS.replace(b"capturing logs", b"sub-process exited")
    lines = only_lines(replica.engine.logs(NAME))
    assert [next(lines).text, next(lines).text] == ["fetched", "built"]
    assert not replica.engine.status(NAME).steps[0].ended  # type: ignore[union-attr]
    lines.close()  # type: ignore[attr-defined]


def test_a_container_that_has_not_started_is_waited_for(replica: Replica) -> None:
    put(replica, RUNNING)
    replica.watch()
    build = replica.log("build")
    replica.server.logs[replica.log("fetch")] = b"fetched\n"
    replica.server.logs[build] = b"built\n"
    replica.server.answers["GET", build] = [(400, {"message": "PodInitializing"})] * 3

    def end() -> None:
        replica.until(lambda: not replica.server.answers["GET", build])
        replica.tell("MODIFIED", ended(RUNNING, 1600))

    threading.Thread(target=end, daemon=True).start()
    assert [line.text for line in replica.follow()] == ["fetched", "built"]


def test_a_log_ends_with_its_build_also_where_the_pod_is_gone(replica: Replica) -> None:
    put(replica, ended(RUNNING))
    replica.server.logs[replica.log("fetch")] = b"fetched\n"
    assert [line.text for line in replica.follow()] == ["fetched"]
    assert [each for each in replica.engine.logs(NAME) if isinstance(each, LogEnd)] == [
        LogEnd(step=step) for step in places(NAME, STEPS)
    ]
    assert replica.follow(BuildName("none")) == []


def test_an_ended_builds_log_is_an_error_while_nobody_answers(replica: Replica) -> None:
    put(replica, ended(RUNNING))
    replica.watch()
    replica.server.answers["GET", replica.log("fetch")] = [(503, {})]
    with pytest.raises(TransientError):
        list(replica.engine.logs(NAME))


def test_nobody_asks_for_the_log_of_a_build_that_waits(replica: Replica) -> None:
    put(replica, QUEUED)
    replica.watch()
    name = BuildName(QUEUED["metadata"]["name"])
    asked: list[bool] = []

    def delete() -> None:
        asked.append(any("/pods/" in each[1] for each in replica.server.asked))
        replica.tell("DELETED", at(QUEUED, 2000))

    del replica.server.objects[f"{PATH}/{name}"]
    threading.Timer(0.5, delete).start()
    assert replica.follow(name) == []
    assert asked == [False]


def test_who_reads_a_log_while_its_build_is_filed_reads_it_to_the_end(replica: Replica) -> None:
    put(replica, ended(RUNNING))
    replica.watch()
    replica.server.logs[replica.log("fetch")] = b"fetched\n"
    replica.server.logs[replica.log("attach")] = b"attached\n"
    lines = only_lines(replica.engine.logs(NAME))
    assert next(lines).text == "fetched"
    replica.tell("DELETED", at(RUNNING, 2000))
    replica.until(lambda: not replica.engine.known())
    replica.server.objects[f"{PATH}/{NAME}"]["metadata"]["labels"][RECORDED] = "true"
    assert [line.text for line in lines] == ["attached"]


def test_what_our_half_said_last_is_its_output(replica: Replica) -> None:
    put(replica, ended(RUNNING))
    verdict = (
        '{"verdict": "findings", "counts": {"high": 1}, "findings": [], "database": {}, "message": "One.", "more": 1}'
    )
    pushed = json.dumps({"image": "x", "digest": "sha256:" + "1" * 64})
    replica.server.logs[replica.log("scan")] = f"scanning\n{verdict}\nA sentence.\n".encode() + ARGOS
    replica.server.logs[replica.log("push")] = f'{{"not": "it"}}\n{pushed}\n'.encode() + ARGOS
    found = {"pushed.json": pushed.encode(), "findings.json": verdict.encode()}
    with pytest.raises(TransientError):
        # The image's registry, which would have the SBOM, does not answer.
        replica.engine.outputs(NAME)
    replica.server.logs[replica.log("scan")] = b"scanning\n"
    del found["findings.json"]
    assert replica.engine.outputs(NAME) == found
    assert replica.engine.outputs(BuildName("none")) == {}


def test_a_build_that_printed_json_and_never_pushed_has_no_outputs(replica: Replica) -> None:
    failed = workflow("build-failed")
    put(replica, failed)
    assert replica.engine.outputs(BuildName(failed["metadata"]["name"])) == {}
    assert not any("/pods/" in each[1] for each in replica.server.asked)
