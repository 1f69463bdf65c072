"""JupyterHub's REST API: users, their servers, and how far a start has come. Nobody else talks to the Hub.

Source: https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html; ../shared/reference/binderhub.md 5.1.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

import requests
import sseclient
from requests.adapters import HTTPAdapter

from workflows.errors import (
    ArgosyError,
    ConfigError,
    InternalError,
    PolicyError,
    RateLimitError,
    StepTimeoutError,
    TransientError,
)
from workflows.settings import Settings, read_secret

_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 30
"""A Hub that is busy with hundreds of starts answers late, but it answers."""

_SILENCE_SECONDS = 30
"""A stream of progress carries an empty line every 8 s: after this nobody is at its other end."""

_POOL = 256
"""Connections that are kept open: one for each launch in flight, so that none pays for a new one."""

_LOST = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST})
"""What a Hub answers that has lost a user, or a start, which it was asked for a moment ago: it began anew meanwhile."""

_PENDING = " is pending "
"""Words of a Hub that has begun anew and still checks the servers that it knows, or that is just ending this one."""

_REFUSED = "catalogue"
"""A word of the Hub's refusal of an image (``hub-config/spawner.py``); its other refusals concern our token."""


class ServerState(StrEnum):
    """What the Hub says of a user's server."""

    NONE = "none"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One event of a start.

    Args:
        message: For people.
        is_ready: Whether the server answers from now on; the last event.
        is_failed: Whether the start has failed; the last event.
    """

    message: str
    is_ready: bool = False
    is_failed: bool = False


class Hub(Protocol):
    """A JupyterHub.

    Each method raises `TransientError` where the Hub does not answer or fails, `RateLimitError` where it asks to come
    back later, `ConfigError` where it refuses our token.
    """

    def check(self) -> None:
        """Returns where the Hub answers and knows our token."""
        ...

    def create_user(self, name: str) -> bool:
        """Make a user; False where there is one of that name."""
        ...

    def server_state(self, name: str) -> ServerState:
        """What a user's server does; `ServerState.NONE` also where there is no such user."""
        ...

    def start_server(self, name: str, options: Mapping[str, str]) -> None:
        """Start a user's server; returns as soon as it is on its way, or was before.

        Raises:
            PolicyError: The Hub refuses the image.
        """
        ...

    def progress(self, name: str, timeout_seconds: float) -> Iterator[Progress]:
        """What happens to a server on its way, from the first event on; ends after `is_ready` or `is_failed`.

        Raises:
            StepTimeoutError: The time is over.
            PolicyError: The Hub refuses the image.
        """
        ...

    def stop_server(self, name: str) -> None:
        """Stop a server, also one that is still starting; returns before it is gone."""
        ...

    def delete_user(self, name: str) -> bool:
        """Delete a user and the server; False where it must be tried again, because the server is still stopping."""
        ...


class HubClient:
    """A Hub over HTTP. Any thread or greenlet may use it."""

    def __init__(self, settings: Settings) -> None:
        token = read_secret(settings.hub_token_path)
        if token is None:
            raise ConfigError(detail="no token for the Hub")
        self._url = settings.hub_api_url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"token {token.get_secret_value()}"
        # Neither a proxy nor a netrc of the environment may come between us and the Hub.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_POOL)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def check(self) -> None:
        """See `Hub`."""
        self._call("GET", "user")

    def create_user(self, name: str) -> bool:
        """See `Hub`."""
        return self._call("POST", _user(name), allowed={HTTPStatus.CONFLICT}).status_code != HTTPStatus.CONFLICT

    def server_state(self, name: str) -> ServerState:
        """See `Hub`."""
        answer = self._call("GET", f"{_user(name)}?include_stopped_servers", allowed={HTTPStatus.NOT_FOUND})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return ServerState.NONE
        server = (_json(answer).get("servers") or {}).get("") or {}
        if server.get("ready"):
            return ServerState.READY
        return {"spawn": ServerState.STARTING, "stop": ServerState.STOPPING}.get(
            str(server.get("pending")), ServerState.NONE
        )

    def start_server(self, name: str, options: Mapping[str, str]) -> None:
        """See `Hub`."""
        answer = self._call("POST", f"{_user(name)}/server", json=dict(options), allowed=_LOST)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise _lost(answer)
        if answer.status_code == HTTPStatus.BAD_REQUEST and self.server_state(name) is not ServerState.READY:
            raise _error(answer)

    def progress(self, name: str, timeout_seconds: float) -> Iterator[Progress]:
        """See `Hub`."""
        deadline = time.monotonic() + timeout_seconds
        with self._call("GET", f"{_user(name)}/server/progress", stream=True, allowed=_LOST) as answer:
            if answer.status_code in _LOST:
                raise _lost(answer)
            # The client closes what it reads from, and a response closes its connection with it.
            for each in sseclient.SSEClient(_bytes(answer, deadline)).events():
                progress = _progress(each.data)
                if progress.is_failed and _REFUSED in progress.message:
                    raise PolicyError(progress.message)
                yield progress
                if progress.is_ready or progress.is_failed:
                    return

    def stop_server(self, name: str) -> None:
        """See `Hub`."""
        self._call("DELETE", f"{_user(name)}/server", allowed={HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST})

    def delete_user(self, name: str) -> bool:
        """See `Hub`."""
        answer = self._call("DELETE", _user(name), allowed={HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST})
        return answer.status_code != HTTPStatus.BAD_REQUEST

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: dict[str, str] | None = None,
        stream: bool = False,
        allowed: set[HTTPStatus] | frozenset[HTTPStatus] = frozenset(),
    ) -> requests.Response:
        timeout = (_CONNECT_SECONDS, _SILENCE_SECONDS if stream else _ANSWER_SECONDS)
        try:
            answer = self._session.request(
                method, f"{self._url}/{path}", json=json, stream=stream, timeout=timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise TransientError("The Hub does not answer.", detail=f"{method} {path}: {error}") from error
        if answer.ok or answer.status_code in allowed:
            return answer
        with answer:
            raise _error(answer)


def _user(name: str) -> str:
    return f"users/{quote(name, safe='@~')}"


def _bytes(answer: requests.Response, deadline: float) -> Iterator[bytes]:
    """The stream as it comes. The Hub's empty lines make the clock tick even when nothing happens."""
    try:
        for chunk in answer.iter_content(None):
            yield chunk
            if time.monotonic() > deadline:
                raise StepTimeoutError
    except requests.RequestException as error:
        raise TransientError("The Hub does not answer.", detail=f"progress: {error}") from error


def _progress(data: str) -> Progress:
    try:
        given = json.loads(data)
        message = str(given.get("message") or "")
    except (ValueError, AttributeError) as error:
        raise InternalError(detail=f"the Hub's progress is no object: {data[:200]!r}") from error
    return Progress(message=message, is_ready=given.get("ready") is True, is_failed=given.get("failed") is True)


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        given = answer.json()
    except ValueError as error:
        raise TransientError("The Hub does not answer.", detail=f"no JSON from {answer.url}") from error
    return given if isinstance(given, dict) else {}


def _lost(answer: requests.Response) -> TransientError:
    detail = f"{answer.request.method} {answer.url}: {answer.status_code}"
    return TransientError("The Hub has lost the server that it was asked for.", detail=detail)


def _error(answer: requests.Response) -> ArgosyError:
    """What the Hub's refusal means for us."""
    try:
        message = str(_json(answer).get("message") or "")
    except TransientError:
        message = ""
    detail = f"{answer.request.method} {answer.url}: {answer.status_code} {message}"
    status = answer.status_code
    if status == HTTPStatus.BAD_REQUEST and _PENDING in message:
        return TransientError("The Hub is busy with this server.", detail=detail)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitError(message, detail=detail, retry_after_seconds=_seconds(answer.headers.get("Retry-After")))
    if status == HTTPStatus.FORBIDDEN and _REFUSED in message:
        return PolicyError(message, detail=detail)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return ConfigError(detail=detail)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(message, detail=detail)
    return InternalError(detail=detail)


def _seconds(header: str | None) -> float | None:
    # The Hub writes seconds; a date, which HTTP allows too, comes from somebody in between and says as little.
    return float(header) if header and header.isdecimal() else None
