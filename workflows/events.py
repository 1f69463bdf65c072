"""The events of BinderHub's stream: phases, their JSON and their bytes on the wire.

Source: ../shared/reference/binderhub.md, section 2. Ours travels in extra keys; there are no phases of our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

KEEPALIVE = b":keepalive\n\n"
KEEPALIVE_SECONDS = 25
"""BinderHub's interval: shorter than the idle limit of every common proxy."""


class Phase(StrEnum):
    """Phases that a client may see."""

    WAITING = "waiting"
    FETCHING = "fetching"
    BUILDING = "building"
    PUSHING = "pushing"
    BUILT = "built"
    LAUNCHING = "launching"
    READY = "ready"
    FAILED = "failed"
    UNKNOWN = "unknown"


Event = Mapping[str, Any]
"""One event: usually ``phase`` and ``message``; repo2docker's own lines pass with whatever keys they have."""

_LOG_PHASES = (None, "fetching", "building", "pushing", "running")
"""What repo2docker's own lines may say; not a set, because a line may hold what has no hash."""

_ESCAPES = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)|[@-Z\\\\^_])")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` without what could drive a terminal or a page: tabs and newlines stay, JSON stays valid.

    Whole escape sequences (colours, titles) vanish; what is left of other control characters, and the marks that turn
    the direction of writing, become U+FFFD.
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))


def event(phase: Phase, message: str, **extra: object) -> dict[str, Any]:
    """An event of ours. Its message ends in a newline, as BinderHub's do; keys that are None are left out."""
    text = message if message.endswith("\n") else message + "\n"
    return {"phase": phase.value, "message": text} | {key: value for key, value in extra.items() if value is not None}


def event_of_line(line: str, phase: Phase = Phase.UNKNOWN, **extra: object) -> dict[str, Any]:
    """The event of one line of a log.

    repo2docker's JSON lines pass as they are; any other line becomes its own message, under `phase`.
    """
    given = _given(line) if line.startswith("{") else {}
    # A stranger's build may print any JSON: only what a client can read as text passes as an event.
    if not isinstance(given.get("message"), str):
        return event(phase, line, **extra)
    # Half of a character that JSON can spell has no bytes on the wire.
    passed: dict[str, Any] = {"message": given["message"].encode(errors="replace").decode()}
    if "phase" in given:
        # A line is a log line: it may not claim an end that only the service can tell.
        passed["phase"] = given["phase"] if given["phase"] in _LOG_PHASES else phase.value
    if isinstance(given.get("progress"), dict):
        passed["progress"] = given["progress"]
    return passed | extra


def _given(line: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
        # Written again at once: infinite numbers and depths without end would break whoever reads the stream.
        json.dumps(given, allow_nan=False)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def encode(data: Event, event_id: str = "") -> bytes:
    """One event as the bytes of an event stream.

    Args:
        data: The event.
        event_id: ``attempt.step.line``; comes back in ``Last-Event-ID``. Empty leaves the line out.
    """
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
