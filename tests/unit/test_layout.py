"""Reading a layout that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.images import write_layout
from workflows.errors import BuildError, InternalError, TooLargeError
from workflows.image import BuildName
from workflows.settings import Settings
from workflows.stores.layout import read_layout
from workflows.stores.staging import Staging

GIB = 1024**3
BUILD = BuildName("build-demo-1a2b3c4-01234567")


def edit_index(layout: Path, **changes: object) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0] |= changes
    (layout / "index.json").write_text(json.dumps(index))


def test_the_one_image_is_found_and_gets_our_name(tmp_path: Path) -> None:
    digest = write_layout(tmp_path / "layout", {"f": "x"}, name="docker.io/library/debian:12")
    assert read_layout(tmp_path / "layout", GIB, rename=True) == digest
    assert read_layout(tmp_path / "layout", GIB) == digest


def test_our_half_takes_no_image_of_another_name(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x"}, name="other")
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


@pytest.mark.parametrize("where", ["link", "blobs/sha256/" + "0" * 64, "blobs/link"])
def test_a_link_is_refused(tmp_path: Path, where: str) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    (tmp_path / "layout" / where).symlink_to("/etc/passwd")
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


def test_a_layout_that_is_a_link_is_refused(tmp_path: Path) -> None:
    write_layout(tmp_path / "elsewhere", {"f": "x"})
    (tmp_path / "layout").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


def test_a_layout_over_the_limit_is_too_large(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x" * 100_000})
    with pytest.raises(TooLargeError):
        read_layout(tmp_path / "layout", 100_000)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        "[" * 50_000,
        '{"manifests": []}',
        '{"manifests": [5]}',
        '{"manifests": [{}, {}]}',
        '{"manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:'
        + "0" * 64
        + '"}]}',
    ],
)
def test_an_index_that_does_not_name_one_image_is_refused(tmp_path: Path, index: str) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    (tmp_path / "layout" / "index.json").write_text(index)
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:../../../../etc/passwd"},
        {"digest": "sha256:" + "0" * 64},
        {"digest": None},
        {"annotations": ["image"]},
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    edit_index(tmp_path / "layout", **changes)
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    digest = write_layout(tmp_path / "layout", {"f": "x"})
    (tmp_path / "layout" / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_text("{}")
    with pytest.raises(BuildError):
        read_layout(tmp_path / "layout", GIB)


def test_nothing_is_staged_where_there_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        Staging(Settings(state=tmp_path)).put(BUILD, tmp_path / "layout", print)
    with pytest.raises(BuildError):
        Staging(Settings(state=tmp_path)).open(BUILD)


def test_a_staged_layout_is_whole_in_its_place_and_staging_again_does_nothing(tmp_path: Path) -> None:
    staging = Staging(Settings(state=tmp_path / "state"))
    digest = write_layout(tmp_path / "layout", {"f": "x"}, name="whatever")
    staging.put(BUILD, tmp_path / "layout", print)
    assert not (tmp_path / "layout").exists()
    staging.put(BUILD, tmp_path / "layout", print)
    assert staging.open(BUILD).digest == digest
    staging.discard(BUILD)
    staging.discard(BUILD)
    assert not staging.folder(BUILD).exists()


def test_a_build_whose_name_is_none_reaches_no_path(tmp_path: Path) -> None:
    staging = Staging(Settings(state=tmp_path))
    for act in (staging.open, staging.discard):
        with pytest.raises(InternalError):
            act(BuildName("../.."))
