"""The catalogue as the Hub reads it: which images may start.

On one machine a folder with one file for each image, in a cluster a namespace with one ConfigMap for each; both are
written by Argosy's ``publish`` step. This module reads them by itself, because it runs in the Hub's process, where
nothing of Argosy is installed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

_logger = logging.getLogger(__name__)

_PINNED = re.compile(
    # A registry's host with its port, then path components, then tag and digest, as OCI writes them.
    r"(?P<name>([a-z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r":(?P<tag>[A-Za-z0-9_][\w.-]{0,127})@(?P<digest>sha256:[0-9a-f]{64})",
    re.ASCII,
)
_MAX_LENGTH = 640
"""Characters of an image with tag and digest; longer than any that `publish` accepts."""

_MAX_BYTES = 64 * 1024
"""More than any entry has: what is larger is none."""

_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Image:
    """An image as a launch asks for it, by tag and digest.

    Args:
        name: Registry and repository.
        tag: The tag.
        digest: ``sha256:`` and 64 hexadecimal digits.
    """

    name: str
    tag: str
    digest: str

    @property
    def tagged(self) -> str:
        """Without the digest."""
        return f"{self.name}:{self.tag}"

    @property
    def pinned(self) -> str:
        """The whole name, with tag and digest."""
        return f"{self.tagged}@{self.digest}"

    @property
    def by_digest(self) -> str:
        """What is started: a tag may move between this check and the start, a digest never does."""
        return f"{self.name}@{self.digest}"


class UnansweredError(Exception):
    """The catalogue could not be asked; whether it holds an image is not known."""


class Catalogue(Protocol):
    """The images that may start. It is asked anew for each server: what was withdrawn starts no more."""

    async def holds(self, image: Image) -> bool:
        """Whether it holds this very image, by name, tag and digest.

        Raises:
            UnansweredError: Nobody answers.
        """
        ...


def parse(text: object) -> Image | None:
    """The image that ``name:tag@sha256:…`` names; None for anything else, a bare tag included."""
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        return None
    found = _PINNED.fullmatch(text)
    return Image(found["name"], found["tag"], found["digest"]) if found else None


class FolderCatalogue:
    """The catalogue of one machine.

    Args:
        folder: As the setting ``ARGOSY_STATE`` places it; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def holds(self, image: Image) -> bool:
        """See `Catalogue`."""
        path = self._folder / f"image-{_hashed(image.tagged)}.json"
        try:
            # A few hundred bytes: less than a switch to another thread costs.
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return False
        except OSError as error:
            # Refusing is always safe.
            _logger.warning("not an entry of the catalogue, left out: %s (%s)", path, error)
            return False
        return _is_of(image, content, str(path))


class KubernetesCatalogue:
    """The catalogue of a cluster: one look-up by name for each server.

    Args:
        namespace: Of the catalogue; the Hub's account may get ConfigMaps there.
        api: Reads a ConfigMap; None: the API of the cluster that this process is in, or that its kubeconfig names.
    """

    def __init__(self, namespace: str, api: Any = None) -> None:
        self._namespace = namespace
        self._api = api

    async def holds(self, image: Image) -> bool:
        """See `Catalogue`."""
        # Here, because one machine's Hub has no such package.
        from kubernetes_asyncio.client import ApiException  # noqa: PLC0415

        name = f"image-{_hashed(image.pinned)}"
        try:
            self._api = self._api or await _core_api()
            found = await self._api.read_namespaced_config_map(name, self._namespace, _request_timeout=_ANSWER_SECONDS)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise UnansweredError(f"{name}: {error.status} {error.reason}") from error
        except (OSError, TimeoutError) as error:
            raise UnansweredError(f"{name}: {error}") from error
        return _is_of(image, (found.data or {}).get("entry", "").encode(), name)


async def _core_api() -> Any:
    from kubernetes_asyncio import client, config  # noqa: PLC0415

    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()
    return client.CoreV1Api()


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_of(image: Image, content: bytes, where: str) -> bool:
    """Whether an entry is this image's: one under a wrong name would let one image stand in for another."""
    try:
        entry = json.loads(content) if len(content) <= _MAX_BYTES else None
    except (ValueError, RecursionError) as error:
        _logger.warning("not an entry of the catalogue, left out: %s (%s)", where, error)
        return False
    return isinstance(entry, dict) and (entry.get("image"), entry.get("digest")) == (image.tagged, image.digest)
