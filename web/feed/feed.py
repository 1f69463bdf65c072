"""One attempt's events, read once in a thread of its own and told to each follower at its own pace."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Generator, Iterator
from itertools import islice

from web import native
from web.concurrency import Signal, off_loop
from web.feed import events
from web.feed.lines import lines_of
from web.feed.ring import START, Position, Ring
from web.recording.archive import Archive
from workflows.build import BuildStatus, LogLine, State, only_lines
from workflows.engines import Engine
from workflows.errors import ArgosyError, InternalError, TransientError
from workflows.events import KEEPALIVE, encode
from workflows.image import ImageDigest, is_digest
from workflows.pipeline import PUBLISH
from workflows.stores.catalogue import Catalogue

_logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""A build that is over, but whose log does not come to its end, is not waited for any longer than this."""

TICKS = 5
"""Ticks in one keep-alive interval: a comment comes at most one of them early."""

_CHUNK_LINES = 500
_RETRY_SECONDS = 1.0


class Feed:
    """One attempt's events.

    Args:
        status: What the engine last said of it.
        engine: Has its log while it runs.
        store: Has its log later.
        catalogue: Has its image, as soon as that may be launched.
        bell: Wakes the followers.
        keep_alive_seconds: Greatest silence in a stream.
        ring: What holds its lines.
    """

    def __init__(
        self,
        status: BuildStatus,
        engine: Engine,
        store: Archive,
        catalogue: Catalogue,
        bell: Signal,
        *,
        keep_alive_seconds: float,
        ring: Ring | None = None,
    ) -> None:
        self.followers = 0
        self.is_exhausted = False
        self._name = status.name
        self._status = status
        self._engine = engine
        self._store = store
        self._catalogue = catalogue
        self._signal = bell
        self._keep_alive_seconds = keep_alive_seconds
        self._ring = ring or Ring()
        self._is_started = False
        self._is_broken = False
        self._over_since = time.monotonic()  # counts once the status says that the wait is over
        self._is_said = False

    def start(self) -> None:
        """Begins to read the log, once, in a native thread: however many follow, there is one reader."""
        if not self._is_started:
            self._is_started = True
            native.start(self._read, f"log of {self._name}")

    def close(self) -> None:
        """Frees what the event loop holds for this feed."""
        self._signal.close()

    def tell(self, status: BuildStatus) -> None:
        """Takes the engine's word, in whatever thread; one that is older than the last changes nothing."""
        known = self._status
        if status == known or known.state.ended or _is_older(status, known):
            return
        if not _is_over(known):
            self._over_since = time.monotonic()
        self._status = status
        self._signal.ring()

    def follow(
        self, after: Position | None, usual_seconds: float | None = None, nonce: str = ""
    ) -> Generator[bytes, None, BuildStatus]:
        """One follower's events; see `Feeds.follow`."""
        position, told = after or START, ""
        if after is None:
            # With a nonce it has an id, too: the server may be started before this follower has its first line.
            start = events.id_of(self._name, START) if nonce else ""
            first = self._status
            yield events.stamped(encode(events.waiting(first, usual_seconds), start), nonce)
            # What was sent, and not what is known by now.
            told = events.sentence(first) if first.queue_position else ""
        wrote = time.monotonic()
        while True:
            # All of this is read before the lines are taken: what was said by then is among them.
            seen, status, is_whole = self._signal.version, self._status, self._is_whole()
            piece = self._ring.after(position)
            if piece is not None and piece.data:
                yield events.stamped(piece.data, nonce)
            elif piece is not None:
                # Dropped already: this follower is slow, or came late. It reads by itself until it has caught up.
                for data in self._history(position, piece.last):
                    yield events.stamped(data, nonce)
            elif is_whole:
                return status
            elif self._is_broken:
                raise InternalError(detail=f"{self._name}: its reader ended")
            elif events.sentence(status) not in {"", told}:
                told = events.sentence(status)
                yield encode(events.held_up(status))
            else:
                self._signal.wait(seen)
                if time.monotonic() - wrote < self._keep_alive_seconds * (TICKS - 1) / TICKS:
                    continue
                yield KEEPALIVE
            position = piece.last if piece is not None else position
            wrote = time.monotonic()

    def _is_whole(self) -> bool:
        """Whether the wait is over and every line of it is in the ring."""
        if not _is_over(self._status):
            return False
        # Where the image is published a scan may still run, whose lines are no visitor's.
        is_read = self.is_exhausted or (self._status.published and self._is_said)
        return is_read or time.monotonic() - self._over_since >= PATIENCE_SECONDS

    # --- the reader's thread ---

    def _read(self) -> None:
        try:
            # What was told before this feed began to listen.
            self._ask()
            while not self._read_once():
                native.sleep(_RETRY_SECONDS)
            self._ask()
        except Exception:  # the thread's outermost edge: whoever follows must hear of it
            _logger.exception("%s: its log is not read any more", self._name)
            self._is_broken = True
        finally:
            self.is_exhausted = True
            self._signal.ring()

    def _ask(self) -> None:
        status = self._engine.status(self._name)
        if status is not None:
            self.tell(status)

    def _read_once(self) -> bool:
        try:
            for each in lines_of(self._name, self._engine, self._store):
                if isinstance(each, LogLine):
                    self._take(each)
                elif each.step == PUBLISH.name:
                    self._is_said = True
                    self._signal.ring()
        except TransientError as error:
            _logger.warning("%s: its log broke off: %s", self._name, error.detail)
            return _is_over(self._status) and time.monotonic() - self._over_since > PATIENCE_SECONDS
        except ArgosyError as error:
            _logger.warning("%s: its log cannot be read: %s", self._name, error.detail)
        return True

    def _take(self, line: LogLine) -> None:
        position = events.position_of(line)
        # A log that is read again begins with what is here already.
        if position is not None and position > self._ring.last:
            self._ring.append(position, events.encoded(self._name, position, line))
            self._signal.ring()
            if line.step == PUBLISH.name and is_digest(digest := line.text.rpartition("@")[2]):
                self._ask_catalogue(ImageDigest(digest))

    def _ask_catalogue(self, digest: ImageDigest) -> None:
        """See for ourselves whether the image may be launched: Argo says so a second or two later."""
        try:
            entry = self._catalogue.get(self._status.request.image, digest)
        except ArgosyError as error:
            _logger.info("%s: the catalogue says nothing: %s", self._name, error.detail)
            return
        if entry is not None and entry.build == self._name:
            self.tell(dataclasses.replace(self._status, published=entry.published))

    # --- what the ring has dropped ---

    def _history(self, after: Position, until: Position) -> Iterator[bytes]:
        pieces = self._between(after, until)
        while chunk := off_loop(lambda: list(islice(pieces, _CHUNK_LINES))):
            yield b"".join(chunk)

    def _between(self, after: Position, until: Position) -> Iterator[bytes]:
        for line in only_lines(lines_of(self._name, self._engine, self._store)):
            position = events.position_of(line)
            if position is not None and position > after:
                yield events.encoded(self._name, position, line)
            if position is not None and position >= until:
                # Never further: a running build's log blocks where it has no more.
                return


def _is_older(status: BuildStatus, known: BuildStatus) -> bool:
    """Whether `status` says less than what is known: it was asked for, and the watch was faster."""
    if (bool(known.published), known.started) > (bool(status.published), status.started):
        return True
    # A place is counted once, and from then on until the queue is behind.
    return status.state is State.QUEUED and bool(known.queue_position) and not status.queue_position


def _is_over(status: BuildStatus) -> bool:
    return bool(status.published) or status.state.ended
