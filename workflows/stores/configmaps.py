"""The catalogue of a cluster: one ConfigMap for each image that may start, in a namespace of their own.

`publish` may only create them and the Hub may only read one by its name, so whoever takes over either cannot change
what starts. The name follows from name, tag and digest: whoever knows what is to start knows where that is written, and
looks it up with one request, right after it was written. A second digest of the same tag is a second ConfigMap.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from workflows.cluster.connection import Cluster
from workflows.errors import InternalError
from workflows.image import ImageDigest, ImageName, pinned
from workflows.stores.catalogue import Entry, from_json, is_valid, to_json

_logger = logging.getLogger(__name__)

LABEL = "argosy/image"
KEY = "entry"


class KubernetesCatalogue:
    """A catalogue in a namespace. Any native thread may call; every method raises as `Cluster`'s do.

    Args:
        cluster: Kubernetes.
        namespace: Holds nothing else.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"

    def get(self, image: ImageName, digest: ImageDigest | None = None) -> Entry | None:
        """See `Catalogue`. With a digest it is one request; without, the latest of those that are listed."""
        if digest is None:
            return max(self._listed(f"{LABEL}={_hash(image)}"), key=lambda entry: entry.published, default=None)
        found = self._cluster.get(f"{self._path}/{name_of(image, digest)}")
        return _entry(found) if found is not None else None

    def add(self, entry: Entry) -> None:
        """See `Catalogue`. One of the same name, tag and digest stays as it is."""
        if not is_valid(entry):
            raise InternalError(detail=f"not an entry of the catalogue: {entry}")
        about = {"name": name_of(entry.image, entry.digest), "labels": {LABEL: _hash(entry.image)}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "immutable": True}
        self._cluster.create(self._path, body | {"data": {KEY: to_json(entry)}})

    def remove(self, image: ImageName) -> None:
        """See `Catalogue`. All digests of the tag go."""
        for entry in self._listed(f"{LABEL}={_hash(image)}"):
            if entry.image == image:
                self._cluster.delete(f"{self._path}/{name_of(image, entry.digest)}")

    def entries(self) -> tuple[Entry, ...]:
        """See `Catalogue`."""
        return tuple(sorted(self._listed(LABEL), key=lambda entry: entry.published))

    def _listed(self, selector: str) -> list[Entry]:
        # What the API server remembers: whoever lists does not look for what was added this moment.
        found, _ = self._cluster.listed(self._path, selector, is_fresh=False)
        return [entry for each in found if (entry := _entry(each))]


def name_of(image: ImageName, digest: ImageDigest) -> str:
    """The ConfigMap of an image. The Hub's ``catalogue.py`` has the same rule."""
    return f"image-{_hash(pinned(image, digest))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _entry(found: dict[str, Any]) -> Entry | None:
    name = found["metadata"]["name"]
    entry = from_json((found.get("data") or {}).get(KEY, ""))
    # One under another's name would let one image stand in for another.
    if entry is None or name_of(entry.image, entry.digest) != name:
        _logger.warning("not an entry of the catalogue, left out: %s", name)
        return None
    return entry
