"""The configuration of this machine's container storages."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from workflows.errors import ConfigError
from workflows.settings import Settings
from workflows.stores.containers import Containers


def read(environment: dict[str, str], variable: str) -> dict[str, object]:
    return tomllib.loads(Path(environment[variable]).read_text())


def test_every_storage_but_base_reads_base(tmp_path: Path) -> None:
    containers = Containers(Settings(state=tmp_path))
    for store in (None, containers.repository("demo-abc")):
        storage = read(containers.environment(store), "CONTAINERS_STORAGE_CONF")["storage"]
        assert storage["options"]["additionalimagestores"] == [str(containers.base)]  # type: ignore[index]
    storage = read(containers.environment(containers.base), "CONTAINERS_STORAGE_CONF")["storage"]
    assert storage["options"]["additionalimagestores"] == []  # type: ignore[index]


def test_storages_share_neither_locks_nor_mounts(tmp_path: Path) -> None:
    containers = Containers(Settings(state=tmp_path))
    stores = [containers.images, containers.base, containers.repository("a"), containers.repository("b")]
    roots = {str(containers.runroot(store)) for store in stores}
    assert len(roots) == 4
    assert all(len(root) <= 50 for root in roots)
    for store in stores:
        engine = read(containers.environment(store), "CONTAINERS_CONF")["engine"]
        assert engine["tmp_dir"].startswith(str(containers.runroot(store)))  # type: ignore[index]


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    containers = Containers(Settings(state=tmp_path))
    containers.prepare()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    (containers.base / "overlay-images" / "images.json").write_text('[{"id": "kept"}]')
    containers.prepare()
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert "kept" in (containers.base / "overlay-images" / "images.json").read_text()
    assert {path for path in after if after[path] != before.get(path)} == {
        containers.base / "overlay-images" / "images.json"
    }


def test_plain_http_is_allowed_for_the_images_registry_alone_and_only_where_it_is_set(tmp_path: Path) -> None:
    given = {"state": tmp_path, "image_store": "registry", "image_prefix": "127.0.0.1:5000/argosy/"}
    secure = Containers(Settings(**given))  # type: ignore[arg-type]
    assert "registry" not in read(secure.environment(), "CONTAINERS_REGISTRIES_CONF")
    insecure = Containers(Settings(**given, registry_insecure=True))  # type: ignore[arg-type]
    registries = read(insecure.environment(), "CONTAINERS_REGISTRIES_CONF")["registry"]
    assert registries == [{"location": "127.0.0.1:5000", "insecure": True}]


def test_the_policy_is_json(tmp_path: Path) -> None:
    containers = Containers(Settings(state=tmp_path))
    containers.prepare()
    assert json.loads(containers.policy.read_text()) == {"default": [{"type": "insecureAcceptAnything"}]}


@pytest.mark.parametrize("slug", ["", ".", "..", "../x", "a/b", "-x", "a" * 300, "a\n"])
def test_a_slug_that_is_no_file_name_is_refused(tmp_path: Path, slug: str) -> None:
    with pytest.raises(ConfigError):
        Containers(Settings(state=tmp_path)).repository(slug)
