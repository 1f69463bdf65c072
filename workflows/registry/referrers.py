"""What refers to an image in a registry: SBOMs, attached so that whoever has the image's digest finds them.

A registry of the specification 1.1 lists referrers by itself. For an older one the list is kept by its clients, as an
index under a tag that follows from the digest.

Source: OCI distribution specification 1.1, *Listing Referrers*, *Referrers Tag Schema*; OCI image specification 1.1,
*Guidelines for Artifact Usage*.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any
from urllib.parse import urljoin

from workflows.errors import TransientError
from workflows.image import ImageDigest, is_digest
from workflows.registry.connection import Connection

_logger = logging.getLogger(__name__)

SBOM = "application/vnd.cyclonedx+json"
"""The kind of artifact, and of its one layer."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CREATED = "org.opencontainers.image.created"
_EMPTY = b"{}"
_EMPTY_CONFIG = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}",
    "size": len(_EMPTY),
}
_TRIES = 5
"""To write an index that others may be writing, too."""


class Referrers:
    """Attaches artifacts to images, and finds them.

    Args:
        connection: To the registry.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def attach(self, name: str, digest: ImageDigest, content: bytes, *, kind: str = SBOM, created: str = "") -> str:
        """Attach `content` to an image. Doing it again with the same content changes nothing.

        Args:
            name: The image's, without tag.
            digest: The image's.
            content: The artifact's one file.
            kind: Its media type.
            created: ISO 8601; what is found later is the latest.

        Returns:
            The digest of the artifact's manifest.

        Raises:
            ConfigError: The registry refuses our credentials.
            TransientError: It cannot be reached or fails, or does not hold the image.
        """
        layer = self._upload(name, content) | {"mediaType": kind}
        self._upload(name, _EMPTY)
        annotations = {_CREATED: created} if created else {}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": kind,
            "config": _EMPTY_CONFIG,
            "layers": [layer],
            "subject": self._subject(name, digest),
            "annotations": annotations,
        }
        body = json.dumps(manifest).encode()
        artifact = _digest(body)
        answer = self._connection.ask(
            "PUT", name, f"manifests/{artifact}", body=body, headers={"Content-Type": _MANIFEST}
        )
        # Only a registry that keeps the list by itself says whom it took for the subject.
        if answer is None or answer.headers.get("OCI-Subject") != digest:
            entry = {"mediaType": _MANIFEST, "digest": artifact, "size": len(body), "artifactType": kind}
            self._list(name, digest, entry | {"annotations": annotations})
        return artifact

    def find(self, name: str, digest: ImageDigest, *, kind: str = SBOM) -> bytes | None:
        """The content of the latest artifact of a kind that is attached to an image; None where there is none.

        Raises:
            ConfigError: The registry refuses our credentials.
            TransientError: It cannot be reached or fails, or gives what is not what was attached.
        """
        entries = [entry for entry in self._entries(name, digest) if entry.get("artifactType") == kind]
        entries.sort(key=_created, reverse=True)
        for entry in entries:
            answer = self._connection.ask("GET", name, f"manifests/{entry['digest']}")
            if answer is not None:
                return self._content(name, digest, _verified(answer.body, entry["digest"]))
        return None

    def remove(self, name: str, digest: ImageDigest) -> None:
        """Delete all that refers to an image, and the list of it.

        Raises:
            ConfigError: The registry does not allow it.
            TransientError: It cannot be reached or fails.
        """
        for entry in self._entries(name, digest):
            self._connection.ask("DELETE", name, f"manifests/{entry['digest']}")
        kept = self._connection.ask("GET", name, f"manifests/{_tag(digest)}")
        if kept is not None:
            self._connection.ask("DELETE", name, f"manifests/{_digest(kept.body)}")

    def _subject(self, name: str, digest: ImageDigest) -> dict[str, object]:
        answer = self._connection.ask("GET", name, f"manifests/{digest}")
        if answer is None:
            raise TransientError(detail=f"the registry does not hold {name}@{digest}")
        media_type = answer.headers.get("Content-Type", _MANIFEST).partition(";")[0]
        return {"mediaType": media_type, "digest": digest, "size": len(_verified(answer.body, digest))}

    def _upload(self, name: str, content: bytes) -> dict[str, object]:
        digest = _digest(content)
        if self._connection.ask("HEAD", name, f"blobs/{digest}") is None:
            begun = self._connection.ask("POST", name, "blobs/uploads/")
            location = begun.headers.get("Location", "") if begun else ""
            if begun is None or not location:
                raise TransientError(detail=f"the registry of {name} takes no blobs")
            place = urljoin(begun.url, location)
            place += f"{'&' if '?' in place else '?'}digest={digest}"
            headers = {"Content-Type": "application/octet-stream"}
            self._connection.ask("PUT", name, place, body=content, headers=headers)
        return {"digest": digest, "size": len(content)}

    def _list(self, name: str, digest: ImageDigest, entry: dict[str, Any]) -> None:
        """Add to the index under the image's tag.

        The specification knows no way to write it only if nobody else has. It is read again afterwards, so that of
        two who add in the same moment mostly none is lost.
        """
        for _ in range(_TRIES):
            entries = self._tagged(name, digest)
            if entry["digest"] in {known["digest"] for known in entries}:
                return
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*entries, entry]}
            self._connection.ask(
                "PUT",
                name,
                f"manifests/{_tag(digest)}",
                body=json.dumps(index).encode(),
                headers={"Content-Type": _INDEX},
            )
        raise TransientError(detail=f"the list of what refers to {name}@{digest} does not keep what is written")

    def _entries(self, name: str, digest: ImageDigest) -> list[dict[str, Any]]:
        answer = self._connection.ask("GET", name, f"referrers/{digest}", headers={"Accept": _INDEX})
        return _manifests(answer.body) if answer is not None else self._tagged(name, digest)

    def _tagged(self, name: str, digest: ImageDigest) -> list[dict[str, Any]]:
        answer = self._connection.ask("GET", name, f"manifests/{_tag(digest)}")
        return _manifests(answer.body) if answer is not None else []

    def _content(self, name: str, digest: ImageDigest, manifest: bytes) -> bytes:
        try:
            given = json.loads(manifest)
            layer = str(given["layers"][0]["digest"])
            is_ours = given["subject"]["digest"] == digest and is_digest(layer)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise TransientError(detail=f"what refers to {name}@{digest} is no artifact") from error
        answer = self._connection.ask("GET", name, f"blobs/{layer}") if is_ours else None
        if answer is None:
            raise TransientError(detail=f"what refers to {name}@{digest} refers to another image, or has no content")
        return _verified(answer.body, layer)


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _created(entry: dict[str, Any]) -> str:
    annotations = entry.get("annotations")
    return str(annotations.get(_CREATED, "")) if isinstance(annotations, dict) else ""


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _verified(content: bytes, digest: str) -> bytes:
    if _digest(content) != digest:
        raise TransientError(detail=f"the registry gives {_digest(content)} for {digest}")
    return content


def _manifests(index: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(index)["manifests"]
        return [entry for entry in found if is_digest(str(entry["digest"]))]
    except (ValueError, KeyError, TypeError, RecursionError):
        # Whoever may write to the registry may write any list: then there is none.
        _logger.warning("not a list of referrers, left out: %.200r", index)
        return []
