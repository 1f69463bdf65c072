"""Who is following which launch: what a visitor who left had started goes, unless the same visitor comes back.

A launch in flight is also a file, so that a process that takes the place of one that was killed knows whom to wait for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workflows.clock import Clock
from workflows.errors import TransientError
from workflows.stores.files import write_whole

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Follow:
    """The streams of one nonce.

    Args:
        streams: How many are open.
        is_ready: Whether one of them got its server.
        attempt: The last attempt that one of them began.
        users: That were made for it, one for each attempt, but for those that are known to be gone.
        arrived: Those of them whose server is handed over.
        going: Those of them that are being removed.
        returned: Where all have left, what ends the wait for one of them; None where one is there.
    """

    streams: int = 0
    is_ready: bool = False
    attempt: int = 1
    users: list[str] = field(default_factory=list)
    arrived: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)
    returned: threading.Event | None = None

    @property
    def unclaimed(self) -> list[str]:
        """The users that no visitor has."""
        return [user for user in self.users if user not in self.arrived]


class Presence:
    """The launches that somebody follows, or followed a moment ago.

    Args:
        folder: Of the launches in flight; one process at a time may have it.
        leave_seconds: From the last stream's end until what it left is removed.
        remove: Is given each user that a failed attempt or an abandoned launch made; runs in a thread of its own.
        clock: By which somebody who left is waited for.
    """

    def __init__(self, folder: Path, leave_seconds: float, remove: Callable[[str], None], clock: Clock) -> None:
        self._journal = _Journal(folder)
        self._leave_seconds = leave_seconds
        self._remove = remove
        self._clock = clock
        self._lock = threading.Lock()
        self._follows: dict[str, _Follow] = {}

    def take_over(self) -> None:
        """Wait for those whom a process that was killed has left; each has the usual time to come back."""
        with self._lock:
            for nonce, follow in self._journal.entries():
                self._follows[nonce] = follow
                self._wait(nonce, follow)

    def enter(self, nonce: str, attempt: int = 1) -> int:
        """A stream of this nonce begins; nothing of it is removed from now on.

        Args:
            nonce: The visitor's.
            attempt: The last one that the visitor knows of.

        Returns:
            The attempt that it should join, from 1.
        """
        with self._lock:
            follow = self._follows.setdefault(nonce, _Follow())
            follow.streams += 1
            follow.attempt = max(follow.attempt, attempt)
            if follow.returned:
                follow.returned.set()
                follow.returned = None
            return follow.attempt

    def begin(self, nonce: str, attempt: int, user: str) -> None:
        """A stream of this nonce begins an attempt, and is about to make its user."""
        with self._lock:
            follow = self._follows[nonce]
            follow.attempt = attempt
            if user not in follow.users:
                follow.users.append(user)
            self._journal.note(nonce, follow)

    def fail(self, nonce: str, user: str) -> None:
        """An attempt of this nonce failed: its user goes, beside whatever the visitor tries next."""
        with self._lock:
            self._remove_soon(nonce, self._follows[nonce], [user])

    def arrive(self, nonce: str, user: str) -> None:
        """The server of this user is about to be handed over: from now on it is its visitor's, whatever falls."""
        with self._lock:
            follow = self._follows[nonce]
            follow.arrived.add(user)
            self._settle(nonce, follow)

    def leave(self, nonce: str, user: str, *, is_over: bool) -> None:
        """A stream of this nonce ends.

        Args:
            nonce: The visitor's.
            user: The user that its attempt made, which goes if nobody comes back; empty: none.
            is_over: Whether it saw the end of its launch.
        """
        with self._lock:
            follow = self._follows[nonce]
            follow.streams -= 1
            follow.is_ready |= is_over
            if follow.streams:
                return
            if follow.is_ready or not user:
                # Attempts that failed before a process that was killed could remove what they had made, too.
                follow.users = follow.unclaimed
                follow.is_ready = False
                self._remove_soon(nonce, follow, follow.users)
                self._settle(nonce, follow)
            else:
                self._wait(nonce, follow)

    def _remove_soon(self, nonce: str, follow: _Follow, users: list[str]) -> None:
        for user in users:
            if user not in follow.going:
                follow.going.add(user)
                threading.Thread(target=self._go, args=(nonce, follow, user), name="remove", daemon=True).start()

    def _go(self, nonce: str, follow: _Follow, user: str) -> None:
        self._remove(user)
        with self._lock:
            follow.going.discard(user)
            follow.users = [each for each in follow.users if each != user]
            self._settle(nonce, follow)

    def _settle(self, nonce: str, follow: _Follow) -> None:
        """Note whom the next process would have to remove; forget a launch of which nothing is left."""
        if self._follows.get(nonce) is not follow:
            return  # it was given up
        if follow.unclaimed:
            self._journal.note(nonce, follow)
        else:
            self._journal.remove(nonce)
        if not (follow.streams or follow.users or follow.returned):
            del self._follows[nonce]

    def _wait(self, nonce: str, follow: _Follow) -> None:
        follow.returned = threading.Event()
        waiting = threading.Thread(target=self._await, args=(nonce, follow, follow.returned), name="leave", daemon=True)
        waiting.start()

    def _await(self, nonce: str, follow: _Follow, returned: threading.Event) -> None:
        """Wait for a visitor who left, and remove what one who does not come back has left."""
        if self._clock.wait(returned, self._leave_seconds):
            return
        with self._lock:
            if follow.returned is not returned:
                return  # the visitor came back in the last moment
            del self._follows[nonce]
        for user in follow.users:
            self._remove(user)
        # Last: should this process be killed meanwhile, the next one removes them.
        self._journal.remove(nonce)


class _Journal:
    """A file for each launch in flight, none of which may keep a visitor from a server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, nonce: str, follow: _Follow) -> None:
        content = {"nonce": nonce, "attempt": follow.attempt, "users": follow.unclaimed}
        try:
            # The nonce opens the server: nobody else may read it. After a power cut there are no servers to remove.
            write_whole(self._path(nonce), json.dumps(content), mode=0o600, durable=False)
        except TransientError as error:
            _logger.warning("a launch is not noted: %s", error.detail)

    def remove(self, nonce: str) -> None:
        with contextlib.suppress(OSError):
            self._path(nonce).unlink()

    def entries(self) -> Iterator[tuple[str, _Follow]]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                given = json.loads(path.read_text(encoding="utf-8"))
                yield given["nonce"], _Follow(attempt=given["attempt"], users=given["users"])
            except (OSError, ValueError, KeyError):
                _logger.warning("%s is not a launch in flight", path)
                path.unlink(missing_ok=True)

    def _path(self, nonce: str) -> Path:
        return self._folder / f"{hashlib.sha256(nonce.encode()).hexdigest()[:32]}.json"
