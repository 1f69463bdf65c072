"""The pods that the chart makes, itself or by the pipeline: what they may do, and what they hold."""

from __future__ import annotations

import json
import re

import pytest

from tests.chart.helm import CHART, CI, pick, pods, render, text
from tests.chart.security import faults

GATEWAY, REPLICAS = CHART / "ci" / "gateway.yaml", CHART / "ci" / "replicas.yaml"


def patches(objects):
    data = pick([each for each in objects if "image" in each.get("data", {})], "ConfigMap")["data"]
    return {name.removesuffix("-patch"): json.loads(data[name]) for name in data if name.endswith("-patch")}


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_every_pod_of_the_chart_meets_the_restricted_level(values):
    seen = dict(pods(render(values)))
    assert "argosy-web" in seen
    for name, pod in seen.items():
        assert faults(pod) == [], name
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"], name


def test_only_web_and_retire_have_a_token_of_the_api_server():
    for name, pod in pods(render(REPLICAS)):
        has_token = name in {"argosy-web", "argosy-retire"}
        assert pod.get("automountServiceAccountToken", has_token) is has_token, name


def test_secrets_reach_web_as_files_but_for_the_ledgers_url():
    pod = dict(pods(render(GATEWAY)))["argosy-web"]
    (container,) = pod["containers"]
    assert [each["name"] for each in container["env"]] == ["ARGOSY_LEDGER_URL"]
    assert "not-a-secret" not in json.dumps(pod)
    assert "not-a-secret" not in json.dumps([each for each in render(GATEWAY) if each["kind"] != "Secret"])


def test_with_sqlite_one_web_replaces_another_and_with_a_database_they_overlap():
    alone, several = pick(render(), "Deployment"), pick(render(REPLICAS), "Deployment")
    assert alone["spec"]["strategy"] == {"type": "Recreate"}
    assert several["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in several["spec"], "the autoscaler sets them"


def test_a_changed_secret_or_setting_starts_web_anew():
    def annotations(**changes):
        return pick(render(GATEWAY, **changes), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations(hub__token="another") != annotations()
    assert annotations(settings__launch_attempts=3) != annotations()


# --- the container that runs strangers' code ---


def build_of(patch):
    return next(each for each in patch["containers"] if each["name"] == "build")


def test_what_starts_web_anew_is_text_also_where_it_looks_like_a_number():
    hashes = re.findall(r"argosy/(?:settings|shared-settings|secrets): (.*)", text())
    assert len(hashes) == 3
    for each in hashes:
        # ``1234567890`` and ``12345e6789`` would be numbers, which no annotation may be.
        assert re.fullmatch(r'"[0-9a-f]{10}"', each)


def test_strangers_code_is_root_of_a_user_namespace_of_its_own_and_never_privileged():
    patch = patches(render())["strangers"]
    assert patch["hostUsers"] is False
    context = build_of(patch)["securityContext"]
    assert context["capabilities"] == {"add": ["SYS_ADMIN"]}
    assert "privileged" not in json.dumps(patch)


def test_a_kernel_of_its_own_takes_the_user_namespaces_place():
    patch = patches(render(GATEWAY, builds__nodeSelector={"pool": "builds"}))["strangers"]
    assert "hostUsers" not in patch
    assert (patch["runtimeClassName"], patch["nodeSelector"]) == ("gvisor", {"pool": "builds"})


def test_with_neither_nothing_is_added_to_a_usual_container():
    patch = patches(render(builds__isolation="nested"))["strangers"]
    assert "hostUsers" not in patch
    assert build_of(patch)["securityContext"]["capabilities"] == {"drop": ["MKNOD"]}
    assert build_of(patch)["securityContext"]["seccompProfile"] == {"type": "Unconfined"}


def test_limits_stand_in_one_place_and_reach_the_pod_and_the_step():
    objects = render(limits__build={"memory": "3Gi", "cpus": 1.5})
    assert build_of(patches(objects)["strangers"])["resources"]["limits"]["memory"] == str(3 * 1024**3 + 256 * 1024**2)
    settings = next(each["data"] for each in objects if each["metadata"]["name"].endswith("-settings"))
    assert settings["ARGOSY_BUILD_MEMORY_BYTES"] == str(3 * 1024**3)
    assert settings["ARGOSY_BUILD_CPUS"] == "1.5"


def test_the_scanners_database_is_read_only_and_in_one_container():
    found = patches(render(REPLICAS))
    mounts = {each["name"]: each.get("volumeMounts", []) for each in found["ours"]["containers"]}
    assert [mount["name"] for mount in mounts.pop("scan")] == ["grype-db"]
    assert not any(mounts.values())
    assert found["ours"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] is True


def test_no_volume_is_shared_by_two_builds():
    assert "volumes" not in patches(render(REPLICAS))["strangers"]
