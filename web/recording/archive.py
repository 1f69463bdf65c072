"""The archive: what is kept of finished builds, in a folder or an object store.

Every key is `key(name, file)`. What ends in ``.gz`` is compressed on the way in and uncompressed on the way out.

Source: https://filesystem-spec.readthedocs.io/.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from workflows.errors import ConfigError, InternalError, TransientError
from workflows.image import BuildName
from workflows.stores.files import replacing

LOG = "log.txt.gz"
"""The log as `web.recording.transcript` writes it."""

SBOM = "sbom.cdx.json"
FINDINGS = "findings.json"

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}(/[a-z0-9][a-z0-9._-]{0,99}){0,5}")
"""Lower case, no empty part and none that begins with a dot, so that no key ever leads out of the archive."""

_IN_MEMORY_BYTES = 2 * 1024**2
"""Content up to here is prepared in memory, more of it in a temporary file."""

_CHUNK_BYTES = 64 * 1024
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Something in the archive.

    Args:
        key: As it was put.
        size_bytes: As it is stored, compressed.
        modified: Seconds since the epoch.
        is_whole: Not, where a writer is still at it, or was killed.
    """

    key: str
    size_bytes: int
    modified: float
    is_whole: bool


class Archive(Protocol):
    """Keeps bytes by key; every method blocks and raises `TransientError` where the store does not answer."""

    def put(self, key: str, content: IO[bytes]) -> None:
        """Keeps `content` under `key`, in the place of what was there: whole, or not at all."""
        ...

    def get(self, key: str) -> bytes | None:
        """All that is kept under `key`; None where nothing is."""
        ...

    def exists(self, key: str) -> bool:
        """Whether something is kept under `key`."""
        ...

    def stream(self, key: str) -> Iterator[bytes] | None:
        """What is kept under `key`, piece by piece; None where nothing is."""
        ...


def key(name: BuildName, file: str) -> str:
    """Where a file of a finished attempt is kept, as ``builds/<name>/log.txt.gz``."""
    return f"builds/{name}/{file}"


class FsspecArchive:
    """An `Archive` in any file system that fsspec knows.

    Args:
        url: fsspec's URL of a folder, as ``file:///var/lib/argosy/archive`` or ``s3://bucket/argosy``.

    Raises:
        ConfigError: The URL cannot be used, or needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, root = url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            # The URL may hold a key, so it is not repeated.
            raise ConfigError(detail=f"the archive's URL cannot be used: {type(error).__name__}") from error
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def put(self, key: str, content: IO[bytes]) -> None:
        """Keeps `content` under `key`, in the place of what was there: whole, or not at all."""
        path = self._path(key)
        # Prepared first: once the store is spoken to, nothing but the store itself can fail.
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as prepared:
            _prepare(content, cast("IO[bytes]", prepared), compressed=key.endswith(".gz"))
            prepared.seek(0)
            try:
                self._store(path, cast("IO[bytes]", prepared))
            except OSError as error:
                raise TransientError(detail=f"the archive does not take {key}: {error}") from error

    def get(self, key: str) -> bytes | None:
        """All that is kept under `key`; None where nothing is."""
        pieces = self.stream(key)
        return None if pieces is None else b"".join(pieces)

    def exists(self, key: str) -> bool:
        """Whether something is kept under `key`."""
        try:
            return bool(self._fs.isfile(self._path(key)))
        except OSError as error:
            raise TransientError(detail=f"the archive does not answer for {key}: {error}") from error

    def stream(self, key: str) -> Iterator[bytes] | None:
        """What is kept under `key`, piece by piece; None where nothing is."""
        try:
            opened = self._fs.open(self._path(key), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransientError(detail=f"the archive does not answer for {key}: {error}") from error
        return _pieces(opened, key)

    def kept(self) -> list[Kept]:
        """Everything that is kept, and what writers that were killed left half written."""
        try:
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TransientError(detail=f"the archive cannot be listed: {error}") from error
        return [_kept(path.removeprefix(f"{self._root}/"), info) for path, info in found.items()]

    def remove(self, keys: Sequence[str]) -> None:
        """Deletes what is kept under keys, and folders that are empty then."""
        for key in keys:
            path = f"{self._root}/{key}"
            try:
                self._fs.rm_file(path)
                if self._is_local:
                    Path(path).parent.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise TransientError(detail=f"the archive does not delete {key}: {error}") from error

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise InternalError(detail=f"no key of the archive: {key[:200]!r}")
        return f"{self._root}/{key}"

    def _store(self, path: str, content: IO[bytes]) -> None:
        if self._is_local:
            _replace(Path(path), content)
            return
        # An object store shows an object once it is whole; the folders are the key's own text.
        with self._fs.open(path, "wb") as target:
            shutil.copyfileobj(content, target, _CHUNK_BYTES)


def _prepare(content: IO[bytes], prepared: IO[bytes], *, compressed: bool) -> None:
    if not compressed:
        shutil.copyfileobj(content, prepared, _CHUNK_BYTES)
        return
    # No time inside: what is filed twice is the same bytes twice.
    with gzip.GzipFile(filename="", mode="wb", fileobj=prepared, mtime=0) as packed:
        shutil.copyfileobj(content, packed, _CHUNK_BYTES)


def _replace(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The engine's own copy is deleted once this one is told: it must survive the machine's fall, as `replacing` does.
    with replacing(path, mode=_MODE) as part, os.fdopen(part, "wb", closefd=False) as target:
        shutil.copyfileobj(content, target, _CHUNK_BYTES)


def _kept(key: str, info: Mapping[str, Any]) -> Kept:
    # Each file system has words of its own for the time.
    at = next((info[name] for name in ("mtime", "LastModified", "updated", "created") if info.get(name)), 0)
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    modified = at.timestamp() if isinstance(at, datetime) else float(at)
    # `replacing` writes beside the file, under a name that begins with a dot; object stores show nothing half.
    is_whole = not key.rpartition("/")[2].startswith(".")
    return Kept(key=key, size_bytes=int(info.get("size") or 0), modified=modified, is_whole=is_whole)


def _pieces(opened: Any, key: str) -> Iterator[bytes]:
    try:
        with opened:
            source = gzip.GzipFile(fileobj=opened) if key.endswith(".gz") else opened
            while piece := source.read(_CHUNK_BYTES):
                yield piece
    except (OSError, EOFError) as error:
        raise TransientError(detail=f"the archive stopped in the middle of {key}: {error}") from error
