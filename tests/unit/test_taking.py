"""Taking a layout out of the reach of whoever wrote it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images import write_layout
from workflows.errors import BuildError, TooLargeError
from workflows.stores.layout import read_layout
from workflows.stores.taking import taken

GIB = 1024**3


def test_a_copy_is_the_image_and_what_happens_to_the_layout_is_nothing_to_it(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = write_layout(layout, {"f": "x"})
    with taken(layout, tmp_path / "own", GIB) as copy:
        for path in (layout / "blobs" / "sha256").iterdir():
            path.write_text("swapped")
        (layout / "index.json").write_text("{}")
        assert read_layout(copy, GIB) == digest
    assert not copy.exists()


def test_what_a_killed_try_left_is_no_part_of_the_next_copy(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    write_layout(tmp_path / "own" / "taken", {"g": "y"})
    with taken(tmp_path / "layout", tmp_path / "own", GIB) as copy:
        assert len(list((copy / "blobs" / "sha256").iterdir())) == 3


def link(path: Path, target: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda layout: link(layout, layout.with_name("elsewhere")),
        lambda layout: link(layout / "blobs", layout / "elsewhere"),
        lambda layout: link(layout / "blobs" / "sha256", layout / "blobs" / "elsewhere"),
        lambda layout: link(layout / "index.json", Path("/etc/passwd")),
        lambda layout: (layout / "blobs" / "sha256" / "link").symlink_to("/etc/passwd"),
        lambda layout: os.mkfifo(layout / "blobs" / "sha256" / "pipe"),
        lambda layout: (layout / "blobs" / "sha256" / "folder").mkdir(),
        lambda layout: (layout / "oci-layout").unlink(),
    ],
    ids=["the layout", "blobs", "sha256", "index.json", "a blob", "a pipe", "a folder", "nothing"],
)
def test_neither_links_nor_pipes_nor_folders_are_followed(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    spoil(tmp_path / "layout")
    with pytest.raises(BuildError), taken(tmp_path / "layout", tmp_path / "own", GIB):
        pass
    assert not (tmp_path / "own" / "taken").exists()


def test_an_image_over_the_limit_is_not_copied_whole(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x" * 100_000})
    with pytest.raises(TooLargeError), taken(tmp_path / "layout", tmp_path / "own", 50_000):
        pass
