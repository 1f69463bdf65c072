"""Native threads in a process that gevent may have patched.

gevent replaces ``threading``: a patched lock parks a greenlet of an event loop, and a native thread that waits for one
is given a loop of its own to wait in. What must block outside the event loop (the ledger, the engine's watch) lives in
threads made here, and hands values over by primitives that gevent never touches.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from queue import Empty
from typing import Any, Generic, Protocol, TypeVar, cast

from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from workflows.errors import TransientError

_logger = logging.getLogger(__name__)

_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_simple_queue: Callable[[], Any] = monkey.get_original("queue", "SimpleQueue")
sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
"""Sleeps this thread, with whatever loop runs in it: never call it on the event loop."""

Result = TypeVar("Result")


Item = TypeVar("Item")


class Channel(Protocol[Item]):
    """What `channel` makes: a ``queue.SimpleQueue``."""

    def put(self, item: Item) -> None:
        """Adds an item; never blocks."""
        ...

    def get(self, *, timeout: float) -> Item:
        """Takes the oldest item; raises ``queue.Empty`` where none comes in time."""
        ...

    def get_nowait(self) -> Item:
        """Takes the oldest item; raises ``queue.Empty`` where there is none."""
        ...


class Stop(Protocol):
    """What ends a loop: a `Flag`, or any ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether the loop should end."""
        ...


class Flag:
    """A `Stop` that any thread may set."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Ends the loops that look at it."""
        self._is_set = True


def channel() -> Any:
    """A `Channel` between native threads."""
    return _simple_queue()


def drain(source: Channel[Item], *, wait_seconds: float) -> list[Item]:
    """Everything that waits in `source`; where that is nothing, what comes within `wait_seconds`."""
    found: list[Item] = []
    try:
        found.append(source.get(timeout=wait_seconds))
        while True:
            found.append(source.get_nowait())
    except Empty:
        return found


def start(target: Callable[[], None], name: str) -> None:
    """Runs `target` in a native thread that ends with the process; what it raises is logged.

    Like a thread of ``threading``, it is traced where a debugger or a measurement of coverage asks for that.
    """

    def guarded() -> None:
        sys.settrace(threading.gettrace())
        try:
            target()
        except Exception:  # this is the thread's outermost edge: nobody else would ever read it
            _logger.exception("thread %s ended", name)
        finally:
            _close_loop()

    _start_new_thread(guarded, ())


def _close_loop() -> None:
    """Ends the event loop in which this thread has waited for the network, if it has: it holds three files open."""
    hub = get_hub_if_exists()
    if hub is not None and monkey.is_module_patched("socket"):
        hub.destroy(destroy_loop=True)


class _Ticket(Generic[Result]):
    """One job on its way through a `Worker`."""

    def __init__(self, job: Callable[[], Result]) -> None:
        self.job = job
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.given_up = False
        self.done = _allocate_lock()
        self.done.acquire()

    def run(self) -> None:
        """Does the job, unless nobody waits for it any more."""
        try:
            if not self.given_up:
                self.result = self.job()
        except Exception as error:  # noqa: BLE001  # it is raised again, where the caller waits
            self.error = error
        finally:
            self.done.release()


class Worker:
    """One native thread that does jobs in turn.

    What is not safe between native threads under gevent is safe here, because no second thread ever touches it.
    """

    def __init__(self, name: str) -> None:
        self._jobs = _simple_queue()
        start(self._work, name)

    def call(self, job: Callable[[], Result], *, timeout_seconds: float) -> Result:
        """What `job` returns; blocks this native thread until then.

        Raises:
            TransientError: It was not done in time. A job that had not begun by then never will.
        """
        ticket = _Ticket(job)
        self._jobs.put(ticket)
        if not ticket.done.acquire(timeout=timeout_seconds):
            ticket.given_up = True
            raise TransientError(detail=f"nothing came back in {timeout_seconds:g} s")
        if ticket.error is not None:
            raise ticket.error
        return cast("Result", ticket.result)

    def close(self) -> None:
        """Ends the thread after the jobs that wait already."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (ticket := self._jobs.get()) is not None:
            ticket.run()
            del ticket  # the last job's result must not live until the next one
