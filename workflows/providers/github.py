"""``gh``: repositories of GitHub, or of one GitHub Enterprise server, resolved by its REST API."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import quote

import requests
from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from workflows.errors import ConfigError, NotFoundError, RateLimitError, SpecError, TransientError
from workflows.git import Credentials
from workflows.image import CommitSHA
from workflows.providers.flight import Flights
from workflows.providers.provider import Display, Fallback, SpecParts, failing, unresolved
from workflows.repo import Repository, check_ref, check_spec, decode
from workflows.settings import Settings, read_secret

_logger = logging.getLogger(__name__)

_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,38})")
_REPOSITORY = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OLD_DEFAULTS = frozenset({"master", "main"})
_CACHE_SIZE = 1024
"""Answers that are remembered: BinderHub's number."""

_CONNECT_SECONDS = 5
_WAIT_SECONDS = 60
"""How long to keep away after a limit that says no time; what GitHub's documentation asks for."""

_MISSING = frozenset(
    {
        HTTPStatus.FORBIDDEN,  # blocked, or closed to our token
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,  # an empty repository
        HTTPStatus.GONE,
        HTTPStatus.UNPROCESSABLE_ENTITY,  # no such ref
        HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS,
    }
)


class GitHubProvider:
    """Resolves specs of the form ``owner/repository/ref``."""

    name = "gh"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._flights: Flights[CommitSHA] = Flights()
        self._lock = threading.Lock()
        self._answers: LRUCache[str, tuple[str, CommitSHA]] = LRUCache(_CACHE_SIZE)
        self._absent: TTLCache[str, None] = TTLCache(_CACHE_SIZE, settings.not_found_cache_seconds)
        self._limited_until = 0.0

    @property
    def display(self) -> Display:
        """How a form asks for a repository of GitHub."""
        host = self._settings.github_hostname
        return Display(
            name="GitHub",
            spec_pattern=r"[^/]+/[^/]+/.+",
            repo_label="GitHub repository name or URL",
            repo_placeholder=f"example: yuvipanda/requirements or https://{host}/yuvipanda/requirements",
            detect_pattern=f"^(https?://{host}/)?(?<repo>.*[^/])/?",
        )

    def parse(self, spec: str) -> SpecParts:
        """The parts of a spec.

        Raises:
            SpecError: It cannot be read; BinderHub's sentence where it is not of the form.
        """
        checked = check_spec(spec).rstrip("/")
        parts = checked.split("/", 2)
        if len(parts) != 3 or not all(parts):  # noqa: PLR2004  # owner, repository, ref
            raise _misshapen(checked, parts)
        owner, repository, ref = (decode(part) for part in parts)
        repository = repository.removesuffix(".git")
        if not _OWNER.fullmatch(owner) or not _REPOSITORY.fullmatch(repository):
            raise SpecError("The link names no owner and repository as GitHub knows them. Check the link.")
        host = self._settings.github_hostname
        return SpecParts(
            spec=checked,
            repo=f"{owner}/{repository}",
            ref=check_ref(ref),
            repo_url=f"https://{host}/{owner}/{repository}",
            owner=f"{host}/{owner}".lower(),
        )

    def resolve(self, spec: str) -> Repository:
        """The repository at its commit.

        Raises:
            SpecError: The spec cannot be read.
            NotFoundError: The repository or the ref does not exist, or is private.
            RateLimitError: GitHub wants us to wait.
            TransientError: GitHub does not answer, or has a fault.
            ConfigError: GitHub does not know our token.
        """
        parts = self.parse(spec)
        commit = self._flights.run((parts.repo, parts.ref), lambda: self._ask(parts))
        return Repository(
            provider=self.name,
            spec=parts.spec,
            ref=parts.ref,
            commit=commit,
            repo_url=parts.repo_url,
            clone_url=parts.repo_url,
            ref_url=f"{parts.repo_url}/tree/{commit}",
            resolved_spec=f"{parts.repo}/{commit}",
            slug=parts.repo.replace("/", "-"),
            owner=parts.owner,
        )

    def fallback(self, spec: str) -> Fallback | None:
        """``HEAD`` for ``master`` and ``main``: old links outlive the names of default branches."""
        parts = self.parse(spec)
        if parts.ref not in _OLD_DEFAULTS:
            return None
        renamed = 'GitHub has changed default branches from "master" to "main". ' if parts.ref == "master" else ""
        return Fallback(
            spec=f"{parts.repo}/HEAD",
            message=f"{unresolved(self.name, parts.spec)} {renamed}"
            "Tip: HEAD will always resolve to a repository's default branch.\n"
            f"Trying again with HEAD instead of {parts.ref}. Please update your links.\n",
        )

    def credentials(self) -> Credentials | None:
        """The token as git sends it; None where there is none.

        Raises:
            ConfigError: Its file cannot be read.
        """
        token = read_secret(self._settings.github_token_file)
        if token is None:
            return None
        pair = base64.b64encode(f"x-access-token:{token.get_secret_value()}".encode()).decode()
        url = f"https://{self._settings.github_hostname}/"
        return Credentials(url=url, header=SecretStr(f"Authorization: Basic {pair}"))

    def _ask(self, parts: SpecParts) -> CommitSHA:
        # Every part is encoded anew, so that none can lead to another path of the API; a ref's slashes belong to it.
        url = f"{self._settings.github_api}/repos/{quote(parts.repo)}/commits/{quote(parts.ref)}"
        with self._lock:
            known = self._answers.get(url)
            if url in self._absent:
                raise unresolved(self.name, parts.spec)
        self._check_limit(parts)
        answer = self._get(url, known[0] if known else "", parts)
        if known and answer.status_code == HTTPStatus.NOT_MODIFIED:
            return known[1]
        if answer.status_code != HTTPStatus.OK:
            self._refuse(answer, url, parts)
        commit = _commit_in(answer.text)
        if commit is None:
            sentence = "GitHub's answer cannot be read. Try again later."
            raise TransientError(failing(self.name, parts.spec, sentence), detail=f"{url}: {answer.text[:200]!r}")
        if etag := answer.headers.get("ETag"):
            with self._lock:
                self._answers[url] = (etag, commit)
        return commit

    def _get(self, url: str, etag: str, parts: SpecParts) -> requests.Response:
        # Forty bytes instead of the whole commit.
        headers = {"Accept": "application/vnd.github.sha", "X-GitHub-Api-Version": "2022-11-28"}
        if etag:
            headers["If-None-Match"] = etag
        timeout = (_CONNECT_SECONDS, self._settings.resolve_timeout_seconds)
        authorise = _Authorise(read_secret(self._settings.github_token_file))
        try:
            return self._session.get(url, headers=headers, auth=authorise, timeout=timeout)
        except requests.RequestException as error:
            sentence = "GitHub cannot be reached. Try again later."
            raise TransientError(failing(self.name, parts.spec, sentence), detail=f"{url}: {error}") from error

    def _check_limit(self, parts: SpecParts) -> None:
        # Who goes on asking while limited is kept out longer.
        if (wait := self._limited_until - time.time()) > 0:
            raise self._limited(wait, parts)

    def _refuse(self, answer: requests.Response, url: str, parts: SpecParts) -> None:
        detail = f"{url}: {answer.status_code} {answer.text[:200]!r}"
        wait = _wait_of(answer)
        if wait is not None:
            self._limited_until = time.time() + wait
            _logger.warning("GitHub's rate limit is reached for %.0f s: %s", wait, detail)
            raise self._limited(wait, parts)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            raise ConfigError(detail=f"GitHub does not know our token: {detail}")
        if answer.status_code in _MISSING:
            with self._lock:
                self._absent[url] = None
            raise NotFoundError(str(unresolved(self.name, parts.spec)), detail=detail)
        sentence = f"GitHub answers with an error ({answer.status_code}). Try again later."
        raise TransientError(failing(self.name, parts.spec, sentence), detail=detail)

    def _limited(self, wait_seconds: float, parts: SpecParts) -> RateLimitError:
        # Rounded up to five minutes as in BinderHub, so that not everybody comes back in the same second.
        minutes = 5 * (1 + int(wait_seconds) // 300)
        sentence = f"GitHub rate limit exceeded. Try again in {minutes} minutes."
        return RateLimitError(failing(self.name, parts.spec, sentence))


class _Authorise(requests.auth.AuthBase):
    """Sends the token, or nothing at all: without this requests would look into the operator's ``.netrc``."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return request


def _misshapen(spec: str, parts: list[str]) -> SpecError:
    message = f'Spec is not of the form "user/repo/ref", provided: "{spec}".'
    if len(parts) == 2 and parts[-1] not in {"main", "master", "HEAD"}:  # noqa: PLR2004  # owner and repository
        message += f' Did you mean "{spec}/HEAD"?'
    return SpecError(message)


def _commit_in(text: str) -> CommitSHA | None:
    """The commit in an answer: alone, or as ``sha`` of JSON where a proxy or an old server knows only that."""
    sha: object = text.strip()
    if text.startswith("{"):
        try:
            sha = json.loads(text).get("sha")
        except ValueError:
            return None
    return CommitSHA(sha) if isinstance(sha, str) and _COMMIT.fullmatch(sha) else None


def _wait_of(answer: requests.Response) -> float | None:
    """Seconds for which a refusal asks us to keep away; None where it is about something else.

    Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if answer.status_code not in {HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}:
        return None
    headers = answer.headers
    if (retry := headers.get("Retry-After", "")).isdigit():
        return float(retry)
    if headers.get("X-RateLimit-Remaining") == "0" and (reset := headers.get("X-RateLimit-Reset", "")).isdigit():
        return max(0.0, float(reset) - time.time())
    told = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or "rate limit" in answer.text.lower()
    return _WAIT_SECONDS if told else None
