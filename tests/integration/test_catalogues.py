"""One behaviour for both catalogues, and for those who read them in the Hub's process."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apiserver import ApiServer, apiserver
from workflows.errors import InternalError
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName, pinned
from workflows.stores.catalogue import Catalogue, Entry, FolderCatalogue, to_json
from workflows.stores.configmaps import KubernetesCatalogue

HUB_CONFIG = str(Path(__file__).parents[2] / "hub-config")
sys.path.insert(0, HUB_CONFIG)
import catalogue as hubs  # noqa: E402

sys.path.remove(HUB_CONFIG)

NAMESPACE = "images"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
ENTRY = Entry(
    image=ImageName("registry.example:5000/argosy/demo-abc123:1a2b3c4"),
    digest=ImageDigest("sha256:" + "a" * 64),
    provider="git",
    spec="https%3A%2F%2Fexample.org%2Fdemo/main",
    repo_url="https://example.org/demo",
    commit=CommitSHA("1a2b3c4"),
    builder="argosy 0.1.0",
    published=1_800_000_000.5,
    build=BuildName("build-demo-1a2b3c4-01234567"),
)
NEWER = dataclasses.replace(ENTRY, digest=ImageDigest("sha256:" + "b" * 64), published=1_800_000_001.5)
OTHER = dataclasses.replace(ENTRY, image=ImageName("registry.example:5000/argosy/other:1"), published=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of catalogue: as `publish` and web have it, as the Hub reads it, and a way to spoil what is in it."""

    catalogue: Catalogue
    is_started: Callable[[Entry], bool]
    spoil: Callable[[str], None]
    server: ApiServer | None = None


def _started(reader: Any) -> Callable[[Entry], bool]:
    def is_started(entry: Entry) -> bool:
        image = hubs.parse(pinned(entry.image, entry.digest))
        return bool(asyncio.run(reader().holds(image)))

    return is_started


def _folder(path: Path) -> Iterator[Kind]:
    def spoil(content: str) -> None:
        (only,) = path.iterdir()
        only.write_text(content, encoding="utf-8")

    yield Kind(catalogue=FolderCatalogue(path), is_started=_started(lambda: hubs.FolderCatalogue(path)), spoil=spoil)


def _cluster() -> Iterator[Kind]:
    with apiserver() as server:

        def spoil(content: str) -> None:
            (only,) = server.objects.values()
            only["data"] = {"entry": content}

        yield Kind(
            catalogue=KubernetesCatalogue(server.cluster(), NAMESPACE),
            is_started=_started(lambda: hubs.KubernetesCatalogue(NAMESPACE, _Api(server))),
            spoil=spoil,
            server=server,
        )


class _Api:
    """KubeSpawner's client, asked within one event loop."""

    def __init__(self, server: ApiServer) -> None:
        self._host = server.url

    async def read_namespaced_config_map(self, *arguments: Any, **options: Any) -> Any:
        from kubernetes_asyncio import client  # noqa: PLC0415

        configuration = client.Configuration(host=self._host)
        async with client.ApiClient(configuration) as api:
            return await client.CoreV1Api(api).read_namespaced_config_map(*arguments, **options)


@pytest.fixture(params=["folder", "cluster"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    yield from _folder(tmp_path / "catalogue") if request.param == "folder" else _cluster()


def test_what_was_added_is_there_and_starts_until_it_is_removed(kind: Kind) -> None:
    assert kind.catalogue.get(ENTRY.image) is None
    assert kind.catalogue.get(ENTRY.image, ENTRY.digest) is None
    assert kind.catalogue.entries() == ()
    assert not kind.is_started(ENTRY)
    kind.catalogue.add(ENTRY)
    assert kind.catalogue.get(ENTRY.image) == ENTRY
    assert kind.catalogue.get(ENTRY.image, ENTRY.digest) == ENTRY
    assert kind.catalogue.entries() == (ENTRY,)
    assert kind.is_started(ENTRY)
    kind.catalogue.remove(ENTRY.image)
    kind.catalogue.remove(ENTRY.image)
    assert kind.catalogue.get(ENTRY.image) is None
    assert not kind.is_started(ENTRY)


def test_an_image_is_found_and_started_by_its_own_digest_alone(kind: Kind) -> None:
    kind.catalogue.add(ENTRY)
    assert kind.catalogue.get(ENTRY.image, NEWER.digest) is None
    assert kind.catalogue.get(OTHER.image, ENTRY.digest) is None
    assert not kind.is_started(NEWER)
    assert not kind.is_started(OTHER)


def test_the_latest_entry_of_a_name_is_the_one_that_counts(kind: Kind) -> None:
    kind.catalogue.add(ENTRY)
    kind.catalogue.add(NEWER)
    assert kind.catalogue.get(ENTRY.image) == NEWER
    assert kind.catalogue.get(ENTRY.image, NEWER.digest) == NEWER
    assert kind.is_started(NEWER)
    kind.catalogue.remove(ENTRY.image)
    assert kind.catalogue.entries() == ()
    assert not kind.is_started(ENTRY)


def test_adding_an_entry_again_changes_nothing(kind: Kind) -> None:
    kind.catalogue.add(ENTRY)
    kind.catalogue.add(ENTRY)
    assert kind.catalogue.entries() == (ENTRY,)


def test_entries_come_the_oldest_first(kind: Kind) -> None:
    kind.catalogue.add(ENTRY)
    kind.catalogue.add(OTHER)
    assert kind.catalogue.entries() == (OTHER, ENTRY)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 50_000, '{"image": "x"}', " " * 70_000])
def test_what_is_torn_or_garbled_is_no_entry_and_starts_nothing(kind: Kind, content: str) -> None:
    kind.catalogue.add(ENTRY)
    kind.spoil(content)
    assert kind.catalogue.get(ENTRY.image) is None
    assert kind.catalogue.get(ENTRY.image, ENTRY.digest) is None
    assert kind.catalogue.entries() == ()
    assert not kind.is_started(ENTRY)


def test_an_entry_under_anothers_name_stands_for_nothing(kind: Kind) -> None:
    kind.catalogue.add(ENTRY)
    kind.spoil(to_json(OTHER))
    assert kind.catalogue.get(ENTRY.image) is None
    assert kind.catalogue.get(ENTRY.image, ENTRY.digest) is None
    assert kind.catalogue.entries() == ()
    assert not kind.is_started(ENTRY)
    assert not kind.is_started(OTHER)


@pytest.mark.parametrize(
    "wrong", [{"image": "no-tag"}, {"image": "UPPER/case:1"}, {"digest": "sha256:x"}, {"build": "../b"}]
)
def test_an_entry_that_is_none_is_refused(kind: Kind, wrong: dict[str, str]) -> None:
    with pytest.raises(InternalError):
        kind.catalogue.add(dataclasses.replace(ENTRY, **wrong))
    assert kind.catalogue.entries() == ()


# --- of the cluster alone ---


@pytest.fixture
def cluster() -> Iterator[Kind]:
    yield from _cluster()


def test_looking_an_image_up_is_one_request_by_its_name(cluster: Kind) -> None:
    assert cluster.server
    cluster.catalogue.add(ENTRY)
    cluster.server.asked.clear()
    assert cluster.catalogue.get(ENTRY.image, ENTRY.digest) == ENTRY
    assert [(each[0], each[1].rpartition("/")[0]) for each in cluster.server.asked] == [("GET", PATH)]
    cluster.server.asked.clear()
    assert cluster.is_started(ENTRY)
    assert [(each[0], each[1].rpartition("/")[0]) for each in cluster.server.asked] == [("GET", PATH)]


def test_publish_only_creates(cluster: Kind) -> None:
    assert cluster.server
    cluster.catalogue.add(ENTRY)
    cluster.catalogue.add(ENTRY)
    cluster.catalogue.add(NEWER)
    assert {each[0] for each in cluster.server.asked} == {"POST"}
    assert all(each[3]["immutable"] for each in cluster.server.asked)


def test_both_digests_of_a_tag_start_until_they_are_withdrawn(cluster: Kind) -> None:
    cluster.catalogue.add(ENTRY)
    cluster.catalogue.add(NEWER)
    assert cluster.is_started(ENTRY)
    assert cluster.is_started(NEWER)
    cluster.catalogue.remove(ENTRY.image)
    assert not cluster.is_started(NEWER)
