"""A client as browsers are: it comes back with the last event's id until it has seen the last event."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections import defaultdict
from typing import Any

import requests

from tests.integration.farm import EVENT_STREAM


class Client(threading.Thread):
    """Follows one click to its end, however often its stream breaks off.

    Args:
        url: Web's.
        path: After ``/build/``.
        cut_after: The line of the wire that a stream breaks off before, also in the middle of an event; None: never.
        cuts: How many streams break off, from the first.
        linger_seconds: How long such a stream hangs, as web sees it, before the client comes back.
    """

    def __init__(
        self, url: str, path: str, *, cut_after: int | None = None, cuts: int = 1, linger_seconds: float = 0
    ) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.streams = 0
        self.has_left = False
        self._url = f"{url}/build/{path}"
        self._cut_after = cut_after
        self._cuts = cuts
        self._linger_seconds = linger_seconds
        self._last_id = ""
        self.start()

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1] if self.events else {}

    @property
    def is_over(self) -> bool:
        return self.last.get("phase") in {"ready", "failed"}

    @property
    def phases(self) -> list[str]:
        """The phases in order, each once where it repeats."""
        return [phase for phase, _ in itertools.groupby(event["phase"] for event in self.events if "phase" in event)]

    @property
    def lines(self) -> dict[tuple[int, int], list[int]]:
        """Numbers of the lines as they came, by attempt and step."""
        found = defaultdict(list)
        for each in self.ids:
            if "launch" not in each:
                attempt, step, number = (int(part) for part in each.partition("~")[0].split("."))
                if number:  # 0 is what comes before the first line
                    found[attempt, step].append(number)
        return dict(found)

    def leave(self) -> None:
        """Go for good."""
        self.has_left = True

    def run(self) -> None:
        while not self.is_over and not self.has_left:
            self.streams += 1
            with contextlib.suppress(requests.RequestException, ConnectionError):
                self._read()
            time.sleep(0.05)

    def _read(self) -> None:
        headers = EVENT_STREAM | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        with requests.get(self._url, headers=headers, stream=True, timeout=30) as answer:
            event_id = ""
            for seen, line in enumerate(answer.iter_lines(chunk_size=1), start=1):
                if self.streams <= self._cuts and seen == self._cut_after:
                    time.sleep(self._linger_seconds)
                    return
                if line.startswith(b"id: "):
                    event_id = line[4:].decode()
                elif line.startswith(b"data: "):
                    if event_id:
                        self.ids.append(event_id)
                        self._last_id = event_id
                        event_id = ""
                    self.events.append(json.loads(line[6:]))
                if self.has_left or self.is_over:
                    return
