"""The Hub's side of a launch: which images start, and how; behind the mixin a spawner that notes what it is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from pathlib import Path

import pytest
from kubernetes_asyncio.client import ApiException, V1ConfigMap
from tornado import web
from traitlets import Any, Bool, Dict, Int, List, Unicode

HUB_CONFIG = str(Path(__file__).parents[2] / "hub-config")
sys.path.insert(0, HUB_CONFIG)
from catalogue import FolderCatalogue, KubernetesCatalogue, UnansweredError, parse  # noqa: E402
from spawner import REFUSED, VisitorSpawnerMixin  # noqa: E402

sys.path.remove(HUB_CONFIG)

IMAGE = "localhost/argosy/owner-2drepo-123456:0123456789"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
TOKEN = "t" * 22
GOOD = {"image": f"{IMAGE}@{DIGEST}", "token": TOKEN}


class Noting(VisitorSpawnerMixin.__mro__[1]):  # type: ignore[misc,name-defined]
    """A spawner with profiles and a choice of images, as KubeSpawner and DockerSpawner have them."""

    user_options = Dict()
    image = Unicode("configured")
    port = Int(8888)
    args = List(["--extra"])
    default_url = Unicode("")
    server = Any()
    profile_list = List([{"kubespawner_override": {"image": "evil"}}])
    is_started = Bool(False)
    log = logging.getLogger("spawner")

    async def start(self):
        # What the two do before they start anything.
        if self.profile_list:
            self.image = self.profile_list[0]["kubespawner_override"]["image"]
        self.image = self.user_options.get("image", self.image)
        self.is_started = True
        return self.address

    async def poll(self):
        return self.ended

    def get_env(self):
        return {"JUPYTERHUB_USER": "someone"}

    def format_string(self, text):
        return text


class Spawner(VisitorSpawnerMixin, Noting):
    address: object = ("127.0.0.1", 1)
    ended: object = None

    async def _listens(self, address):
        if self.ended is not None:
            await super()._listens(address)


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path, IMAGE, DIGEST)
    return tmp_path


@pytest.fixture
def start(folder):
    def started(options, **fields):
        spawner = Spawner(catalogue=FolderCatalogue(folder), user_options=options)
        for name, value in fields.items():
            setattr(spawner, name, value)
        try:
            asyncio.run(spawner.start())
        except web.HTTPError as error:
            assert not spawner.is_started or spawner.ended is not None
            return error
        return spawner

    return started


def publish(folder, image, digest, name=None):
    path = folder / f"image-{hashlib.sha256((name or image).encode()).hexdigest()[:32]}.json"
    path.write_text(json.dumps({"image": image, "digest": digest}), encoding="utf-8")
    return path


def test_an_image_of_the_catalogue_starts_by_its_digest(start):
    assert start(GOOD).image == f"localhost/argosy/owner-2drepo-123456@{DIGEST}"


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,  # a bare tag
        f"localhost/argosy/owner-2drepo-123456@{DIGEST}",  # a bare digest
        f"{IMAGE}@{OTHER}",  # a tag that moved
        f"localhost/argosy/other:1@{DIGEST}",  # the digest of another
        f"{IMAGE}@{DIGEST}\n",
        f" {IMAGE}@{DIGEST}",
        f"{IMAGE}@{DIGEST.upper()}",
        f"docker://{IMAGE}@{DIGEST}",
        f"../../{IMAGE}@{DIGEST}",
        f"{IMAGE}@sha512:{'a' * 128}",
        "x" * 10_000,
        "",
        None,
        7,
        [f"{IMAGE}@{DIGEST}"],
        {"image": f"{IMAGE}@{DIGEST}"},
    ],
)
def test_everything_else_is_refused(start, image):
    refused = start(GOOD | {"image": image})
    assert refused.status_code == 403
    assert refused.jupyterhub_message.startswith(REFUSED)


def test_no_image_at_all_is_refused(start):
    assert start({"token": TOKEN}).status_code == 403
    assert start({}).status_code == 403


def test_a_withdrawn_image_is_refused(start, folder):
    next(folder.iterdir()).unlink()
    assert start(GOOD).status_code == 403


def test_a_hub_without_a_catalogue_starts_nothing(start):
    assert start(GOOD, catalogue=None).status_code == 403


def test_a_catalogue_that_does_not_answer_is_no_refusal_of_the_image(start):
    class Silent:
        async def holds(self, image):
            raise UnansweredError("the API server is away")

    unknown = start(GOOD, catalogue=Silent())
    assert unknown.status_code == 503
    assert "catalogue" not in unknown.jupyterhub_message, "web would withdraw the image"


# --- the catalogue of a cluster ---


class ConfigMaps:
    """ConfigMaps by name, and what was asked for."""

    def __init__(self, entries=(), error=None):
        self.entries, self.error, self.asked = dict(entries), error, []

    async def read_namespaced_config_map(self, name, namespace, **options):
        self.asked.append((namespace, name))
        if self.error or name not in self.entries:
            raise self.error or ApiException(status=404)
        return V1ConfigMap(data={"entry": self.entries[name]})


def config_map(image, digest, name=None):
    entry = json.dumps({"image": image, "digest": digest})
    hashed = hashlib.sha256((name or f"{image}@{digest}").encode()).hexdigest()[:32]
    return {f"image-{hashed}": entry}


def test_in_a_cluster_one_look_up_by_the_whole_name_says_whether_an_image_may_start(start):
    api = ConfigMaps(config_map(IMAGE, DIGEST) | config_map(IMAGE, OTHER))
    for digest in (DIGEST, OTHER):
        spawner = start(GOOD | {"image": f"{IMAGE}@{digest}"}, catalogue=KubernetesCatalogue("images", api))
        assert spawner.image.endswith(f"@{digest}")
    assert len(api.asked) == 2
    assert {namespace for namespace, _ in api.asked} == {"images"}


@pytest.mark.parametrize(
    "entries",
    [
        {},
        config_map(IMAGE, OTHER),
        config_map(IMAGE, OTHER, name=f"{IMAGE}@{DIGEST}"),
        config_map("localhost/argosy/innocent:1", DIGEST, name=f"{IMAGE}@{DIGEST}"),
        dict.fromkeys(config_map(IMAGE, DIGEST), "[]"),
        dict.fromkeys(config_map(IMAGE, DIGEST), "{"),
    ],
)
def test_in_a_cluster_what_is_no_entry_of_this_very_image_is_a_refusal(start, entries):
    assert start(GOOD, catalogue=KubernetesCatalogue("images", ConfigMaps(entries))).status_code == 403


@pytest.mark.parametrize("error", [ApiException(status=403), ApiException(status=500), TimeoutError(), OSError()])
def test_in_a_cluster_an_api_server_that_does_not_answer_is_no_refusal(start, error):
    assert start(GOOD, catalogue=KubernetesCatalogue("images", ConfigMaps(error=error))).status_code == 503


@pytest.mark.parametrize("content", ["", "[]", "null", '{"image": "x"}', "{" * 100_000, "\ufffe"])
def test_a_torn_file_of_the_catalogue_is_a_refusal(start, folder, content):
    next(folder.iterdir()).write_text(content, encoding="utf-16")
    assert start(GOOD).status_code == 403


def test_an_entry_under_another_images_name_is_a_refusal(start, folder):
    publish(folder, "localhost/argosy/innocent:1", OTHER, name=IMAGE)
    assert start(GOOD | {"image": f"{IMAGE}@{OTHER}"}).status_code == 403


@pytest.mark.parametrize(
    "more",
    [
        {"profile": "evil"},
        {"profile_list": [{}]},
        {"cmd": ["sh"]},
        {"environment": {"A": "b"}},
        {"volumes": {"/": "/host"}},
        {"extra_host_config": {"privileged": True}},
        {"args": ["--allow-root"]},
    ],
)
def test_other_options_reach_nothing(start, more):
    spawner = start(GOOD | more)
    assert spawner.image.endswith(DIGEST)
    assert set(spawner.user_options) == {"token"}
    assert spawner.args == ["--extra"]


@pytest.mark.parametrize("token", [None, "", "short", "t" * 200, "t" * 21 + " ", "t" * 22 + "\n", 7, ["t" * 22]])
def test_no_server_starts_without_a_real_token(start, token):
    assert start(GOOD | {"token": token}).status_code == 400


def test_the_server_is_told_its_place_and_token_in_both_spellings(start):
    spawner = start(GOOD)
    spawner.server = type("Server", (), {"base_url": "/user/someone/"})
    assert spawner.get_args() == [
        "--ip=0.0.0.0",
        "--port=8888",
        "--ServerApp.base_url=/user/someone/",
        f"--ServerApp.token={TOKEN}",
        "--ServerApp.trust_xheaders=True",
        "--NotebookApp.base_url=/user/someone/",
        f"--NotebookApp.token={TOKEN}",
        "--NotebookApp.trust_xheaders=True",
        "--extra",
    ]


def test_the_server_gets_binderhubs_variables_and_no_others(start):
    binder = {
        "repo_url": "https://h/o/r",
        "binder_ref_url": "https://h/o/r/tree/c",
        "binder_launch_host": "https://w/",
        "binder_request": "v2/gh/o/r/main",
        "binder_persistent_request": "v2/gh/o/r/c",
        "binder_client_ip": "192.0.2.1",
    }
    assert start(GOOD | binder | {"binder_other": "x", "PATH": "/evil"}).get_env() == {
        "JUPYTERHUB_USER": "someone",
        "BINDER_REPO_URL": "https://h/o/r",
        "BINDER_REF_URL": "https://h/o/r/tree/c",
        "BINDER_LAUNCH_HOST": "https://w/",
        "BINDER_REQUEST": "v2/gh/o/r/main",
        "BINDER_PERSISTENT_REQUEST": "v2/gh/o/r/c",
        "BINDER_CLIENT_IP": "192.0.2.1",
    }


@pytest.mark.parametrize("value", [7, None, "a\nb", "\x00", "x" * 5000])
def test_a_variable_that_is_no_plain_text_is_left_out(start, value):
    assert "BINDER_REPO_URL" not in start(GOOD | {"repo_url": value}).get_env()


def test_what_the_container_engine_says_stays_in_the_log(start, caplog):
    async def fail(self):
        raise OSError("500 Server Error for http+docker://localhost/v1.41/containers/…")

    spawner_start, Noting.start = Noting.start, fail
    try:
        error = start(GOOD)
    finally:
        Noting.start = spawner_start
    assert error.jupyterhub_message == "The server's container did not start."
    assert "http+docker" in caplog.text


def test_a_server_that_ends_at_once_is_noticed_at_once(start, monkeypatch):
    async def refused(*_: object):
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", refused)
    error = start(GOOD, ended="ExitCode=1")
    assert error.status_code == 500
    assert error.jupyterhub_message.startswith("The server ended before it was ready.")


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        (f"a:1@{DIGEST}", "a", "1"),
        (f"127.0.0.1:5000/p/a_b.c-d:V1.x_y-z@{DIGEST}", "127.0.0.1:5000/p/a_b.c-d", "V1.x_y-z"),
    ],
)
def test_an_image_is_read_with_a_registrys_port(text, name, tag):
    image = parse(text)
    assert image is not None
    assert (image.name, image.tag, image.digest) == (name, tag, DIGEST)
