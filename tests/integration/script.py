"""A scripted engine behind the real application: one build, whose log begins when a file appears."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask

from tests.integration.farm import Farm
from web import native
from workflows.build import BuildRequest, BuildStatus, LogEnd, LogLine, State
from workflows.image import BuildName
from workflows.settings import Settings

TEXT = "Collecting package {} of an environment (from -r requirements.txt (line 12))\n"
LOOK_SECONDS = 0.05
"""The local engine's."""


def application(settings: Settings, lines: int, lines_per_second: float) -> Flask:
    """The application, whose build publishes when ``publish`` appears in the state folder."""
    script = Script(settings.state, lines, lines_per_second)
    farm = Farm(settings.state, engine=script, keep_alive_seconds=settings.keep_alive_seconds)
    script.publish = farm.add_image
    return farm.app


class Script:
    """An engine of one build."""

    def __init__(self, folder: Path, lines: int, lines_per_second: float) -> None:
        self._folder = folder
        self._lines = lines
        self._seconds = 1 / lines_per_second
        self._builds: dict[BuildName, BuildStatus] = {}
        self.publish = lambda: None
        self.readers = 0

    def submit(self, request: BuildRequest) -> BuildStatus:
        status = BuildStatus(request=request, state=State.RUNNING, created=time.time(), started=time.time())
        return self._builds.setdefault(request.name, status)

    def status(self, name: BuildName) -> BuildStatus | None:
        return self._builds.get(name)

    def watch(self) -> Iterator[BuildStatus]:

        while True:
            native.sleep(0.5)
            if (self._folder / "publish").exists():
                self.publish()
                for name, status in self._builds.items():
                    self._builds[name] = dataclasses.replace(status, published=status.published or time.time())
            yield from list(self._builds.values())

    def logs(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        self.readers += 1
        if self.readers > 1:
            yield LogLine(step="build", number=1, text="a second reader")
        while not (self._folder / "go").exists():
            native.sleep(0.05)
        begin = time.monotonic()
        for number in range(1, self._lines + 1):
            # Lines come as an engine finds them, which looks at the log now and then.
            while begin + number * self._seconds > time.monotonic():
                native.sleep(LOOK_SECONDS)
            text = TEXT.format(number) if number < self._lines else f"last {time.time()}\n"
            yield LogLine(step="build", number=number, text=json.dumps({"message": text, "phase": "building"}))
        yield LogEnd(step="publish")
        native.sleep(600)
