"""A real Hub with KubeSpawner and the catalogue in Kubernetes, configured as ours are in a cluster."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Iterator

import pytest
import requests

from tests.cluster import images
from tests.cluster.hub import Hub
from tests.cluster.namespace import kubectl
from tests.cluster.release import Release, release
from tests.visitor import refusal

TOKEN = secrets.token_urlsafe(24)
START_SECONDS = 180
"""With the pull of an image that no visitor had before."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with release("chart-hub") as farm:
        farm.install()
        made = Hub(farm, tmp_path_factory.mktemp("hub"))
        made.start()
        made.release = farm
        yield made
        made.stop()


@pytest.fixture(scope="module")
def image() -> str:
    """An image with Jupyter, by tag and digest."""
    name = images.real()["foundation"]
    found = subprocess.run(
        ["skopeo", "inspect", "--no-tags", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return f"{name}@{found.stdout.strip()}"


def publish(farm: Release, image: str) -> None:
    """Put an image into the catalogue, as the step `publish` does."""
    tagged, _, digest = image.partition("@")
    name = f"image-{hashlib.sha256(image.encode()).hexdigest()[:32]}"
    entry = json.dumps({"image": tagged, "digest": digest})
    farm.catalogue.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"entry": entry}}
    )


def ask(hub: Hub, method: str, path: str, **options: object) -> requests.Response:
    headers = {"Authorization": f"token {hub.token}"}
    return requests.request(method, f"{hub.url}hub/api/{path}", headers=headers, timeout=60, **options)


def start(hub: Hub, user: str, image: str) -> requests.Response:
    assert ask(hub, "POST", f"users/{user}").status_code == 201
    return ask_server(hub, user, image)


def ask_server(hub: Hub, user: str, image: str) -> requests.Response:
    return ask(hub, "POST", f"users/{user}/server", json={"image": image, "token": TOKEN})


def test_an_image_of_the_catalogue_starts_and_opens_with_the_visitors_token_alone(hub, image):
    publish(hub.release, image)
    assert start(hub, "visitor-one", image).status_code in {201, 202}, hub.logs()
    url = f"{hub.url}user/visitor-one/api/status"
    deadline = time.monotonic() + START_SECONDS
    while (answer := requests.get(url, headers={"Authorization": f"token {TOKEN}"}, timeout=30)).status_code != 200:
        assert time.monotonic() < deadline, hub.logs()
        time.sleep(0.5)
    assert "started" in answer.json()
    assert requests.get(url, timeout=30).status_code == 403
    (pod,) = hub.visitors.list("pods")
    assert (
        pod["spec"]["containers"][0]["image"]
        == f"{image.partition('@')[0].rpartition(':')[0]}@{image.partition('@')[2]}"
    )
    assert pod["spec"].get("automountServiceAccountToken") is False
    assert ask(hub, "DELETE", "users/visitor-one/server").status_code in {202, 204}


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:" + "f" * 64])
def test_another_digest_of_a_known_tag_is_refused_and_no_pod_is_made(hub, image, digest):
    user = f"visitor-{digest[-3:]}"
    other = f"{image.partition('@')[0]}@{digest}"
    assert "catalogue" in refusal(
        start(hub, user, other), lambda: ask_server(hub, user, other), f"{hub.url}hub/api/users/{user}", hub.token
    )
    pods = hub.visitors.list("pods", "component=singleuser-server")
    assert not [pod for pod in pods if digest in json.dumps(pod)]


def test_the_hubs_account_reads_one_entry_and_neither_lists_nor_writes(hub):
    account = f"system:serviceaccount:{hub.release.web.name}:hub"
    place = ["--as", account, "--namespace", hub.release.catalogue.name]
    listed = subprocess.run(
        ["kubectl", "auth", "can-i", "list", "configmaps", *place], capture_output=True, text=True, check=False
    )
    assert listed.stdout.strip() == "no"
    assert kubectl("auth", "can-i", "get", "configmaps", *place).strip() == "yes"
