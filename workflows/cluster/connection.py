"""One request to the API server, and one answer that goes on.

Every call has a connection of its own. Under gevent a socket belongs to the native thread that made it, and the threads
that read logs come and go; what is kept between calls would belong to threads that are gone. A call takes 4 ms instead
of 1 ms for it, and what asks often (a watch, a log) is one call.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from workflows.cluster.access import Access, find
from workflows.errors import ConfigError, RefusedError, TransientError

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 15
"""An API server that says nothing for so long will not: it is stopped, or out of reach."""
_PAGE = 500
_CHUNK_BYTES = 64 * 1024
_LINE_BYTES = 8 * 1024**2
"""More than an object may have in etcd: a longer line is none of the API server's."""
_OVERLOADED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})


class Cluster:
    """Kubernetes' API. Any native thread may call; every method blocks.

    Every method raises `TransientError` where the API server does not answer, `ConfigError` where it does not let us
    do this, and `RefusedError` where it says no for another reason than the method speaks of.

    Args:
        access: The way in; None: the one that this process finds.
    """

    def __init__(self, access: Access | None = None) -> None:
        self._access = access or find()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json | None:
        """An object; None where there is none."""
        return self._unless(HTTPStatus.NOT_FOUND, "GET", path, query=query)

    def create(self, path: str, body: Json) -> Json | None:
        """The object that was made; None where one of its name is there already."""
        return self._unless(HTTPStatus.CONFLICT, "POST", path, body=body)

    def replace(self, path: str, body: Json) -> Json | None:
        """The object as it is now; None where it is another than `body` was read as."""
        return self._unless(HTTPStatus.CONFLICT, "PUT", path, body=body)

    def patch(self, path: str, body: Json) -> Json | None:
        """The object after the patch was merged into it; None where there is none."""
        return self._unless(HTTPStatus.NOT_FOUND, "PATCH", path, body=body)

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens where there is none."""
        self._unless(HTTPStatus.NOT_FOUND, "DELETE", path)

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """An answer that is no JSON, whole."""
        return self._ask("GET", path, query=query).decode("utf-8", "replace")

    def listed(self, path: str, selector: str, *, is_fresh: bool = True) -> tuple[list[Json], str]:
        """All objects of a kind, and the version of the whole from which a watch can go on.

        Args:
            path: Of the kind.
            selector: Of their labels.
            is_fresh: Whether what was made a moment ago must be among them; otherwise the API server does not ask
                its database, which reads all of a namespace to find a few.
        """
        query = {"labelSelector": selector} | ({"limit": str(_PAGE)} if is_fresh else {"resourceVersion": "0"})
        found: list[Json] = []
        while True:
            page = json.loads(self._ask("GET", path, query=query))
            found += page["items"]
            if not (more := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]
            query["continue"] = more

    def lines(
        self, path: str, query: Mapping[str, str], *, idle_seconds: float, line_bytes: int = _LINE_BYTES
    ) -> Generator[bytes, None, None]:
        """The lines of an answer that goes on, each as it comes, without its newline, until the API server ends it.

        Args:
            path: As everywhere.
            query: As everywhere.
            idle_seconds: Where nothing comes for so long, the answer counts as broken off (`TransientError`).
            line_bytes: What of a line goes beyond is left out.
        """
        with self._opened("GET", path, query=query, read_seconds=idle_seconds) as answer:
            rest = b""
            for chunk in _pieces(answer, path):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line[:line_bytes] for line in whole)
                # One byte more, so that it is seen to be cut.
                rest = rest[: line_bytes + 1]
            if rest:
                yield rest[:line_bytes]

    def _unless(
        self,
        status: HTTPStatus,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> Json | None:
        try:
            found: Json = json.loads(self._ask(method, path, query=query, body=body))
        except RefusedError as error:
            if error.status == status:
                return None
            raise
        return found

    def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> bytes:
        with self._opened(method, path, query=query, body=body) as answer:
            return b"".join(_pieces(answer, path))

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        read_seconds: float = _ANSWER_SECONDS,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = f"{self._access.url}{path}{f'?{urlencode(query)}' if query else ''}"
        headers = {"Accept": "application/json, */*", "User-Agent": "argosy"}
        if authorization := self._access.authorization():
            headers["Authorization"] = authorization
        if body is not None:
            headers["Content-Type"] = MERGE if method == "PATCH" else "application/json"
        with urllib3.PoolManager(num_pools=1, ssl_context=self._access.tls, retries=False) as pool:
            try:
                answer = pool.request(
                    method,
                    url,
                    headers=headers,
                    body=None if body is None else json.dumps(body),
                    timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                    preload_content=False,
                )
            except SSLError as error:
                raise ConfigError(detail=f"{self._access.url}: {error}") from error
            except HTTPError as error:
                raise TransientError(detail=f"{method} {path}: {error}") from error
            try:
                _check(answer, f"{method} {path}")
                yield answer
            finally:
                answer.close()


def _check(answer: urllib3.BaseHTTPResponse, what: str) -> None:
    if answer.status < HTTPStatus.BAD_REQUEST:
        return
    said = b"".join(_pieces(answer, what))[:2000].decode("utf-8", "replace")
    detail = f"{what}: {answer.status} {said}"
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise ConfigError(detail=detail)
    if answer.status in _OVERLOADED or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(detail=detail)
    raise RefusedError(detail=detail, status=answer.status)


def _pieces(answer: urllib3.BaseHTTPResponse, what: str) -> Iterator[bytes]:
    try:
        # Where it is sent in chunks, each comes as soon as it is there.
        yield from answer.stream(_CHUNK_BYTES)
    except HTTPError as error:
        raise TransientError(detail=f"{what}: broke off: {error}") from error
