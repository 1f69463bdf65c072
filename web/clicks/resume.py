"""Event ids: what a client that lost its stream says of where it stood.

``<attempt>.<step>.<line>~<nonce>`` is a line of a build's log, and line 0 of step 0 what comes before the first. The
nonce names the server that the visitor will get, so that any process finds it again; where only the image is wanted,
there is none. ``<attempt>.launch.<n>~<nonce>`` is an event of the launch: with ``.<m>`` at the end of the visitor's
m-th server, where those before it did not start. Attempt 0 stands for an image that was known.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from web.feed.ring import Position

NONCE_BYTES = 16
"""Nobody guesses another visitor's: whoever knows it gets that visitor's server."""

_NONCE = r"~([A-Za-z0-9_-]{22})"
_LINE = re.compile(rf"([0-9]{{1,3}})\.([0-9]{{1,2}})\.([0-9]{{1,9}})(?:{_NONCE})?", re.ASCII)
_LAUNCH = re.compile(rf"([0-9]{{1,3}})\.launch\.([0-9]{{1,6}}){_NONCE}(?:\.([0-9]{{1,3}}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Where a client stood.

    Args:
        attempt: The build's attempt; 0 for an image that was known.
        position: The last line that it has; None where its launch had begun.
        launch: Number of the last event of its launch.
        nonce: Names its server; empty where it wants none.
        server: Which of the servers that were tried, from 1.
    """

    attempt: int
    position: Position | None = None
    launch: int = 0
    nonce: str = ""
    server: int = 1


def parse(text: str) -> Resume | None:
    """Where the client stood that sends this id; None for anything that is none of our ids."""
    if match := _LINE.fullmatch(text):
        return Resume(attempt=int(match[1]), position=Position(int(match[2]), int(match[3])), nonce=match[4] or "")
    if match := _LAUNCH.fullmatch(text):
        return Resume(attempt=int(match[1]), launch=int(match[2]), nonce=match[3], server=max(1, int(match[4] or 1)))
    return None


def new_nonce() -> str:
    """A name for a visitor's server that nobody guesses."""
    return secrets.token_urlsafe(NONCE_BYTES)


def launch_id(attempt: int, number: int, nonce: str, server: int = 1) -> str:
    """The id of one event of a launch."""
    return f"{attempt}.launch.{number}~{nonce}" + (f".{server}" if server > 1 else "")
