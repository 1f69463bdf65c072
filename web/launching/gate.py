"""The gate of a Hub: how many servers may be starting at the same time, and who waits where.

The Hub is the first thing that breaks under many launches (../shared/design.md, *Scale*), and it refuses instead of
queueing. So visitors queue here, in order, and are told their place.
"""

from __future__ import annotations

import threading
import time
from collections import deque


class Gate:
    """Lets so many in at a time, in the order in which they came.

    Under gevent the lock is a greenlet's, because the whole process is patched before this is made.

    Args:
        places: How many may be inside.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._condition = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._inside: set[Ticket] = set()
        self._opens = 0.0

    def join(self) -> Ticket:
        """A ticket at the end of the queue; whoever has one must hand it back by `leave`."""
        ticket = Ticket()
        with self._condition:
            self._waiting.append(ticket)
        return ticket

    def wait(self, ticket: Ticket, seen: int | None, timeout_seconds: float) -> int:
        """Wait until the place in the queue is another than `seen`.

        Args:
            ticket: From `join`.
            seen: The last answer; None at first, which returns at once.
            timeout_seconds: After which the answer may be the same again.

        Returns:
            How many are still before this one, itself included; 0: inside.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._condition:
            while (place := self._place(ticket)) == seen:
                left = min(deadline, max(self._opens, time.monotonic() + 1)) - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            return place

    def leave(self, ticket: Ticket) -> None:
        """Hand a ticket back, from the queue as from inside; a second time nothing happens."""
        with self._condition:
            self._inside.discard(ticket)
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._condition.notify_all()

    def close_for(self, seconds: float) -> None:
        """Let nobody in for so long: the Hub asked for it. Who is inside stays."""
        with self._condition:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def _place(self, ticket: Ticket) -> int:
        if ticket in self._inside:
            return 0
        free = self._places - len(self._inside) if time.monotonic() >= self._opens else 0
        for _ in range(min(free, len(self._waiting))):
            self._inside.add(self._waiting.popleft())
        if ticket in self._inside:
            return 0
        return self._waiting.index(ticket) + 1


class Ticket:
    """One visitor's place at a gate."""
