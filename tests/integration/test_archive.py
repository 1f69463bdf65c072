from __future__ import annotations

import gzip
import io
import uuid

import pytest

from web.recording import archive
from web.recording.archive import FsspecArchive
from workflows.errors import ConfigError, InternalError, TransientError
from workflows.image import BuildName

NAME = BuildName("build-owner-repo-aaaaaaa-00000000")


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return FsspecArchive(f"file://{tmp_path}/archive" if request.param == "file" else f"memory://{uuid.uuid4()}")


class Torn(io.BytesIO):
    """Content that fails in the middle."""

    def read(self, size=-1):
        if self.tell():
            raise OSError("the source is torn")
        return super().read(size)


@pytest.mark.parametrize("file", [archive.LOG, archive.SBOM])
def test_what_is_put_is_got_and_streamed(store, file):
    key = archive.key(NAME, file)
    content = b"line\n" * 100_000
    assert not store.exists(key)
    store.put(key, io.BytesIO(content))
    assert store.exists(key)
    assert store.get(key) == content
    assert b"".join(store.stream(key)) == content


def test_what_is_not_there_is_none(store):
    key = archive.key(NAME, archive.LOG)
    assert store.get(key) is None
    assert store.stream(key) is None
    assert not store.exists(key)
    assert not store.exists("builds")


def test_what_is_put_again_takes_the_old_ones_place(store):
    key = archive.key(NAME, archive.SBOM)
    for content in (b"a long one that is replaced", b"short", b""):
        store.put(key, io.BytesIO(content))
        assert store.get(key) == content


def test_content_that_fails_in_the_middle_leaves_what_was_there(store):
    key = archive.key(NAME, archive.SBOM)
    store.put(key, io.BytesIO(b"old"))
    with pytest.raises(OSError, match="torn"):
        store.put(key, Torn(b"new" * 100_000))
    assert store.get(key) == b"old"


@pytest.mark.parametrize(
    "key", ["", "/", "../x", "a/../b", "/etc/passwd", "a//b", ".part", "a/.b", "a b", "A", "a\n", "a/" * 20 + "b", "é"]
)
def test_a_key_that_could_lead_elsewhere_is_refused(store, key):
    for ask in (store.get, store.exists, store.stream):
        with pytest.raises(InternalError):
            ask(key)
    with pytest.raises(InternalError):
        store.put(key, io.BytesIO(b"x"))


def test_a_log_lies_compressed_and_without_a_time(tmp_path):
    store = FsspecArchive(f"file://{tmp_path}/archive")
    path = tmp_path / "archive" / "builds" / NAME / "log.txt.gz"
    seen = set()
    for _ in range(2):
        store.put(archive.key(NAME, archive.LOG), io.BytesIO(b"line\n" * 1000))
        seen.add(path.read_bytes())
    assert len(seen) == 1
    assert len(path.read_bytes()) < 200
    assert gzip.decompress(path.read_bytes()) == b"line\n" * 1000
    assert [entry.name for entry in path.parent.iterdir()] == ["log.txt.gz"]


def test_a_folder_that_cannot_be_written_is_transient_and_keeps_no_part(tmp_path):
    (tmp_path / "archive").write_text("a file is in the way")
    with pytest.raises(TransientError):
        FsspecArchive(f"file://{tmp_path}/archive").put(archive.key(NAME, archive.LOG), io.BytesIO(b"x"))


def test_a_torn_log_is_said(tmp_path):
    store = FsspecArchive(f"file://{tmp_path}/archive")
    key = archive.key(NAME, archive.LOG)
    store.put(key, io.BytesIO(bytes(range(256)) * 1000))
    path = tmp_path / "archive" / key
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TransientError):
        store.get(key)


def test_a_url_that_nothing_understands_is_refused_without_telling_it():
    with pytest.raises(ConfigError) as caught:
        FsspecArchive("nonsense://key:secret@bucket")
    assert "secret" not in caught.value.detail
