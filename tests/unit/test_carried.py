"""Layers that a registry holds already, and a layout that leaves them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.images import write_layout
from workflows.errors import BuildError, ConfigError
from workflows.image import BuildName
from workflows.settings import Settings
from workflows.stores.carried import LIST, Carried, carried
from workflows.stores.layout import absent_layers, manifest_of
from workflows.stores.staging import Staging

BUILD = BuildName("build-demo-1a2b3c4-01234567")
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + "b" * 64, "size": 5}


def settings(folder: Path, **more: object) -> Settings:
    return Settings(state=folder, base_store=folder / "store", foundation_image="r.test/foundation", **more)


def write_list(folder: Path, content: object) -> None:
    (folder / "store").mkdir()
    (folder / "store" / LIST).write_text(json.dumps(content))


def test_the_list_says_what_a_layer_is_called_in_the_registry(tmp_path: Path) -> None:
    write_list(tmp_path, {"tag": "1.0-abc", "layers": {"sha256:" + "a" * 64: LAYER}})
    found = carried(settings(tmp_path))
    assert found.image == "r.test/foundation:1.0-abc"
    assert found.digests == {LAYER["digest"]}


@pytest.mark.parametrize("content", [[], {}, {"tag": "x"}, 5])
def test_a_list_that_cannot_be_read_is_the_operators_matter(tmp_path: Path, content: object) -> None:
    write_list(tmp_path, content)
    with pytest.raises(ConfigError):
        carried(settings(tmp_path))


def test_nothing_is_carried_where_no_registry_is_named_for_it(tmp_path: Path) -> None:
    assert carried(Settings(state=tmp_path, base_store=tmp_path)) == Carried()
    assert carried(Settings(state=tmp_path, foundation_image="r.test/foundation")) == Carried()


def test_a_layer_that_is_not_in_the_layout_is_absent(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    assert absent_layers(tmp_path / "layout") == frozenset()
    (layer,) = manifest_of(tmp_path / "layout")["layers"]
    (tmp_path / "layout" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).unlink()
    assert absent_layers(tmp_path / "layout") == {layer["digest"]}


def test_a_layout_that_leaves_out_any_other_layer_is_refused_before_a_registry_is_asked(tmp_path: Path) -> None:
    write_list(tmp_path, {"tag": "1.0-abc", "layers": {"sha256:" + "a" * 64: LAYER}})
    write_layout(tmp_path / "layout", {"f": "x"})
    (layer,) = manifest_of(tmp_path / "layout")["layers"]
    (tmp_path / "layout" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).unlink()
    farm = settings(tmp_path, image_store="registry", image_prefix="r.test/")
    with pytest.raises(BuildError):
        Staging(farm).put(BUILD, tmp_path / "layout", print)


def test_a_layer_without_a_digest_reaches_no_path(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_layout(layout, {"f": "x"})
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = manifest_of(layout)
    manifest["layers"][0]["digest"] = "../../../etc/passwd"
    (layout / "blobs" / "sha256" / digest).write_text(json.dumps(manifest))
    with pytest.raises(BuildError):
        absent_layers(layout)
