"""A click followed without a script: one page that grows while its events come.

Programs that preview a link do not follow a refresh into it, so they launch nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask import Response, current_app
from markupsafe import Markup, escape

from web.routes.landing import server_url
from workflows.events import Phase, printable

_MARK = "<!-- events -->"
_COMMENT = b"<!-- still here -->\n"


def page(events: Iterator[bytes], *, title: str, path: str, again: str) -> Response:
    """The page.

    Args:
        events: The click's, encoded.
        title: What is launched.
        path: Where in the server the visitor lands.
        again: Address of the page that tries again.
    """
    templates = current_app.jinja_env
    whole = templates.get_template("follow.html").render(title=title, again=again)
    head, _, tail = whole.partition(_MARK)
    ending = templates.get_template("ending.html")

    def pieces() -> Iterator[bytes]:
        yield head.encode()
        last: dict[str, Any] = {}
        for piece in events:
            read = list(decoded(piece))
            last = read[-1] if read else last
            yield "".join(map(_row, read)).encode() or _COMMENT
        url = server_url(last["url"], path, last["token"]) if "url" in last and "token" in last else ""
        yield ending.render(event=last, url=url, again=again).encode()
        yield tail.encode()

    # The page ends in an address that holds a token: nobody else may keep it.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(pieces(), content_type="text/html; charset=utf-8", headers=headers, direct_passthrough=True)


def decoded(piece: bytes) -> Iterator[dict[str, Any]]:
    """The events in some bytes of a stream; what is no event is left out."""
    # JSON holds no newline of its own, so a line that begins like this is one event, whatever a log says in it.
    for line in piece.split(b"\n"):
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def _row(event: dict[str, Any]) -> Markup:
    phase = str(event.get("phase", ""))
    message = "" if phase == Phase.READY else printable(str(event.get("message", "")))
    # A space at least, so that an empty line of the log keeps its height.
    return Markup('<li class="{}">{}</li>\n').format(phase, escape(message.rstrip("\n") or " "))
