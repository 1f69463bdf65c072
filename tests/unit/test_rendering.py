"""The rendered WorkflowTemplates against the pipeline, and against what the local engine runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from workflows.build import BuildRequest
from workflows.engines.argo import pod, site
from workflows.engines.argo.rendering import POLICIES, render
from workflows.engines.attempt.environment import step_environment
from workflows.image import CommitSHA, ImageName
from workflows.pipeline import RUNNER, SECRET_FILES, SECRET_SETTINGS, SECRETS_FOLDER, STEPS, Entry, Half, plan
from workflows.settings import PREFIX, Settings, environment_of

GOLDEN = Path(__file__).parent.parent.parent / "charts/argosy/files/pipeline.yaml"
REQUEST = BuildRequest(
    image=ImageName("registry.example/argosy/o-r:abc"),
    provider="gh",
    spec="o/r/main",
    ref="main",
    commit=CommitSHA("1" * 40),
    repo_url="https://github.example/o/r",
    clone_url="https://github.example/o/r.git",
    slug="o/r",
    owner="github.example/o",
)


@pytest.fixture(scope="module")
def documents():
    found = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    return {document["metadata"]["labels"]["argosy/policy"]: document for document in found}


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


@pytest.fixture
def document(documents, policy):
    return documents[policy]


@pytest.fixture
def steps(policy):
    return plan(policy=policy, attach=True, resolve=True)


def templates(document):
    return {template["name"]: template for template in document["spec"]["templates"]}


def containers(document):
    """Every container of ours by the name of its step, with the template it stands in."""
    found = {}
    for template in document["spec"]["templates"]:
        if "container" in template:
            found[template["name"]] = (template["container"], template)
        for container in template.get("containerSet", {}).get("containers", ()):
            found[container["name"]] = (container, template)
    return found


def tasks(document, entry):
    return {task["name"]: task for task in templates(document)[entry]["dag"]["tasks"]}


def filled(container, values):
    """The command line with the template's places filled in as Argo does."""

    def value(match):
        place = match[1]
        return values["build"] if place == "workflow.name" else values[place.removeprefix("inputs.parameters.")]

    return [re.sub(r"\{\{(.*?)\}\}", value, argument) for argument in container["command"] + container["args"]]


def test_the_golden_file_is_what_the_pipeline_renders(document, policy):
    assert document == yaml.safe_load(render(policy))


def test_there_is_one_template_for_each_policy(documents):
    assert set(documents) == set(POLICIES) == {"report", "enforce", "off"}
    assert {document["metadata"]["name"] for document in documents.values()} == {site.TEMPLATE}


def test_every_step_is_a_container_and_nothing_else_is(document, steps):
    assert set(containers(document)) == {step.name for step in steps}


def test_a_step_stands_in_the_pod_of_its_half(document, steps):
    for step in steps:
        labels = containers(document)[step.name][1]["metadata"]["labels"]
        assert labels[site.HALF_LABEL] == ("resolve" if step.name == "resolve" else step.half.value)


def test_a_containers_command_is_what_the_local_engine_runs(document, steps):
    for step in steps:
        container, _ = containers(document)[step.name]
        words = [word for word in filled(container, REQUEST.parameters()) if not word.startswith("--after=")]
        assert words == [*RUNNER, *step.command(REQUEST.parameters())]


def test_arrows_inside_a_half_are_the_pipelines(document, steps):
    for step in steps:
        container, template = containers(document)[step.name]
        beside = {each["name"] for each in template.get("containerSet", {}).get("containers", ())}
        needs = {word.removeprefix("--after=") for word in container["args"] if word.startswith("--after=")}
        assert needs == set(step.needs) & beside
        assert "dependencies" not in container  # Argo's own waiting costs up to a second each


def test_arrows_between_halves_are_the_pipelines(document, steps):
    of = {step.name: "resolve" if step.name == "resolve" else step.half.value for step in steps}
    wanted = {(of[step.name], of[need]) for step in steps for need in step.needs if of[step.name] != of[need]}
    found = {
        (name, need)
        for name, task in tasks(document, "from-spec").items()
        for need in re.findall(r"\b(resolve|strangers)\b", task.get("depends", ""))
    }
    # Our half reads what resolve found, too.
    assert found == wanted | {("ours", "resolve")}
    assert tasks(document, "build")["ours"]["depends"] == "strangers"


def test_strangers_code_starts_after_everything_else_in_its_pod(document):
    names = [each["name"] for each in templates(document)["strangers-half"]["containerSet"]["containers"]]
    assert names == ["fetch", "stage", "build"]


def test_our_half_stands_in_the_order_of_the_policy(documents):
    def ours(policy):
        return [each["name"] for each in templates(documents[policy])["ours-half"]["containerSet"]["containers"]]

    assert ours("report") == ["push", "publish", "scan", "attach"]
    assert ours("enforce") == ["scan", "push", "publish", "attach"]
    assert ours("off") == ["push", "publish"]


def test_outputs_come_from_resolve_alone(document, steps):
    for template in document["spec"]["templates"]:
        given = [each["name"] for each in template.get("outputs", {}).get("parameters", ())]
        assert given == [each for step in steps if step.name == template["name"] for each in step.outputs]
    assert [step.name for step in steps if step.outputs] == ["resolve"]


def test_the_entry_points_are_the_pipelines(document):
    dags = {name for name, template in templates(document).items() if "dag" in template}
    assert dags == {entry.value for entry in Entry}
    assert document["spec"]["entrypoint"] == Entry.FROM_SPEC.value


def test_whoever_submits_can_give_what_a_request_holds(document):
    names = {each["name"] for each in document["spec"]["arguments"]["parameters"]}
    # The Workflow's own name takes the place of `build`.
    assert names == set(REQUEST.parameters()) - {"build"} | {"title", "site-public-url"}


def test_a_known_image_ends_the_build_and_a_held_one_skips_the_strangers(document):
    standing = "'{{tasks.resolve.outputs.parameters.standing}}'"
    found = tasks(document, "from-spec")
    assert found["strangers"]["when"] == f"{standing} == 'absent'"
    assert found["ours"]["when"] == f"{standing} != 'known'"
    assert found["ours"]["depends"] == "resolve && (strangers.Succeeded || strangers.Skipped)"


def test_options_of_nobodys_asking_are_the_farms(document):
    arguments = tasks(document, "from-spec")["strangers"]["arguments"]["parameters"]
    assert {"name": "options", "value": ""} in arguments


# --- secrets and surroundings ---


def test_a_secret_is_mounted_where_its_step_declares_it_and_nowhere_else(document, steps):
    for step in steps:
        container, template = containers(document)[step.name]
        volumes = {volume["name"]: volume for volume in template["volumes"]}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        secrets = {name for name in mounts if "secret" in volumes[name]}
        assert secrets == {f"secret-{name}" for name in step.secrets if name in SECRET_FILES}
        for name in secrets:
            assert volumes[name]["secret"]["optional"] is True
            assert mounts[name]["readOnly"] is True
            assert mounts[name]["mountPath"] == f"/run/secrets/argosy/{name.removeprefix('secret-')}"
        has_account = bool({"catalogue-write", "catalogue-read"} & set(step.secrets))
        assert ("account" in mounts) is has_account


def test_publish_and_resolve_alone_hold_the_pods_account(document, steps):
    assert document["spec"]["automountServiceAccountToken"] is False
    assert document["spec"]["executor"] == {"serviceAccountName": "argosy-executor"}
    holders = [step.name for step in steps if pod.has_account(step)]
    assert holders == ["resolve", "publish"]
    for template in document["spec"]["templates"]:
        if "dag" not in template:
            assert template["automountServiceAccountToken"] is False
            assert template["serviceAccountName"] == f"argosy-{template['metadata']['labels'][site.HALF_LABEL]}"


def test_strangers_code_sees_no_secret_and_shares_only_the_workspace(document):
    container, _ = containers(document)["build"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {"workspace", "tmp-build"}
    own = {mount["name"] for name in ("fetch", "stage") for mount in containers(document)[name][0]["volumeMounts"]}
    assert own & {"workspace", "tmp-build"} == {"workspace"}


def test_no_argument_is_a_secret_or_the_sites(document):
    for template in document["spec"]["templates"]:
        for task in template.get("dag", {}).get("tasks", ()):
            assert not any(each["name"].startswith("site-") for each in task["arguments"]["parameters"])
        for each in template.get("inputs", {}).get("parameters", ()):
            assert each["name"].startswith("site-") is ("valueFrom" in each)


def test_what_a_site_may_leave_out_has_a_default(document):
    for template in document["spec"]["templates"]:
        for each in template.get("inputs", {}).get("parameters", ()):
            if "valueFrom" in each:
                key = each["valueFrom"]["configMapKeyRef"]["key"]
                assert each["valueFrom"]["configMapKeyRef"]["name"] == site.TEMPLATE
                assert each["valueFrom"].get("default") == site.DEFAULTS.get(key)
                assert key in site.DEFAULTS or key in site.REQUIRED


def test_everything_but_the_build_meets_the_restricted_level(document, steps):
    for step in steps:
        container, _ = containers(document)[step.name]
        if step.name == "build":
            assert "securityContext" not in container
            continue
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    patch = json.loads(document["spec"]["podSpecPatch"])
    for argos in (*patch["containers"], *patch["initContainers"]):
        assert argos["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert patch["enableServiceLinks"] is False


def test_a_step_in_a_pod_sees_the_settings_that_the_local_engine_gives_it(document, policy, steps, tmp_path: Path):
    settings = Settings(
        state=tmp_path,
        scan_policy=policy,
        image_store="registry",
        github_token_file=tmp_path / "github",
        registry_auth_file=tmp_path / "auth",
        hub_token_file=tmp_path / "hub",
        ledger_url="postgresql://db/",
        archive_url="s3://bucket",
    )
    hidden = {PREFIX + name.upper() for name in SECRET_SETTINGS}
    of_all = {name: value for name, value in environment_of(settings).items() if name not in hidden}
    for step in steps:
        container, _ = containers(document)[step.name]
        own = {each["name"]: each["value"] for each in container["env"]}
        assert container["envFrom"] == [{"configMapRef": {"name": site.SETTINGS_MAP}}]
        seen = {name: value for name, value in (of_all | own).items() if name.startswith(PREFIX) and value}
        local = {
            name: value for name, value in step_environment(step, tmp_path, settings).items() if name.startswith(PREFIX)
        }
        # In a pod a token for fetching is a secret of its own; on one machine there is none.
        own_token = {"ARGOSY_GITHUB_TOKEN_FILE"} if "git-credentials" in step.secrets else set()
        assert seen.keys() == local.keys() | own_token
        places = {name for name in seen if name in hidden} | {"ARGOSY_WORKSPACE"}
        assert {name: seen[name] for name in seen.keys() - places} == {
            name: local[name] for name in seen.keys() - places
        }


def test_a_secret_setting_of_the_configmap_is_overruled(document, steps):
    for step in steps:
        own = {each["name"]: each["value"] for each in containers(document)[step.name][0]["env"]}
        for name in SECRET_SETTINGS:
            value = own[PREFIX + name.upper()]
            assert value == "" or value.startswith(f"{SECRETS_FOLDER}/")


def test_the_policy_of_the_steps_is_the_templates(document, policy):
    for container, _ in containers(document).values():
        assert {"name": "ARGOSY_SCAN_POLICY", "value": policy} in container["env"]


# --- life ---


def test_a_workflow_of_somebody_elses_making_is_ours_too(document):
    metadata = document["spec"]["workflowMetadata"]
    assert metadata["labels"] == {site.LABEL: "true", site.RECORDED: "false"}
    assert set(metadata["annotations"]) == {"workflows.argoproj.io/title", "workflows.argoproj.io/description"}


def test_workflows_stay_for_days_and_pods_until_they_are_read(document):
    assert document["spec"]["ttlStrategy"] == {"secondsAfterCompletion": 7 * 86400}
    assert document["spec"]["podGC"] == {"strategy": "OnWorkflowCompletion", "deleteDelayDuration": "600s"}


def test_every_step_has_a_pod_it_can_stand_in():
    assert {step.half for step in STEPS} == set(Half)
    with_warm = plan(policy="report", attach=True, warm=True)
    assert [step.name for step in pod.halves(with_warm)["ours"]] == ["push", "publish", "scan", "attach", "warm"]
    assert "resolve" not in pod.halves(with_warm)
