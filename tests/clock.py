"""A clock of the tests: its time passes at once where somebody sleeps, and otherwise when the test says so."""

from __future__ import annotations

import threading

LOOK_SECONDS = 0.005


class PlayedClock:
    """A `workflows.clock.Clock` that begins at 1000.

    Args:
        begins: Until it is set, whoever sleeps stands still.
    """

    def __init__(self, begins: threading.Event | None = None) -> None:
        self._seconds = 1000.0
        self._lock = threading.Lock()
        self._begins = begins

    def now(self) -> float:
        return self._seconds

    def monotonic(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        """Time passes at once, after a moment for other threads and processes."""
        assert self._begins is None or self._begins.wait(60), "what a sleeper waits for never came"
        threading.Event().wait(LOOK_SECONDS)
        self.advance(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Nothing passes: the event comes, or the test or a sleeper lets the time pass."""
        deadline = self._seconds + seconds
        while not event.wait(LOOK_SECONDS) and self._seconds < deadline:
            pass
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._seconds += seconds
