"""Which lines of a container's log are the step's own: Argo's executor prints around them, into the same stream.

Source: Argo's ``cmd/argoexec/commands/emissary.go``; its logger marks each line with ``argo=true``. A stranger's build
may print what looks like one of them, and hides a line of its own by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from workflows.run import OPERATOR_MARK

_LOGGED = re.compile(r'time="[^"]*" level=[a-z]+ msg=.* argo=true( .*)?')
_OVER = "sub-process exited"
"""What the executor says when the step's own program is over: nothing but the container's end comes after it."""

_ENDED = re.compile(r"Error: exit status [0-9]+")
"""What the executor says after that without a mark. Lines of the step may still come: its stdout and the executor's
stderr are two streams, which the container's log puts together as they arrive."""


def own(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each line, and whether a visitor may read it: the executor's and the operator's are not for visitors.

    Args:
        lines: Of one container, from the first; or its last ones.
    """
    is_over = False
    for line in lines:
        is_argos = _is_logged(line)
        is_over = is_over or (is_argos and _OVER in line)
        is_argos = is_argos or (is_over and bool(_ENDED.fullmatch(line)))
        yield line, not (is_argos or line.startswith(OPERATOR_MARK))


def is_end(line: str) -> bool:
    """Whether the executor says in a line of its own that the step's program is over."""
    return _OVER in line and _is_logged(line)


def _is_logged(line: str) -> bool:
    return bool(_LOGGED.fullmatch(line)) or _is_logged_as_json(line)


def _is_logged_as_json(line: str) -> bool:
    # With ``--log-format json``. Looked at only where it can be one: a log has many lines.
    if not line.startswith("{") or '"argo":true' not in line:
        return False
    try:
        given = json.loads(line)
    except ValueError:
        return False
    return given.get("argo") is True and "level" in given
