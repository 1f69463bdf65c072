"""Takes one of the cluster's own parts away for a while: its process is stopped where it stands, and goes on later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import PurePath

import psutil

from tests.cluster.namespace import RefusedError, eventually, kubectl

API_SERVER, CONTROLLER = "kube-apiserver", "workflow-controller"


@contextlib.contextmanager
def stopped(program: str) -> Iterator[None]:
    """A process of this machine that answers nobody: connections stay open and nothing comes, the worst of outages."""
    process = _only(program)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        if program == API_SERVER:
            eventually(_answers)  # it works off what has come meanwhile


def _answers() -> bool:
    try:
        return kubectl("get", "--raw=/readyz", "--request-timeout=5s") == "ok"
    except RefusedError:
        return False


def wait(seconds: float) -> None:
    """Lets an outage last."""
    threading.Event().wait(seconds)


def _only(program: str) -> psutil.Process:
    found = [each for each in psutil.process_iter(["cmdline"]) if _name(each.info["cmdline"]) == program]
    assert len(found) == 1, f"{program} has to be a process of this machine: tests/README.md says why"
    return found[0]


def _name(command: list[str] | None) -> str:
    return PurePath(command[0]).name if command else ""
