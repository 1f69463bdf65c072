"""The real Hub of one machine, asked past web: only images of the catalogue start, whatever tags say."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.githost import GitHost
from tests.local.farm import Farm
from tests.visitor import Visitor, git_spec, refusal, run_cell

BASE = "localhost/argosy/base:bookworm"
START_SECONDS = 120


@dataclass
class Asked:
    """What somebody with a token asks of the Hub for a user of their own."""

    farm: Farm
    token: str
    user: str = field(default_factory=lambda: f"somebody-{uuid.uuid4().hex[:8]}")
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def address(self) -> str:
        """The user's, in the Hub's API."""
        return f"{self.farm.environment['ARGOSY_HUB_API_URL']}users/{self.user}"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        url = f"{self.address}{path}"
        return requests.request(method, url, headers={"Authorization": f"token {self.token}"}, timeout=60, **options)

    def start(self, image: str) -> requests.Response:
        """Ask for a user, and for a server from this image."""
        assert self.call("POST", "").status_code == 201
        return self.ask(image)

    def ask(self, image: str) -> requests.Response:
        """Ask for a server from this image."""
        return self.call("POST", "/server", json={"image": image, "token": self.key})

    def runs(self) -> str:
        """The id of the image that the server runs, once it answers."""
        url = f"{self.farm.environment['ARGOSY_HUB_URL']}user/{self.user}/api/status"
        deadline = time.monotonic() + START_SECONDS
        while requests.get(url, headers={"Authorization": f"token {self.key}"}, timeout=30).status_code != 200:
            assert time.monotonic() < deadline, self.farm.log()
            time.sleep(0.5)
        (container,) = containers(self.farm, self.user)
        return self.farm.podman("inspect", "--format={{.Image}}", container)

    def end(self) -> None:
        self.call("DELETE", "/server")
        deadline = time.monotonic() + START_SECONDS
        while self.call("DELETE", "").status_code not in {204, 404}:
            assert time.monotonic() < deadline, self.farm.log()
            time.sleep(0.5)


def containers(farm: Farm, user: str) -> list[str]:
    # DockerSpawner writes a hyphen of the name so.
    return farm.podman("ps", "--all", "--quiet", f"--filter=name={user.replace('-', '-2d')}").split()


def refused(asked: Asked, image: str) -> None:
    answer = asked.start(image)
    assert "not in Argosy's catalogue" in refusal(answer, lambda: asked.ask(image), asked.address, asked.token)
    assert containers(asked.farm, asked.user) == []
    asked.end()


@pytest.fixture
def build(farm: Farm, githost: GitHost) -> Callable[[], tuple[str, str]]:
    """Builds and publishes an image: its name and tag, and the digest that the catalogue holds for them."""

    def build() -> tuple[str, str]:
        name = f"hub/{uuid.uuid4().hex[:8]}"
        githost.create(name, {"requirements.txt": "six==1.17.0\n"})
        click = Visitor(farm.url).click(git_spec(f"{githost.url}/{name}"), build_only=True)
        assert click.last["phase"] == "ready", click.log
        entries = [json.loads(each.read_text()) for each in (farm.state / "catalogue").glob("image-*.json")]
        (digest,) = [entry["digest"] for entry in entries if entry["image"] == click.last["imageName"]]
        return click.last["imageName"], digest

    return build


def test_only_what_the_catalogue_holds_starts_whoever_asks(farm: Farm, build: Callable[[], tuple[str, str]]) -> None:
    tagged, digest = build()
    name = tagged.rpartition(":")[0]
    base = farm.podman("image", "inspect", "--format={{.Digest}}", BASE)
    for other in (
        f"{BASE}@{base}",  # on this machine, and never published
        BASE,
        tagged,  # published, and not pinned
        f"{name}@{digest}",
        digest,
        f"{tagged}@sha256:{'0' * 64}",
        f"{tagged}@{base}",  # another image's digest under a published tag
        f"{name}:other@{digest}",
        f"docker.io/library/{tagged.partition('/')[2]}@{digest}",
        "",
    ):
        refused(Asked(farm, farm.hub_token), other)
    asked = Asked(farm, farm.hub_token)
    assert asked.start(f"{tagged}@{digest}").status_code in {201, 202}
    assert asked.runs() == farm.podman("image", "inspect", "--format={{.Id}}", tagged)
    asked.end()


def test_a_tag_that_moved_starts_nothing_else(farm: Farm, build: Callable[[], tuple[str, str]]) -> None:
    (tagged, digest), (other, other_digest) = build(), build()
    built = farm.podman("image", "inspect", "--format={{.Id}}", tagged)
    farm.podman("tag", other, tagged)
    assert farm.podman("image", "inspect", "--format={{.Id}}", tagged) != built

    refused(Asked(farm, farm.hub_token), tagged)
    refused(Asked(farm, farm.hub_token), f"{tagged}@{other_digest}")
    asked = Asked(farm, farm.hub_token)
    asked.start(f"{tagged}@{digest}")
    assert asked.runs() == built
    asked.end()


def test_a_visitors_own_token_starts_nothing(farm: Farm, githost: GitHost) -> None:
    githost.create("hub/own", {"requirements.txt": "six==1.17.0\n"})
    ready = Visitor(farm.url).click(git_spec(f"{githost.url}/hub/own")).last
    assert ready["phase"] == "ready", ready
    code = "import os; print(os.environ['JUPYTERHUB_API_TOKEN'], os.environ['JUPYTERHUB_USER'])"
    token, user = run_cell(ready["url"], ready["token"], code).split()
    own = Asked(farm, token, user=user)
    for path in ("/server", "/servers/second"):
        answer = own.call("POST", path, json={"image": BASE, "token": own.key})
        assert answer.status_code in {403, 404}, answer.text
    assert len(containers(farm, user)) == 1
