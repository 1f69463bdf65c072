"""The processes of ``make run``: each with a log of its own, started again when it dies, all ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows.errors import ConfigError

LEASH = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: should we be killed, the kernel tells it."""

_TURN_SECONDS = 0.05
_TAIL_LINES = 20

_RESTARTS = 5
_RESTARTS_SECONDS = 60
"""What ends by itself more often than that is not helped by another start; an operator is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A process that runs as long as the farm does.

    Args:
        name: For people; its log is ``<name>.log``.
        command: Its command line.
        is_ready: Asked again and again until it says yes.
        environment: Variables beside those of this process.
        folder: Where it runs; None: where this process does.
        stop_seconds: Between SIGTERM and SIGKILL.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    stop_seconds: float = 10


class Processes:
    """Components that run.

    Args:
        logs: The folder of their logs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[Component, subprocess.Popen[bytes]]] = []
        self._restarts: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RESTARTS))

    def start(self, component: Component, *, timeout_seconds: float, is_over: Callable[[], bool]) -> None:
        """Start a component and wait until it is ready, or until `is_over` says that nobody waits any more.

        Raises:
            ConfigError: It ended, or was not ready in time; the message holds the end of its log.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        self._log(component).write_bytes(b"")
        self._running.append((component, self._spawn(component)))
        deadline = time.monotonic() + timeout_seconds
        while not is_over() and not component.is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise self._failed(component, f"is not ready after {timeout_seconds:g} s")
            time.sleep(_TURN_SECONDS)

    def check(self) -> None:
        """Look whether all of them live.

        Raises:
            ConfigError: One has ended; the message holds the end of its log.
        """
        for component, process in self._running:
            if (code := process.poll()) is not None:
                raise self._failed(component, f"ended by itself (exit code {code})")

    def revive(self) -> list[str]:
        """Start again what has ended by itself, as the kernel's or somebody's kill makes it; it is ready a bit later.

        Returns:
            Their names.

        Raises:
            ConfigError: One has ended too often of late; the message holds the end of its log.
        """
        ended = [
            (place, component, process)
            for place, (component, process) in enumerate(self._running)
            if process.poll() is not None
        ]
        for place, component, process in ended:
            restarts, now = self._restarts[component.name], time.monotonic()
            if len(restarts) == _RESTARTS and now - restarts[0] < _RESTARTS_SECONDS:
                raise self._failed(component, f"has ended {_RESTARTS + 1} times (exit code {process.returncode})")
            restarts.append(now)
            # First what it has left of itself, which may have its port still.
            end(process, component.stop_seconds)
            self._running[place] = (component, self._spawn(component))
        return [component.name for _, component, _ in ended]

    def stop(self, name: str = "") -> None:
        """End them, the youngest first.

        Args:
            name: Of the one to end; empty: all.
        """
        for each in self._running[::-1]:
            component, process = each
            if name in {"", component.name}:
                end(process, component.stop_seconds)
                self._running.remove(each)

    def _spawn(self, component: Component) -> subprocess.Popen[bytes]:
        with self._log(component).open("ab") as log:
            return subprocess.Popen(
                # A session of its own: Ctrl-C is for us, and we end the others in order.
                [*LEASH, *component.command],
                env={**os.environ, **component.environment},
                cwd=component.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self, component: Component) -> Path:
        return self._logs / f"{component.name}.log"

    def _failed(self, component: Component, what: str) -> ConfigError:
        path = self._log(component)
        with path.open(encoding="utf-8", errors="replace") as log:
            tail = "".join(deque(log, maxlen=_TAIL_LINES))
        return ConfigError(f"{component.name} {what}. The end of {path}:\n{tail}")


def end(process: subprocess.Popen[Any], stop_seconds: float) -> None:
    """End a process that leads a session of its own, and all that it has started there.

    Args:
        process: One that has not been waited for long ago: somebody else may have its id by then.
        stop_seconds: Between SIGTERM and SIGKILL.
    """
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(stop_seconds)
    # What it has started and left behind; most often there is nothing.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
