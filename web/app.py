"""The application's factory; its last lines are a table of contents."""

from __future__ import annotations

import time

from flask import Flask, Response

from web import errors, services
from web.clicks import click
from web.routes import address, build, builds, pages
from web.services import Services

_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",  # a log's links must not tell which repository somebody launches
    "X-Content-Type-Options": "nosniff",
}
_MAX_BODY_BYTES = 64 * 1024
"""More than any form of ours sends."""


def create_app(known: Services) -> Flask:
    """The application.

    Args:
        known: What it works with.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # BinderHub's order of keys
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {"duration": duration, "moment": moment}
    app.after_request(_protect)
    services.install(app, known)
    click.install(app, known)
    address.install(app)
    errors.install(app)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(build.blueprint)
    app.register_blueprint(builds.blueprint)
    return app


def duration(seconds: float) -> str:
    """A length of time, as ``4.2 s`` or ``3 min 20 s``."""
    if seconds < 60:  # noqa: PLR2004  # a minute
        return f"{max(0.0, seconds):.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def moment(at: float) -> str:
    """A moment, as ``2026-11-23 21:04:05 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _protect(answer: Response) -> Response:
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer
