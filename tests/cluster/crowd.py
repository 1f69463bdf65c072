"""Many who follow one build over several replicas of web, and go to another one when theirs falls."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import requests

from tests.visitor import Visitor

LINE = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:~|$)")
NUMBERED = re.compile(r"numbered (\d+) of \d+")


def steps_of(lines: int, seconds: float) -> str:
    """A line of a Dockerfile that prints `lines` numbered lines, `seconds` apart."""
    count = f"i=1; while [ $i -le {lines} ]; do echo numbered $i of {lines}; sleep {seconds}; i=$((i+1)); done"
    return f"RUN {count}\n"


def numbers_in(text: str) -> list[int]:
    """The numbered lines of a log, in the order in which they stand there."""
    return [int(number) for number in NUMBERED.findall(text)]


class Follower:
    """One of them, in a thread of its own.

    Args:
        urls: Of replicas; it begins with the first and goes to the next whenever its stream breaks off.
        path: What it clicks.
    """

    def __init__(self, urls: Sequence[str], path: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.breaks = 0
        self._urls = list(urls)
        self._path = path
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def numbers(self) -> list[int]:
        """The numbered lines that it was told, in order."""
        return numbers_in("".join(event.get("message", "") for event in tuple(self.events)))

    @property
    def is_over(self) -> bool:
        """Whether it was told how it ended."""
        return bool(self.events) and self.events[-1].get("phase") in {"ready", "failed"}

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Attempt, step and line of each line that it was told."""
        return [tuple(map(int, found.groups())) for each in self.ids if (found := LINE.match(each))]

    def join(self, seconds: float) -> None:
        """Waits until it is told how it ended."""
        self._thread.join(seconds)
        assert self.is_over, self.events[-3:]

    def _follow(self) -> None:
        while not self.is_over and self.breaks < 100:
            try:
                self._listen(self._urls[self.breaks % len(self._urls)])
            except (requests.RequestException, AssertionError):
                # A replica that is going or coming answers with no stream.
                threading.Event().wait(0.5)
            self.breaks += 0 if self.is_over else 1

    def _listen(self, url: str) -> None:
        last = next((each for each in reversed(self.ids) if each), "")
        headers = {"Last-Event-ID": last} if last else {}
        for event_id, event in Visitor(url).stream(self._path, **headers):
            # An event without an id repeats the last one's: it is no line of its own.
            self.ids.append("" if event_id == next((each for each in reversed(self.ids) if each), "") else event_id)
            self.events.append(event)
            if self.is_over:
                return
