"""From an image to a visitor's server, as BinderHub's events.

User name and token follow from the visitor's nonce and a key of the farm, so nothing about a launch in flight needs
to be kept: whoever comes back with the nonce, to whichever process, finds the same server.

Source: ../shared/reference/binderhub.md 2.1, 2.4 (events), 5.1, 5.2 (names and calls).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from web.launching.gate import Gate, Ticket
from web.launching.hub import Hub, ServerState
from web.launching.identity import Identity
from web.launching.presence import Presence
from workflows.clock import SYSTEM, Clock
from workflows.errors import ArgosyError, RateLimitError, Reason, StepTimeoutError, TransientError
from workflows.events import Event, Phase, event
from workflows.image import ImageDigest, ImageName, pinned
from workflows.repo import Repository
from workflows.settings import Settings

_logger = logging.getLogger(__name__)

_FINAL = frozenset({Reason.POLICY, Reason.CONFIG, Reason.INTERNAL})
"""Reasons for which a second attempt would fail as the first did."""

_MAX_RETRY_AFTER_SECONDS = 60
"""The Hub asks for at most a minute by default; nobody in between is believed more."""

_REMOVE_SECONDS = 60
"""For how long a server that does not stop is asked again; after that the idle culler ends it."""

_TOO_MANY = "Too many users on this BinderHub! Try again soon."
"""BinderHub's words, by which clients know a full farm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who asks for a server.

    Args:
        nonce: Secret of this visitor's stream; the same nonce means the same server.
        host: Where the visitor found us, ``binder_launch_host``, with a slash at the end.
        client_ip: The visitor's address.
        server: Which of the servers that were tried for this nonce the visitor heard of last, from 1.
    """

    nonce: str
    host: str
    client_ip: str
    server: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What stays the same from attempt to attempt.

    Args:
        image: Name and tag.
        options: The Hub's ``user_options``.
        nonce: The visitor's.
        server: The first server to be tried.
    """

    image: ImageName
    options: Mapping[str, str]
    nonce: str
    server: int


class Launcher:
    """Starts visitors' servers at one Hub.

    Args:
        hub: The Hub.
        settings: The farm's.
        leave_seconds: After which the server of a visitor who left before it was ready is removed; a client whose
            stream broke comes back within this time.
        clock: Of pauses and time-outs.
    """

    def __init__(self, hub: Hub, settings: Settings, *, leave_seconds: float = 60, clock: Clock = SYSTEM) -> None:
        self._hub = hub
        self._clock = clock
        self._settings = settings
        self._identity = Identity(settings.secrets_folder / "launch-key")
        self._gate = Gate(settings.parallel_launches)
        self._presence = Presence(settings.launches_folder, leave_seconds, self._remove, clock)
        self._presence.take_over()

    def launch(
        self, *, image: ImageName, digest: ImageDigest, repository: Repository, visitor: Visitor
    ) -> Iterator[Event]:
        """Start a server for one visitor, or join the one that the same nonce started before.

        Whoever closes the iterator before its end has left: what was started is then removed, unless the same nonce
        comes back in time.

        Args:
            image: Name and tag.
            digest: What they stand for in the catalogue.
            repository: What was asked for.
            visitor: Who asks.

        Returns:
            Events from ``Launching server...`` to ``ready`` or ``failed``, the latter with its ``reason``.
        """
        yield event(Phase.LAUNCHING, "Launching server...")
        options = {
            "image": pinned(image, digest),
            "repo_url": repository.repo_url,
            "token": self._identity.token(visitor.nonce),
            "binder_ref_url": repository.ref_url,
            "binder_launch_host": visitor.host,
            "binder_request": f"v2/{repository.provider}/{repository.spec}",
            "binder_persistent_request": f"v2/{repository.provider}/{repository.resolved_spec}",
            "binder_client_ip": visitor.client_ip,
        }
        ticket = self._gate.join()
        try:
            yield from self._queue(ticket)
            yield from self._attempts(_Wish(image=image, options=options, nonce=visitor.nonce, server=visitor.server))
        except ArgosyError as error:
            yield _failed(error)
        finally:
            self._gate.leave(ticket)

    def _queue(self, ticket: Ticket) -> Iterator[Event]:
        """Wait at the gate.

        Raises:
            StepTimeoutError: For longer than one launch may take.
        """
        # The gate waits for a condition, and so by the machine's clock.
        deadline = time.monotonic() + self._settings.launch_timeout_seconds
        place: int | None = None
        while place := self._gate.wait(ticket, place, deadline - time.monotonic()):
            if time.monotonic() >= deadline:
                raise StepTimeoutError("Too many servers are starting. Try again soon.")
            message = f"Many servers are starting: yours is number {place} in the queue."
            yield event(Phase.LAUNCHING, message, queue_position=place)

    def _attempts(self, wish: _Wish) -> Iterator[Event]:
        """All attempts, the first one being that which this nonce was at when it left.

        Raises:
            ArgosyError: The last one failed, or no other can go better.
        """
        is_over, name = False, ""
        attempt = self._presence.enter(wish.nonce, wish.server)
        try:
            while True:
                name = self._identity.user_name(wish.options["repo_url"], wish.nonce, attempt)
                self._presence.begin(wish.nonce, attempt, name)
                try:
                    yield from self._attempt(wish, name)
                except ArgosyError as error:
                    self._presence.fail(wish.nonce, name)
                    name = ""
                    _logger.warning("%s: launch attempt %d: %s %s", wish.image, attempt, error, error.detail)
                    if error.reason in _FINAL or attempt >= self._settings.launch_attempts:
                        raise
                    yield event(Phase.LAUNCHING, str(error), reason=error.reason.value)
                    # BinderHub's words to the letter, so they cannot hold the reason themselves.
                    retry = f"Launch attempt {attempt} failed, retrying..."
                    yield event(Phase.LAUNCHING, retry, reason=error.reason.value)
                else:
                    break
                self._clock.sleep(self._settings.launch_retry_seconds * 2 ** (attempt - 1))
                attempt += 1
            is_over = True
        finally:
            self._presence.leave(wish.nonce, name, is_over=is_over)

    def _attempt(self, wish: _Wish, name: str) -> Iterator[Event]:
        """One attempt, from the user to ``ready``.

        Raises:
            ArgosyError: It failed; the message is BinderHub's.
        """
        deadline = self._clock.monotonic() + self._settings.launch_timeout_seconds
        try:
            is_new = self._hub.create_user(name)
        except TransientError as error:
            raise TransientError(f"Failed to create temporary user for {wish.image}", detail=error.detail) from error
        state = ServerState.NONE if is_new else self._hub.server_state(name)
        if state is ServerState.STOPPING:
            raise TransientError(f"The server of user {name} is just being stopped")
        if state is ServerState.NONE:
            yield from self._start(wish, name, deadline)
        if state is not ServerState.READY:
            yield from self._progress(wish, name, deadline)
        self._presence.arrive(wish.nonce, name)
        yield self._ready(wish, name)

    def _start(self, wish: _Wish, name: str, deadline: float) -> Iterator[Event]:
        """Ask the Hub for the server, and again where it asks for patience.

        Raises:
            PolicyError: It refuses the image.
            RateLimitError: It is full, or throttles for too long.
            TransientError: It fails.
        """
        while True:
            try:
                self._hub.start_server(name, wish.options)
            except RateLimitError as error:
                wait = error.retry_after_seconds
                if wait is None or self._clock.monotonic() + wait > deadline:
                    raise RateLimitError(_TOO_MANY, detail=error.detail) from error
                wait = min(wait, _MAX_RETRY_AFTER_SECONDS)
                self._gate.close_for(wait)
                yield event(Phase.LAUNCHING, f"The Hub is busy; it is asked again in {wait:.0f} seconds.")
                self._clock.sleep(wait)
            except TransientError as error:
                raise TransientError(f"Failed to launch image {wish.image}", detail=error.detail) from error
            else:
                return

    def _progress(self, wish: _Wish, name: str, deadline: float) -> Iterator[Event]:
        """Relay what the Hub says until the server is ready.

        Raises:
            TransientError: It failed to start.
            StepTimeoutError: It took too long.
        """
        who = f"Image {wish.image} for user {name}"
        state = ServerState.STARTING
        while state is ServerState.STARTING:
            try:
                for each in self._hub.progress(name, deadline - self._clock.monotonic()):
                    if each.is_failed:
                        raise TransientError(each.message)
                    yield event(Phase.LAUNCHING, each.message)
                    if each.is_ready:
                        return
            except StepTimeoutError as error:
                raise StepTimeoutError(f"{who} took too long to launch") from error
            # The stream ended without an end, as it does when the Hub or a proxy before it starts anew.
            state = self._hub.server_state(name)
        if state is not ServerState.READY:
            raise TransientError(f"{who} failed to launch")

    def _ready(self, wish: _Wish, name: str) -> Event:
        options = wish.options
        url = f"{self._settings.hub_url.rstrip('/')}/user/{quote(name, safe='@~')}/"
        binder = {key: value for key, value in options.items() if key.startswith("binder_")}
        return event(
            Phase.READY,
            f"server running at {url}",
            image=wish.image,
            repo_url=options["repo_url"],
            token=options["token"],
            **binder,
            url=url,
        )

    def _remove(self, name: str) -> None:
        # The Hub takes a second or more to interrupt a start.
        deadline = self._clock.monotonic() + _REMOVE_SECONDS
        pause = 0.5
        while True:
            try:
                self._hub.stop_server(name)
                if self._hub.delete_user(name):
                    return
                detail = "its server is still stopping"
            except ArgosyError as error:
                detail = f"{error} {error.detail}"
            if self._clock.monotonic() > deadline:
                _logger.error("user %s is left to the idle culler: %s", name, detail)
                return
            self._clock.sleep(pause)
            pause = min(2 * pause, 5)


def _failed(error: ArgosyError) -> Event:
    return event(Phase.FAILED, str(error), status_code=error.http_status, reason=error.reason.value)
