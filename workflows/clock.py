"""Time as an argument: what waits or measures is handed a `Clock`, so that a test can hand in one of its own."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and lets it pass."""

    def now(self) -> float:
        """Seconds since the epoch, as people count."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; it never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Returns when so many seconds have passed."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Returns when the event is set, at the latest after so many seconds; whether it is set."""
        ...


class SystemClock:
    """The clock of this machine.

    What it calls is looked up at each call: in a process that gevent has patched, others go on meanwhile.
    """

    def now(self) -> float:
        """See `Clock`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See `Clock`."""
        return event.wait(seconds)


SYSTEM = SystemClock()
