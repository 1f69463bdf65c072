"""How a registry is spoken to: TLS, credentials, tokens, patience, and what its refusals mean.

Source: OCI distribution specification 1.1, https://github.com/opencontainers/distribution-spec/blob/main/spec.md;
token authentication as in https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests

from workflows.errors import ConfigError, RateLimitError, TransientError
from workflows.registry.credentials import credentials
from workflows.settings import Settings

_logger = logging.getLogger(__name__)

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
"""Every kind of manifest there is, for the header ``Accept``."""

_ACTIONS = {
    "HEAD": "pull",
    "GET": "pull",
    "DELETE": "pull,delete",
    "POST": "pull,push",
    "PUT": "pull,push",
}
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_UNTRUSTED = re.compile("CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER")
_CONNECT_SECONDS = 5
_PATIENCE_SECONDS = 10
"""A registry that asks for a pause gets it, once, up to here: a visitor may be waiting."""
_MAX_BODY_BYTES = 64 * 1024**2
"""More than any manifest or SBOM has: an answer without end is none."""
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a registry answered, read whole.

    Args:
        status: The HTTP status.
        headers: Without regard to upper and lower case.
        body: At most 64 MiB.
        url: Whose answer it is, after every redirect.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Connection:
    """One registry, as the settings ``registry_…`` say.

    Args:
        settings: Whether TLS and whose certificates, credentials, patience.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = requests.Session()
        # No ~/.netrc: credentials come from the file that the settings name, or there are none.
        self._session.auth = _no_credentials
        self._tokens: dict[str, str] = {}

    def ask(
        self,
        method: str,
        name: str,
        path: str,
        *,
        source: str = "",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer | None:
        """The registry's answer; None where it says that it has no such thing.

        Args:
            method: HTTP's.
            name: The repository, with the registry's host.
            path: Below that repository, as ``manifests/latest``; or a whole URL that the registry gave.
            source: A second repository that is read from.
            parameters: Of the query.
            headers: Beside ours.
            body: What is sent.

        Raises:
            ConfigError: The registry refuses our credentials, or what we ask for; or its certificate is not trusted.
            TransientError: It cannot be reached, fails, or takes too long.
        """
        host, repository = _place(name)
        root = f"{'http' if self._settings.registry_insecure else 'https'}://{host}"
        url = urljoin(f"{root}/v2/{repository}/", path)
        scopes = [f"repository:{repository}:{_ACTIONS[method]}"]
        scopes += [f"repository:{_place(source)[1]}:pull"] if source else []
        key = " ".join(scopes)
        given = {"Accept": MANIFESTS} | dict(headers or {})
        if urlsplit(url).netloc != urlsplit(root).netloc:
            # A store behind the registry: our credentials are none of its business.
            return _checked(self._send(method, url, given, parameters, body), f"{method} {url}")
        authorized = {"Authorization": self._tokens[key]} if key in self._tokens else {}
        answer = self._send(method, url, given | authorized, parameters, body)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            # A token is good for minutes; the challenge says where the next one is to be had.
            self._tokens[key] = self._authorization(name, answer.headers.get("WWW-Authenticate", ""), scopes)
            answer = self._send(method, url, given | {"Authorization": self._tokens[key]}, parameters, body)
        return _checked(answer, f"{method} {url}")

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        parameters: Mapping[str, str | list[str]] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        answer = self._send_once(method, url, headers, parameters, body)
        pause = _pause(answer)
        if answer.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE} and pause is not None:
            if pause > _PATIENCE_SECONDS:
                return answer
            _logger.info("%s %s: %s, again in %g s", method, url, answer.status, pause)
            time.sleep(pause)
            answer = self._send_once(method, url, headers, parameters, body)
        return answer

    def _send_once(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        parameters: Mapping[str, str | list[str]] | None,
        body: bytes | None,
    ) -> Answer:
        seconds = self._settings.registry_timeout_seconds
        try:
            with self._session.request(
                method,
                url,
                headers=headers,
                params=parameters,
                data=body,
                timeout=(min(_CONNECT_SECONDS, seconds), seconds),
                # Said each time: a session's own is overruled by REQUESTS_CA_BUNDLE.
                verify=str(self._settings.registry_ca_file) if self._settings.registry_ca_file else True,
                stream=True,
            ) as answer:
                return Answer(
                    status=answer.status_code, headers=answer.headers, body=_body(answer, seconds), url=answer.url
                )
        except requests.RequestException as error:
            # A certificate that is not trusted will not be so by itself; a handshake that breaks off may go through.
            wrong = ConfigError if _UNTRUSTED.search(str(error)) else TransientError
            raise wrong(detail=f"{method} {url}: {error}") from error
        except OSError as error:
            # requests' own word for a bundle that is not there.
            raise ConfigError(detail=f"ARGOSY_REGISTRY_CA_FILE: {error}") from error

    def _authorization(self, name: str, challenge: str, scopes: list[str]) -> str:
        known = credentials(self._settings.registry_auth_file, name)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not known:
                raise ConfigError(detail=f"the registry of {name} asks for credentials and there are none")
            return known.basic()
        given = dict(_PARAMETER.findall(rest))
        realm = given.get("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith(self._schemes):
            raise ConfigError(detail=f"the registry of {name} asks for what we do not know: {challenge!r}")
        parameters: dict[str, str | list[str]] = {"scope": scopes}
        if "service" in given:
            parameters["service"] = given["service"]
        basic = {"Authorization": known.basic()} if known else {}
        return f"Bearer {_token(_checked(self._send('GET', realm, basic, parameters), f'token at {realm}'), realm)}"

    @property
    def _schemes(self) -> tuple[str, ...]:
        # A registry that is spoken to over TLS may not send our password over anything else.
        return ("https://", "http://") if self._settings.registry_insecure else ("https://",)


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _place(name: str) -> tuple[str, str]:
    host, slash, path = name.partition("/")
    if not slash or not path or not ("." in host or ":" in host or host == "localhost"):
        raise ConfigError(detail=f"{name} does not begin with a registry's host: set ARGOSY_IMAGE_PREFIX")
    return ("registry-1.docker.io" if host == "docker.io" else host), path


def _body(answer: requests.Response, seconds: float) -> bytes:
    """The whole body. One that drips counts as none: each byte alone would renew the time that a read may take."""
    deadline = time.monotonic() + 10 * seconds
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MAX_BODY_BYTES or time.monotonic() > deadline:
            raise TransientError(detail=f"{answer.url}: an answer without end, {len(body)} bytes so far")
    return bytes(body)


def _pause(answer: Answer) -> float | None:
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() and len(given) < 10 else None  # noqa: PLR2004  # 300 years


def _token(answer: Answer | None, realm: str) -> str:
    try:
        given = json.loads(answer.body) if answer is not None else {}
        return str(given.get("token") or given["access_token"])
    except (ValueError, AttributeError, KeyError) as error:
        raise TransientError(detail=f"{realm} gave no token") from error


def _checked(answer: Answer, what: str) -> Answer | None:
    status = answer.status
    if status == HTTPStatus.NOT_FOUND:
        return None
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED}:
        raise ConfigError(detail=f"{what}: the registry refuses it ({status})")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise RateLimitError(detail=f"{what}: too many requests", retry_after_seconds=_pause(answer))
    if status >= HTTPStatus.BAD_REQUEST:
        raise TransientError(detail=f"{what}: {status} {answer.body[:500].decode(errors='replace')}")
    return answer
