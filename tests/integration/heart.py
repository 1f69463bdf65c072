"""Whether an event loop goes on, in a process that gevent has patched."""

from __future__ import annotations

import gevent

from web import native

BEAT_SECONDS = 0.005


class Heart:
    """Beats on the loop, and counts by a native thread beside it: a machine that stands still stops both."""

    def __init__(self) -> None:
        self.beats = 0
        self.longest = 0
        """The greatest pause between two beats, in as many rounds of that thread."""
        self._pulses = 0
        native.start(self._pulse, "pulse")
        gevent.spawn(self._beat)

    def _pulse(self) -> None:
        while True:
            self._pulses += 1
            native.sleep(BEAT_SECONDS)

    def _beat(self) -> None:
        last = self._pulses
        while True:
            now = self._pulses
            self.longest, last = max(self.longest, now - last), now
            self.beats += 1
            gevent.sleep(BEAT_SECONDS)
