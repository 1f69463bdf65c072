"""Addresses as they were asked for: a spec's ``%2F`` must survive, so it is taken from what came over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request
from werkzeug.routing import BaseConverter

from workflows.errors import SpecError
from workflows.repo import check_spec

_SPEC = re.compile(r"/(?:build|v2)/([^/]+)/(.+)", re.DOTALL)


class _AnyConverter(BaseConverter):
    """Everything that is left of a path, newlines and double slashes too: what is wrong with it is said later."""

    part_isolating = False
    regex = r"(?s:.+)"
    weight = 250


def install(app: Flask) -> None:
    """Lets routes of `app` take whole specs, as ``<any:spec>``."""
    app.url_map.converters["any"] = _AnyConverter
    # `git/https://host/…` is a spec: nobody is sent to the same address with one slash less.
    app.url_map.merge_slashes = False


def raw_path(environ: Mapping[str, Any]) -> str:
    """The request's path, not decoded and without its query."""
    uri = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    if not uri.startswith("/"):
        # The absolute form, as a proxy may send it.
        parts = urlsplit(uri)
        uri = uri[len(f"{parts.scheme}://{parts.netloc}") :]
    return uri.partition("?")[0].partition("#")[0]


def spec_of(request: Request) -> tuple[str, str]:
    """Provider and spec of a ``/build`` or ``/v2`` request, percent-encoded as they came.

    Raises:
        SpecError: The spec holds what no repository's address needs.
    """
    match = _SPEC.fullmatch(raw_path(request.environ))
    if match is None:
        raise SpecError("The link names no repository. Check the link.")
    return match[1], check_spec(match[2].rstrip("/"))


def launch_host(request: Request, public_url: str) -> str:
    """Where the visitor found us, with a slash at the end."""
    return public_url.rstrip("/") + "/" if public_url else request.host_url
