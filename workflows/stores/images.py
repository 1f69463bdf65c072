"""Is an image still there? The seam, and this machine's container storage behind it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors
import requests

from workflows.errors import ConfigError, TransientError
from workflows.image import ImageDigest, ImageName, is_digest
from workflows.registry.store import RegistryStore
from workflows.settings import Settings
from workflows.stores.containers import Containers
from workflows.stores.skopeo import Skopeo

_logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20


class ImageStore(Protocol):
    """Where images live."""

    def digest(self, image: ImageName) -> ImageDigest | None:
        """The digest for which name and tag stand there; None where they are not."""
        ...

    def remove(self, image: ImageName) -> None:
        """Delete an image; nothing happens where it is not there."""
        ...


def image_store(settings: Settings) -> ImageStore:
    """The store that the setting ``image_store`` names."""
    return RegistryStore(settings) if settings.image_store == "registry" else ContainerStorage(settings)


class ContainerStorage:
    """This machine's images: asked by the container engine's socket, or by podman itself where none is served.

    A step of `make run` finds the socket, which answers in milliseconds; a build without it (a test, the command line)
    pays for a process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._socket = settings.container_socket
        self._containers = Containers(settings)
        self._client: docker.APIClient | None = None

    def digest(self, image: ImageName) -> ImageDigest | None:
        """See `ImageStore`.

        Raises:
            TransientError: The container engine fails.
            ConfigError: There is none.
        """
        found = self._inspect(image)
        if found is None:
            return None
        digests = _digests(found)
        if len(digests) > 1:
            # One image that was pushed in two compressions: skopeo alone says which came last.
            digests = [Skopeo(self._settings).digest(f"containers-storage:{image}")]
        return next((ImageDigest(digest) for digest in digests if is_digest(digest)), None)

    def remove(self, image: ImageName) -> None:
        """See `ImageStore`.

        Raises:
            TransientError: A container still runs from it, or the container engine fails.
            ConfigError: There is none.
        """
        client = self._connected()
        if client is None:
            self._podman("rmi", image)
            return
        try:
            client.remove_image(image)
        except docker.errors.NotFound:
            return
        except (docker.errors.DockerException, requests.RequestException) as error:
            self._client = None
            raise TransientError(detail=f"cannot remove {image}: {error}") from error

    def _inspect(self, image: ImageName) -> dict[str, Any] | None:
        client = self._connected()
        if client is None:
            output = self._podman("image", "inspect", image)
            return None if output is None else dict(json.loads(output)[0])
        try:
            found: dict[str, Any] = client.inspect_image(image)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            return None
        except (docker.errors.DockerException, requests.RequestException) as error:
            # The socket's server may have been started anew: connect again next time.
            self._client = None
            raise TransientError(detail=f"the container engine says nothing of {image}: {error}") from error
        return found

    def _connected(self) -> docker.APIClient | None:
        if self._client is None and _is_served(self._socket):
            url = f"unix://{self._socket}"
            try:
                self._client = docker.APIClient(base_url=url, version="auto", timeout=_TIMEOUT_SECONDS)
            except (docker.errors.DockerException, requests.RequestException) as error:
                raise TransientError(detail=f"the container engine does not answer: {error}") from error
        return self._client

    def _podman(self, *arguments: str) -> str | None:
        self._containers.prepare()
        environment = os.environ | self._containers.environment()
        try:
            done = subprocess.run(
                ["podman", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise ConfigError(detail="podman is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise TransientError(detail=f"podman {arguments[0]} does not answer") from error
        if done.returncode == 0:
            return done.stdout
        if "image not known" in done.stderr or "no such image" in done.stderr.lower():
            return None
        raise TransientError(detail=f"podman {' '.join(arguments)}: {done.stderr.strip()}")


def _digests(found: dict[str, Any]) -> list[str]:
    """The digests under which an image is known, each once, whatever its names."""
    return list(dict.fromkeys(str(text).rpartition("@")[2] for text in found.get("RepoDigests") or ()))


def _is_served(path: Path) -> bool:
    # A socket that somebody left behind is none: podman itself still knows then.
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            _logger.warning("nobody serves %s: %s", path, error.strerror)
            return False
    return True
