"""One call for all who ask the same at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from workflows.errors import ArgosyError, InternalError

Answer = TypeVar("Answer")


class Flights(Generic[Answer]):
    """Calls under way, and for a moment those that have just ended.

    A hundred clicks at once never quite come at once: the moment lets the last of them share the first one's answer.

    Args:
        reuse_seconds: How long an answer is given again. Far below what somebody needs to push a commit and click.
    """

    def __init__(self, reuse_seconds: float = 0.5) -> None:
        self._reuse_seconds = reuse_seconds
        self._lock = threading.Lock()
        self._calls: dict[Hashable, Future[Answer]] = {}
        self._forget_at: dict[Hashable, float] = {}

    def run(self, key: Hashable, call: Callable[[], Answer]) -> Answer:
        """The answer of `call`, or of the one that somebody else made under the same key.

        Raises:
            ArgosyError: What the call raised; all who waited get the same.
        """
        with self._lock:
            self._forget()
            future = self._calls.get(key)
            if future is None:
                mine: Future[Answer] = Future()
                self._calls[key] = mine
        if future is not None:
            return future.result()
        return self._make(key, call, mine)

    def _make(self, key: Hashable, call: Callable[[], Answer], future: Future[Answer]) -> Answer:
        try:
            answer = call()
        except ArgosyError as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(answer)
            return answer
        finally:
            if not future.done():
                # Ours ended by a bug, or because its visitor left: whoever else waits must not wait for ever.
                future.set_exception(InternalError(detail=f"the call for {key!r} was broken off"))
            with self._lock:
                self._forget_at[key] = time.monotonic() + self._reuse_seconds

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, moment in self._forget_at.items() if moment <= now]:
            del self._forget_at[key], self._calls[key]
