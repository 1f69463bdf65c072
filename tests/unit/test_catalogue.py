"""The catalogue in a folder: what is in it is whole, under its own name and valid, or it is not in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from workflows.errors import InternalError
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName
from workflows.stores.catalogue import Entry, FolderCatalogue, is_image_name

ENTRY = Entry(
    image=ImageName("localhost/argosy/demo-abc123:1a2b3c4"),
    digest=ImageDigest("sha256:" + "a" * 64),
    provider="git",
    spec="https%3A%2F%2Fexample.org%2Fdemo/main",
    repo_url="https://example.org/demo",
    commit=CommitSHA("1a2b3c4"),
    builder="argosy 0.1.0",
    published=1_800_000_000.5,
    build=BuildName("build-demo-1a2b3c4-01234567"),
)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_added_is_there_until_it_is_removed(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path / "catalogue")
    assert catalogue.get(ENTRY.image) is None
    assert catalogue.entries() == ()
    catalogue.add(ENTRY)
    assert catalogue.get(ENTRY.image) == ENTRY
    assert catalogue.entries() == (ENTRY,)
    catalogue.remove(ENTRY.image)
    catalogue.remove(ENTRY.image)
    assert catalogue.get(ENTRY.image) is None


def test_a_second_entry_of_a_name_takes_the_first_ones_place(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    newer = dataclasses.replace(ENTRY, digest=ImageDigest("sha256:" + "b" * 64))
    catalogue.add(ENTRY)
    catalogue.add(newer)
    assert catalogue.entries() == (newer,)


def test_entries_come_the_oldest_first(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    older = dataclasses.replace(ENTRY, image=ImageName("localhost/a:1"), published=1.0)
    catalogue.add(ENTRY)
    catalogue.add(older)
    assert catalogue.entries() == (older, ENTRY)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"image": "localhost/argosy/demo-abc123:1a2b3c4"}',
        b" " * 70_000 + json.dumps(dataclasses.asdict(ENTRY)).encode(),
        json.dumps(dataclasses.asdict(ENTRY) | {"digest": "sha256:short"}).encode(),
        json.dumps(dataclasses.asdict(ENTRY) | {"digest": 5}).encode(),
        json.dumps(dataclasses.asdict(ENTRY) | {"published": "today"}).encode(),
        json.dumps(dataclasses.asdict(ENTRY) | {"image": "../../etc/passwd"}).encode(),
    ],
)
def test_a_torn_or_garbled_file_is_no_entry(tmp_path: Path, content: bytes) -> None:
    catalogue = FolderCatalogue(tmp_path)
    catalogue.add(ENTRY)
    only_file(tmp_path).write_bytes(content)
    assert catalogue.get(ENTRY.image) is None
    assert catalogue.entries() == ()


def test_an_entry_under_another_images_name_does_not_stand_for_it(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    catalogue.add(ENTRY)
    other = dataclasses.replace(ENTRY, image=ImageName("localhost/argosy/other:1"))
    only_file(tmp_path).write_text(json.dumps(dataclasses.asdict(other)))
    assert catalogue.get(ENTRY.image) is None
    assert catalogue.entries() == ()


def test_keys_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    catalogue.add(ENTRY)
    only_file(tmp_path).write_text(json.dumps(dataclasses.asdict(ENTRY) | {"verdict": "pass"}))
    assert catalogue.get(ENTRY.image) == ENTRY


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "no-tag"},
        {"image": "UPPER/case:1"},
        {"image": "a:1\n"},
        {"image": "-option:1"},
        {"image": "a/" * 300 + "b:1"},
        {"digest": "sha256:" + "A" * 64},
        {"build": "../build"},
    ],
)
def test_an_entry_that_is_none_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(InternalError):
        FolderCatalogue(tmp_path).add(dataclasses.replace(ENTRY, **wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["localhost/argosy/a-b-c:1", "127.0.0.1:5000/argosy-a:tag_x.y", "a:1", "registry.example.org/p/a--b:1"]
)
def test_real_names_are_names(name: str) -> None:
    assert is_image_name(name)
