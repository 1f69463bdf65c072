"""What a pod adds to a step's surroundings: steps beside it, secrets that may be missing, a place for why it ended.

On one machine none of it is there, and nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from workflows.pipeline import SECRET_FILES, SECRETS_FOLDER
from workflows.settings import PREFIX

NOTICE = Path("/dev/termination-log")
"""What is in there, Kubernetes shows as the container's message, and Argo as the node's.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

ENDS = Path("/var/run/argo/ctr")
"""Where Argo's executor writes how each container of the pod ended: ``NAME/exitcode``, a number without a newline.

Source: ``cmd/argoexec/commands/emissary.go``.
"""

_LOOK_SECONDS = 0.05
"""The executor itself looks every second, which every arrow between two steps would cost."""

_NOTICE_BYTES = 2048
"""Kubernetes keeps 4096 of one container, and 12 KiB of all that a pod has together."""


def failed(needs: Iterable[str], ends: Path = ENDS) -> str | None:
    """Wait for the end of each of `needs`, names of containers beside this one; the first that ended badly, if any."""
    return next((need for need in needs if _end(ends / need / "exitcode")), None)


def _end(path: Path) -> int:
    """The exit code that is written to `path`, once it is there."""
    while True:
        # Strangers' code may have written it, in one half of the pipeline: whatever it is, it must not hold us.
        with contextlib.suppress(OSError, ValueError):
            return _number(path)
        time.sleep(_LOOK_SECONDS)


def _number(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(path)
        return int(os.read(handle, 8))
    finally:
        os.close(handle)


def forget_missing_secrets(environment: MutableMapping[str, str], folder: Path = Path(SECRETS_FOLDER)) -> None:
    """Take out what names a file in `folder` that is not there: without a Secret the step is nobody in particular.

    A file that somebody named anywhere else must be there: that it is not is a fault, and is told.
    """
    for name in {f"{PREFIX}{secret.setting.upper()}" for secret in SECRET_FILES.values()}:
        path = Path(environment.get(name, ""))
        if path.is_relative_to(folder) and not path.exists():
            del environment[name]


def leave_notice(sentence: str, notice: Path = NOTICE) -> None:
    """Tell Kubernetes why the step ended, so that whoever looks there reads the visitor's sentence and no number."""
    # Nothing depends on it: the log and the exit code say the same.
    with contextlib.suppress(OSError), notice.open("r+b") as file:
        file.truncate()
        file.write(sentence.encode()[:_NOTICE_BYTES])
