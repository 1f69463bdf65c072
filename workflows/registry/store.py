"""The images in a registry.

Source: OCI distribution specification 1.1, https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from workflows.errors import TooLargeError, TransientError
from workflows.image import ImageDigest, ImageName, is_digest, split_tag
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest, read whole.

    Args:
        digest: Computed from it, by us.
        blobs: Digests of its configuration and layers, each once.
        size_bytes: What those have together, as the manifest says.
    """

    digest: ImageDigest
    blobs: tuple[str, ...] = ()
    size_bytes: int = 0


class RegistryStore:
    """The images of the registry that the setting ``image_prefix`` names; one of the two `ImageStore`.

    Args:
        settings: ``registry_…`` say how it is spoken to.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = Connection(settings)

    def digest(self, image: ImageName) -> ImageDigest | None:
        """The digest for which name and tag stand, as the registry says; None where it does not hold them.

        Raises:
            ConfigError: It refuses our credentials.
            TransientError: It cannot be reached or fails.
        """
        name, tag = split_tag(image)
        answer = self._connection.ask("HEAD", name, f"manifests/{tag}")
        if answer is None:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if is_digest(digest):
            return ImageDigest(digest)
        # The header is optional in the specification: then the manifest itself says it.
        found = self.manifest(name, tag)
        return found.digest if found else None

    def manifest(self, name: str, reference: str) -> Manifest | None:
        """The manifest for which a tag or digest stands, with the digest that it really has; None where none is.

        Raises:
            ConfigError: The registry refuses our credentials.
            TransientError: It cannot be reached or fails, or says another digest than it gives.
            TooLargeError: The image is larger than the setting ``max_image_bytes``.
        """
        answer = self._connection.ask("GET", name, f"manifests/{reference}")
        if answer is None:
            return None
        digest = ImageDigest(f"sha256:{hashlib.sha256(answer.body).hexdigest()}")
        said = {answer.headers.get("Docker-Content-Digest", digest), reference if is_digest(reference) else digest}
        if said != {digest}:
            raise TransientError(detail=f"the registry gives {digest} and says {sorted(said)} for {name}:{reference}")
        blobs = _blobs(answer.body)
        size = sum(blobs.values())
        limit = self._settings.max_image_bytes
        if size > limit:
            raise TooLargeError(f"The image is larger than the {limit // 1024**2} MiB that this service allows.")
        return Manifest(digest=digest, blobs=tuple(blobs), size_bytes=size)

    def remove(self, image: ImageName) -> None:
        """Delete the manifest for which name and tag stand, and what refers to it; nothing happens where there is none.

        Raises:
            ConfigError: The registry does not allow it.
            TransientError: It cannot be reached or fails.
        """
        digest = self.digest(image)
        if digest is not None:
            name = split_tag(image)[0]
            # First: without the image nobody would find them any more.
            Referrers(self._connection).remove(name, digest)
            self._connection.ask("DELETE", name, f"manifests/{digest}")

    def mount(self, source: str, blobs: Iterable[str], target: str) -> bool:
        """Let `target` have blobs of `source`, so that a copy sends none of them again.

        Args:
            source: Name without tag, in the same registry.
            blobs: Their digests.
            target: Name without tag.

        Returns:
            Whether it has all of them now. Not every registry does it.

        Raises:
            ConfigError: The registry refuses our credentials.
            TransientError: It cannot be reached or fails.
        """
        mounted = True
        for blob in blobs:
            # Not every registry remembers who has which blob, and skopeo asks for a mount only where it does.
            parameters = {"mount": blob, "from": source.partition("/")[2]}
            answer = self._connection.ask("POST", target, "blobs/uploads/", source=source, parameters=parameters)
            mounted &= answer is not None and answer.status == HTTPStatus.CREATED
        return mounted


def _blobs(manifest: bytes) -> dict[str, int]:
    """Digests and sizes; of an index or of what is no manifest: none."""
    try:
        given: dict[str, Any] = json.loads(manifest)
        found = [(part["digest"], part["size"]) for part in (given["config"], *given["layers"])]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    # It is a stranger's manifest: nothing but digests reaches a URL.
    return {
        digest: size
        for digest, size in found
        if isinstance(digest, str) and is_digest(digest) and isinstance(size, int) and size >= 0
    }
