"""What goes on beside the start of `make run`: a base image is made, and the scanner is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

from tools.farm import ROOT
from tools.processes import LEASH, end
from tools.terminal import Terminal, Thing
from workflows.errors import ConfigError
from workflows.settings import PREFIX, Settings

_LOOK_SECONDS = 0.5
_STOP_SECONDS = 10
"""Between SIGTERM and SIGKILL."""

WHAT = "the scanner, in the background"
_TOTAL = "packages "
"""Before the number of packages that are compiled (`tools/install`); each of them is a line then."""


class BaseImage:
    """The image that builds build on: the operator's, or the one that this machine can have.

    It is looked for, or made, from when this is entered.

    Args:
        settings: The farm's.
        terminal: Shows that it is waited for.
    """

    def __init__(self, settings: Settings, terminal: Terminal) -> None:
        self._settings = settings
        self._terminal = terminal
        self._log = settings.state / "log" / "base-image.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if not os.environ.get(f"{PREFIX}BASE_IMAGE"):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as errors:
                self._process = subprocess.Popen(
                    [*LEASH, str(ROOT / "tools" / "base-image")],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            _end(self._process)
            self._process.communicate()

    def name(self, is_over: Callable[[], bool]) -> str:
        """Its name, once it is there, or once nobody waits any more.

        Raises:
            ConfigError: It cannot be made; the message says what to do, and holds the end of what was said.
        """
        if self._process is None:
            return self._settings.base_image
        with self._terminal.doing("the base image, which is made once"):
            while not is_over():
                with suppress(subprocess.TimeoutExpired):
                    printed = self._process.communicate(timeout=_LOOK_SECONDS)[0].strip()
                    break
            else:
                return self._settings.base_image
            if self._process.returncode != 0 or not printed:
                said = self._log.read_text(errors="replace")[-2000:]
                raise ConfigError(f"There is no base image. {advice(self._log)}", detail=f"The end of its log:\n{said}")
        return printed.splitlines()[-1]


class ScannerInstallation:
    """``tools/install scanner`` as a process that gives way to everything else: the farm is used meanwhile.

    Args:
        terminal: Shows how far it has come.
        log: The file of what it says.
        command: What installs.
    """

    def __init__(
        self, terminal: Terminal, log: Path, command: tuple[str, ...] = (str(ROOT / "tools" / "install"), "scanner")
    ) -> None:
        self._terminal = terminal
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._process = subprocess.Popen(
            [*LEASH, "nice", "-n", "19", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._is_stopped = False
        self._thread = Thread(target=self._follow, args=(terminal.begin(WHAT),), daemon=True)
        self._thread.start()

    def wait(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Waits until it has ended, well or not, or until `is_over` says that nobody waits any more."""
        while self._thread.is_alive() and not is_over():
            self._thread.join(_LOOK_SECONDS)

    def stop(self) -> None:
        """Ends it; what it has fetched and compiled is found again by the next one."""
        self._is_stopped = True
        _end(self._process)
        self.wait()

    def _follow(self, thing: Thing) -> None:
        done = total = 0
        with self._process, self._log.open("w", encoding="utf-8") as log:
            for line in self._process.stdout or ():
                log.write(line)
                log.flush()
                if line.startswith(_TOTAL):
                    total = int(line.removeprefix(_TOTAL))
                elif total and not line.startswith("go: "):
                    done += 1
                thing.advance(done, total)
        if self._process.wait() == 0:
            thing.end()
        elif not self._is_stopped:
            thing.end("✘")
            self._terminal.say(f"Images stay “not scanned yet” until it is there. {advice(self._log)}")


def _end(process: subprocess.Popen[str]) -> None:
    # One that has ended may have done so hours ago, and its id be somebody else's.
    if process.poll() is None:
        end(process, _STOP_SECONDS)


def advice(log: Path) -> str:
    """What to do about a failure, by what tools said of it in a log."""
    command = [str(ROOT / "tools" / "install"), "advice", str(log)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
