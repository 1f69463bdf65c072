"""The catalogue: the images that the Hub may start.

On one machine it is a folder with one file for each image, which the Hub reads by itself; in a cluster it is a
namespace (`workflows.stores.configmaps`). `publish` adds to it, retention removes. An entry that is torn or was
tampered with counts as absent: the image is then published anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from workflows.errors import InternalError, TransientError
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName, is_build_name, is_digest
from workflows.settings import Settings
from workflows.stores.files import write_whole

_logger = logging.getLogger(__name__)

_NAMED = re.compile(
    # A registry's host with its port, then path components, then the tag.
    r"([a-z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*:[A-Za-z0-9_][\w.-]{0,127}",
    re.ASCII,
)
_MAX_NAME = 512
_MAX_FILE_BYTES = 64 * 1024
"""More than any entry of ours has: a larger file is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image that may start.

    Args:
        image: Name and tag.
        digest: What name and tag must stand for.
        provider: The provider's prefix.
        spec: What was asked for.
        repo_url: Canonical address of the repository.
        commit: The resolved ref.
        builder: Which versions of what built it, for the sweep that renews images.
        published: Seconds since the epoch.
        build: The attempt that made it.
    """

    image: ImageName
    digest: ImageDigest
    provider: str
    spec: str
    repo_url: str
    commit: CommitSHA
    builder: str
    published: float
    build: BuildName


class Catalogue(Protocol):
    """The images that the Hub may start."""

    def get(self, image: ImageName, digest: ImageDigest | None = None) -> Entry | None:
        """The entry of that name and tag; None where there is none.

        Args:
            image: Name and tag.
            digest: The one that is meant; None: the latest. Whoever knows it should say it: in a cluster that is one
                look instead of a search.
        """
        ...

    def add(self, entry: Entry) -> None:
        """Put an entry in: from now on it is the latest of its name and tag."""
        ...

    def remove(self, image: ImageName) -> None:
        """Withdraw an image; nothing happens where it is not in."""
        ...

    def entries(self) -> tuple[Entry, ...]:
        """All of them, the oldest first."""
        ...


def catalogue_of(settings: Settings) -> Catalogue:
    """The catalogue of the farm that the settings describe.

    Raises:
        ConfigError: It is in a cluster, and there is no way in.
    """
    if settings.engine == "argo":
        # Here: on one machine nobody loads what speaks to clusters, and that module needs the values of this one.
        from workflows.cluster.connection import Cluster  # noqa: PLC0415
        from workflows.stores.configmaps import KubernetesCatalogue  # noqa: PLC0415

        return KubernetesCatalogue(Cluster(), settings.catalogue_namespace)
    return FolderCatalogue(settings.catalogue_folder)


def is_image_name(text: str) -> bool:
    """Whether `text` is a name with a tag, as ``host:port/path/name:tag``."""
    return len(text) <= _MAX_NAME and _NAMED.fullmatch(text) is not None


class FolderCatalogue:
    """A catalogue in a folder.

    Args:
        folder: Made at the first `add`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, image: ImageName, digest: ImageDigest | None = None) -> Entry | None:
        """See `Catalogue`."""
        entry = _read(self._path(image))
        # A file under the wrong name would let one image stand in for another.
        if entry is None or entry.image != image or digest not in {None, entry.digest}:
            return None
        return entry

    def add(self, entry: Entry) -> None:
        """See `Catalogue`. It takes the place of an earlier one.

        Raises:
            InternalError: The entry is none that could be read again.
            TransientError: The disk does not take it.
        """
        if not is_valid(entry):
            raise InternalError(detail=f"not an entry of the catalogue: {entry}")
        write_whole(self._path(entry.image), to_json(entry))

    def remove(self, image: ImageName) -> None:
        """See `Catalogue`."""
        self._path(image).unlink(missing_ok=True)

    def entries(self) -> tuple[Entry, ...]:
        """See `Catalogue`."""
        paths = self._folder.glob("image-*.json")
        found = ((path, _read(path)) for path in paths)
        kept = [entry for path, entry in found if entry is not None and self._path(entry.image) == path]
        return tuple(sorted(kept, key=lambda entry: entry.published))

    def _path(self, image: ImageName) -> Path:
        # Hashed: a name holds slashes, and may be longer than a file's name.
        return self._folder / f"image-{hashlib.sha256(image.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Entry | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TransientError(detail=f"cannot read {path}: {error.strerror}") from error
    entry = from_json(content)
    if entry is None:
        _logger.warning("not an entry of the catalogue, left out: %s", path)
    return entry


def to_json(entry: Entry) -> str:
    """This entry as JSON, for `from_json` and for the Hub."""
    return json.dumps(dataclasses.asdict(entry), indent=1) + "\n"


def from_json(content: str | bytes) -> Entry | None:
    """The entry that `to_json` wrote; None where `content` is anything else."""
    try:
        return _entry(json.loads(content)) if len(content) <= _MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        return None


def _entry(given: Any) -> Entry | None:
    names = [entry_field.name for entry_field in dataclasses.fields(Entry)]
    if not isinstance(given, dict) or not all(name in given for name in names):
        return None
    texts = all(isinstance(given[name], str) for name in names if name != "published")
    published = given["published"]
    if not texts or isinstance(published, bool) or not isinstance(published, int | float):
        return None
    # Keys of a later version are left out, so that old and new may share a folder.
    entry = Entry(**{name: given[name] for name in names})
    return entry if is_valid(entry) else None


def is_valid(entry: Entry) -> bool:
    """Whether an entry can be read again."""
    return is_image_name(entry.image) and is_digest(entry.digest) and is_build_name(entry.build)
