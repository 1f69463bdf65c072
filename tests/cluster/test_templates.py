"""The rendered templates on a real API server and a real Argo, with steps that do what the test says."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

import pytest

from tests.cluster import images
from tests.cluster.namespace import Namespace, Object, RefusedError, eventually, kubectl, namespace
from tests.cluster.site import install, template, workflow
from workflows.engines.argo import site
from workflows.engines.argo.rendering import POLICIES
from workflows.image import is_build_name
from workflows.pipeline import Entry, ours_of, plan

WEBS = {
    "provider": "gh",
    "spec": "owner/repo/main",
    "ref": "main",
    "commit": "1a2b3c4" + "0" * 33,
    "repo-url": "https://github.example/owner/repo",
    "clone-url": "https://github.example/owner/repo.git",
    "image": "registry.example/owner-repo:1a2b3c4",
    "options": '{"appendix": "RUN echo \\u007b\\u007bworkflow.name}}"}',
    "title": "owner/repo @ 1a2b3c4 (launch)",
}
RESOLVED = {
    "standing": "absent",
    "request": '{"named": "x"}',
    "spec": "owner/repo/main",
    "ref": "main",
    "commit": "2" * 40,
    "repo_url": "https://github.example/owner/repo",
    "clone_url": "https://github.example/owner/repo.git",
    "image": "registry.example/owner-repo:222",
    "held": "",
}
HELD = "sha256:" + "e" * 64
SENTENCE = "The sentence that a visitor reads."
FAILING = f"echo '{SENTENCE}' | tee /dev/termination-log; exit"
LISTED = "/run/secrets/argosy /var/run/secrets/kubernetes.io/serviceaccount"
LOOK = f"ls -A {LISTED} 2>/dev/null; id -u; touch /forbidden || true"

SCRIPTS = {
    **{f"SCRIPT_{step.name}_looking": LOOK for step in plan(policy="report", attach=True)},
    "SCRIPT_fetch_not_found": f"{FAILING} 66",
    "SCRIPT_build_no_build": f"{FAILING} 10",
    "SCRIPT_push_no_push": f"{FAILING} 75",
    "SCRIPT_push_no_scan": "sleep 4",
    "SCRIPT_scan_no_scan": f"{FAILING} 78",
    "SCRIPT_resolve_no_resolve": f"{FAILING} 66",
    "SCRIPT_build_too_long": "sleep 600",
}
OUTPUTS = {
    **{f"OUTPUT_{name}": value for name, value in RESOLVED.items()},
    "OUTPUT_standing_known": "known",
    "OUTPUT_standing_held": "held",
    "OUTPUT_held_held": HELD,
}
BY_WEB = ("looking", "not-found", "no-build", "no-push", "no-scan", "overriding")
BY_HAND = ("nightly", "known", "held", "no-resolve")


@dataclasses.dataclass(frozen=True)
class Ended:
    """A Workflow that has ended, with its nodes by the names that Argo shows."""

    place: Namespace
    found: Object

    @property
    def phase(self) -> str:
        return str(self.found["status"]["phase"])

    @property
    def nodes(self) -> dict[str, Object]:
        # Where the entry point is called like a pod, the pod wins.
        nodes = sorted(self.found["status"]["nodes"].values(), key=lambda node: node["type"] != "DAG")
        return {node["displayName"]: node for node in nodes}

    @property
    def ran(self) -> set[str]:
        return {name for name, node in self.nodes.items() if node["phase"] == "Succeeded" and node["type"] != "DAG"}

    def pod(self, task: str) -> Object:
        name = self.found["metadata"]["name"]
        template_name = self.nodes[task]["templateName"]
        pods = self.place.list("pods", f"workflows.argoproj.io/workflow={name}")
        return next(pod for pod in pods if pod["metadata"]["name"].startswith(f"{name}-{template_name}-"))

    def arguments(self, task: str, step: str) -> list[str]:
        container = "main" if step == "resolve" else step
        log = self.place.log(self.pod(task)["metadata"]["name"], container)
        return [line.removeprefix("argument ") for line in log.splitlines() if line.startswith("argument ")]

    def lines(self, task: str, step: str) -> list[str]:
        log = self.place.log(self.pod(task)["metadata"]["name"], step)
        return [line for line in log.splitlines() if "argo=true" not in line and not line.startswith("argument ")]


@pytest.fixture(scope="module")
def place() -> Iterator[Namespace]:
    """A site where every Workflow of these tests runs, all at once."""
    with namespace("render-templates") as made:
        parameters = {"public-url": "https://argosy.example"}
        install(made, image=images.scripted(), settings=SCRIPTS | OUTPUTS, parameters=parameters)
        made.create(_secret("argosy-registry-write", "auth.json"), _secret("argosy-staging-write", "auth.json"))
        made.create(_secret("argosy-git-credentials", "token"))
        made.create(*(workflow(name, Entry.BUILD, **WEBS) for name in BY_WEB if name != "overriding"))
        evil = {"site-image": "evil", "site-ours-patch": '{"hostNetwork": true}', "site-secret-registry-write": "other"}
        made.create(workflow("overriding", Entry.BUILD, **WEBS, **evil))
        made.create(workflow("ours-alone", Entry.OURS, **WEBS, held=HELD))
        made.create(*(workflow(name, provider="gh", spec="owner/repo/main") for name in BY_HAND))
        yield made


@pytest.fixture
def ended(place: Namespace, request: pytest.FixtureRequest) -> Ended:
    return Ended(place, place.ended(request.param, seconds=300))


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ended", [name], indirect=True)


def _secret(name: str, key: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: "{}"}}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_api_server_takes_the_template_as_it_is(place: Namespace, policy: str) -> None:
    document = template(policy)
    document["metadata"]["name"] = f"try-{policy}"
    place.try_out(document)


def test_the_api_server_takes_the_workflows_of_every_entry_point(place: Namespace) -> None:
    for entry in Entry:
        place.try_out(workflow("try", entry, **WEBS))
    with pytest.raises(RefusedError):
        place.try_out(workflow("Not_a_label", Entry.BUILD))


@of("looking")
def test_a_build_of_webs_runs_every_step_with_its_arguments(ended: Ended) -> None:
    steps = plan(policy="report", attach=True)
    assert ended.phase == "Succeeded"
    assert ended.ran == {step.name for step in steps} | {"strangers", "ours"}
    values = WEBS | {"build": "looking", "held": ""}
    for step in steps:
        assert ended.arguments(step.half, step.name) == step.command(values)[1:]
    assert ended.found["status"]["progress"] == "9/9"


@of("looking")
def test_secrets_and_the_account_are_where_they_belong_and_nobody_writes_elsewhere(ended: Ended) -> None:
    held = {
        "fetch": {"git-credentials", "registry-read"},
        "build": set(),
        "stage": {"staging-write"},
        "push": {"registry-write"},
        "publish": {"ca.crt", "namespace", "token"},
        "scan": {"registry-read"},
        "attach": {"registry-write"},
    }
    for step in plan(policy="report", attach=True):
        lines = ended.lines(step.half, step.name)
        found = {line for line in lines if line and not line.startswith((".", "/", "touch")) and not line.isdigit()}
        assert found == held[step.name], step.name
        assert ("0" in lines) is (step.name == "build")
        assert any("Read-only file system" in line for line in lines) is (step.name != "build")


@of("looking")
def test_the_strangers_pod_has_users_of_its_own_and_build_is_its_last_container(ended: Ended) -> None:
    spec = ended.pod("strangers")["spec"]
    assert spec["hostUsers"] is False
    assert spec["serviceAccountName"] == "argosy-strangers"
    assert [container["name"] for container in spec["containers"]] == ["wait", "fetch", "stage", "build"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    with_token = [
        container["name"]
        for container in spec["containers"]
        if any("serviceaccount" in mount["mountPath"] for mount in container["volumeMounts"])
    ]
    assert with_token == ["wait"]


@of("looking")
def test_people_read_what_it_is_in_argos_lists(ended: Ended) -> None:
    metadata = ended.found["metadata"]
    assert metadata["labels"][site.LABEL] == "true"
    assert metadata["annotations"]["workflows.argoproj.io/title"] == WEBS["title"]
    description = metadata["annotations"]["workflows.argoproj.io/description"]
    assert description == f"[Build](https://argosy.example/builds/looking) [Repository]({WEBS['repo-url']})"
    assert {pod["metadata"]["labels"]["argosy/half"] for pod in map(ended.pod, ("strangers", "ours"))} == {
        "strangers",
        "ours",
    }


@of("nightly")
def test_a_workflow_by_hand_resolves_first_and_then_builds_what_was_found(ended: Ended) -> None:
    steps = plan(policy="report", attach=True)
    assert ended.phase == "Succeeded"
    assert ended.ran == {step.name for step in steps} | {"resolve", "strangers", "ours"}
    assert ended.arguments("resolve", "resolve") == ["--build=nightly", "--provider=gh", "--spec=owner/repo/main"]
    found = {name.replace("_", "-"): value for name, value in RESOLVED.items()}
    values = {"build": "nightly", "provider": "gh", "options": ""} | found
    for step in steps:
        assert ended.arguments(step.half, step.name) == step.command(values)[1:]
    metadata = ended.found["metadata"]
    assert metadata["labels"][site.LABEL] == "true"
    assert metadata["annotations"]["workflows.argoproj.io/title"] == "gh/owner/repo/main"
    outputs = {each["name"]: each["value"] for each in ended.nodes["resolve"]["outputs"]["parameters"]}
    assert json.loads(outputs["request"]) == {"named": "x"}


@of("known")
def test_a_workflow_by_hand_ends_early_when_the_image_is_known(ended: Ended) -> None:
    assert ended.phase == "Succeeded"
    assert ended.ran == {"resolve"}
    assert len(ended.place.list("pods", "workflows.argoproj.io/workflow=known")) == 1


@of("held")
def test_a_workflow_by_hand_builds_nothing_that_the_registry_holds(ended: Ended) -> None:
    assert ended.phase == "Succeeded"
    assert ended.ran == {step.name for step in ours_of(plan(policy="report", attach=True))} | {"resolve", "ours"}
    for step in ("scan", "push", "publish"):
        assert f"--held={HELD}" in ended.arguments("ours", step)


@of("ours-alone")
def test_our_half_alone_runs_no_strangers_code(ended: Ended) -> None:
    assert ended.phase == "Succeeded"
    assert ended.ran == {step.name for step in ours_of(plan(policy="report", attach=True))} | {"ours"}
    assert f"--held={HELD}" in ended.arguments("ours", "push")


@of("not-found")
def test_what_comes_after_a_failure_ends_with_64_and_our_half_never_begins(ended: Ended) -> None:
    assert ended.phase in {"Failed", "Error"}
    assert ended.nodes["fetch"]["message"].strip() == f"fetch: Error (exit code 66): {SENTENCE}"
    # 143 where Argo ended it before it had seen the failure.
    assert re.search(r"exit code (64|143)", ended.nodes["build"]["message"])
    assert ended.nodes["ours"]["phase"] == "Omitted"


@of("no-build")
def test_a_failed_builds_node_says_our_sentence(ended: Ended) -> None:
    for node in ("build", "strangers"):
        assert ended.nodes[node]["message"].strip() == f"build: Error (exit code 10): {SENTENCE}"


@of("no-push")
def test_a_failed_push_publishes_nothing(ended: Ended) -> None:
    assert ended.nodes["push"]["message"].strip() == f"push: Error (exit code 75): {SENTENCE}"
    assert "publish" not in ended.ran


@of("no-scan")
def test_a_failed_scan_keeps_a_report_from_nobody(ended: Ended) -> None:
    assert {"push", "publish"} <= ended.ran
    assert ended.nodes["scan"]["message"].strip() == f"scan: Error (exit code 78): {SENTENCE}"


@of("no-resolve")
def test_what_cannot_be_resolved_is_not_built(ended: Ended) -> None:
    assert ended.ran == set()
    assert ended.nodes["resolve"]["message"].strip() == f"main: Error (exit code 66): {SENTENCE}"


@of("overriding")
def test_whoever_submits_chooses_neither_image_nor_patch_nor_secret(ended: Ended) -> None:
    assert ended.phase == "Succeeded"
    spec = ended.pod("ours")["spec"]
    assert "hostNetwork" not in spec
    ours = [container for container in spec["containers"] if container["name"] != "wait"]
    assert {container["image"] for container in ours} == {images.scripted()}
    names = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    assert names == {"argosy-registry-write", "argosy-registry-read", "argosy-executor.service-account-token"}


@of("no-build")
def test_the_message_of_an_ended_workflow_can_be_made_our_sentence(ended: Ended) -> None:
    """What web does when it records: Argo itself says nothing there, and leaves alone what is written."""
    name = ended.found["metadata"]["name"]
    assert "message" not in ended.found["status"]
    patch = json.dumps({"metadata": {"labels": {"argosy/recorded": "true"}}, "status": {"message": SENTENCE}})
    kubectl("patch", "workflow", name, "--namespace", ended.place.name, "--type", "merge", "--patch", patch)
    assert ended.place.get("workflow", name)["status"]["message"] == SENTENCE


def test_a_waiting_workflow_has_its_title_and_no_pods_and_runs_when_it_is_let(place: Namespace) -> None:
    place.create(workflow("waiting", Entry.BUILD, suspend=True, **WEBS))
    eventually(lambda: "title" in str(place.get("workflow", "waiting")["metadata"].get("annotations")))
    assert place.list("pods", "workflows.argoproj.io/workflow=waiting") == []
    kubectl("patch", "workflow", "waiting", "-n", place.name, "--type", "merge", "-p", '{"spec": {"suspend": null}}')
    assert place.ended("waiting", seconds=300)["status"]["phase"] == "Succeeded"


def test_a_schedule_needs_nothing_but_a_provider_and_a_spec(place: Namespace) -> None:
    place.create(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "CronWorkflow",
            "metadata": {"name": "weekly"},
            "spec": {
                "schedules": ["* * * * *"],
                "workflowSpec": workflow("x", provider="gh", spec="owner/repo/main")["spec"],
            },
        }
    )
    begun = eventually(lambda: place.list("workflow", "workflows.argoproj.io/cron-workflow=weekly"), seconds=180)[0]
    kubectl("delete", "cronworkflow", "weekly", "--namespace", place.name, "--cascade=orphan")
    ended = Ended(place, place.ended(begun["metadata"]["name"], seconds=300))
    assert ended.phase == "Succeeded"
    assert {"resolve", "publish"} <= ended.ran
    assert is_build_name(ended.found["metadata"]["name"])
    assert ended.found["metadata"]["labels"][site.LABEL] == "true"


def test_a_pod_that_runs_for_too_long_is_ended_and_says_so() -> None:
    with namespace("render-deadline") as made:
        settings = SCRIPTS | OUTPUTS
        install(made, image=images.scripted(), settings=settings, parameters={"deadline-seconds": "8"})
        made.create(workflow("too-long", Entry.BUILD, **WEBS))
        ended = Ended(made, made.ended("too-long", seconds=120))
        assert ended.phase in {"Failed", "Error"}
        assert "deadline" in ended.nodes["strangers"]["message"]
        assert ended.nodes["ours"]["phase"] == "Omitted"
