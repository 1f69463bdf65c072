"""The feeds of a process, and who follows them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Protocol

from web.concurrency import signal
from web.feed.feed import TICKS, Feed
from web.feed.ring import Position
from web.recording.archive import Archive
from workflows.build import BuildStatus
from workflows.engines import Engine
from workflows.image import BuildName
from workflows.stores.catalogue import Catalogue


class Watched(Protocol):
    """Who tells what the engine does: `web.recording.recorder.Recorder`."""

    def subscribe(self, subscriber: Callable[[BuildStatus], None]) -> Callable[[], None]:
        """Calls `subscriber` with every status from now on, in a native thread."""
        ...


class Feeds:
    """The feeds of this process.

    Args:
        engine: Whose builds are followed.
        store: Where finished logs are.
        catalogue: Where images are that may be launched.
        watched: Who tells of changes.
        keep_alive_seconds: Greatest silence in a stream.
    """

    def __init__(
        self, engine: Engine, store: Archive, catalogue: Catalogue, watched: Watched, *, keep_alive_seconds: float
    ) -> None:
        self._engine = engine
        self._store = store
        self._catalogue = catalogue
        self._keep_alive_seconds = keep_alive_seconds
        self._feeds: dict[BuildName, Feed] = {}
        self._lock = threading.Lock()  # between requests alone: the watch's native thread never takes it
        watched.subscribe(self._tell)

    def follow(
        self,
        status: BuildStatus,
        *,
        after: Position | None = None,
        usual_seconds: float | None = None,
        nonce: str = "",
    ) -> Generator[bytes, None, BuildStatus]:
        """An attempt's events, encoded, until its image may be launched or it has failed.

        Args:
            status: What the engine last said of it.
            after: The last line that the follower has; None: it has seen nothing yet.
            usual_seconds: How long such a build takes as a rule; None where that is not known.
            nonce: Of the visitor whose server comes after the build; goes along in every id. Empty: none comes.

        Returns:
            The status that ended the wait: published, or ended.
        """
        feed = self._join(status)
        try:
            feed.start()
            return (yield from feed.follow(after, usual_seconds, nonce))
        finally:
            with self._lock:
                feed.followers -= 1
                self._sweep()

    def _join(self, status: BuildStatus) -> Feed:
        with self._lock:
            self._sweep()
            feed = self._feeds.get(status.name)
            if feed is None:
                bell = signal(self._keep_alive_seconds / TICKS)
                feed = Feed(
                    status,
                    self._engine,
                    self._store,
                    self._catalogue,
                    bell,
                    keep_alive_seconds=self._keep_alive_seconds,
                )
                self._feeds[status.name] = feed
            feed.followers += 1
        return feed

    def _sweep(self) -> None:
        # Who left before the end keeps nothing from being read; whoever comes next finds it here.
        for name, feed in list(self._feeds.items()):
            if not feed.followers and feed.is_exhausted:
                del self._feeds[name]
                feed.close()

    def _tell(self, status: BuildStatus) -> None:
        feed = self._feeds.get(status.name)
        if feed is not None:
            feed.tell(status)
