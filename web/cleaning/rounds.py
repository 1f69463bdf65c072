"""Cleaning beside the web process: a round every now and then, and a short one after builds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial

from web import native
from web.cleaning.holds import Holds
from web.cleaning.retention import ArchiveFiles, LedgerRows
from web.ledger import Ledger
from web.native import Stop
from web.recording.archive import FsspecArchive
from web.recording.recorder import Recorder
from workflows.build import BuildStatus
from workflows.cleaning.cleaner import Cleaner, Kind
from workflows.cleaning.images import Usage
from workflows.engines import Engine
from workflows.image import BuildName, ImageName
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue
from workflows.stores.disk import missing_bytes

_logger = logging.getLogger(__name__)

PAUSE_SECONDS = 10
"""Between two rounds, however many builds end."""

LOOK_SECONDS = 1.0


class ImageUsage(Usage):
    """Who works with images: visitors by the ledger and by their clicks, builds by the engine's watch.

    Args:
        ledger: Remembers launches.
        holds: Knows clicks.
        recorder: Knows builds.
    """

    def __init__(self, ledger: Ledger, holds: Holds, recorder: Recorder) -> None:
        self._ledger = ledger
        self._holds = holds
        self._recorder = recorder

    def last_launches(self) -> Mapping[ImageName, float]:
        """See `Usage`."""
        return self._ledger.last_launches()

    def held(self) -> frozenset[ImageName]:
        """See `Usage`."""
        return self._holds.held() | _building(self._recorder.statuses.values())


def _building(statuses: Iterable[BuildStatus]) -> frozenset[ImageName]:
    return frozenset(status.request.image for status in statuses if not status.state.ended)


def cleaner(
    settings: Settings, *, engine: Engine, catalogue: Catalogue, ledger: Ledger, archive: FsspecArchive, usage: Usage
) -> Cleaner:
    """Cleans everything that fills up, what costs least first.

    Where builds are Argo's nothing of them is on this machine: their pods and Workflows go by clocks of their own,
    images by the registry's, and a full disk of ours is no reason to forget what may well be elsewhere.
    """
    kept: list[Kind] = [ArchiveFiles(settings, archive, catalogue), LedgerRows(settings, ledger, catalogue)]
    if settings.engine == "argo":
        return Cleaner(kept, lambda: 0)

    # Here, because it stands on what builds: web beside a cluster has neither the tools nor their packages.
    from workflows.cleaning.machine import kinds  # noqa: PLC0415

    here = kinds(settings, engine=engine, catalogue=catalogue, usage=usage, sleep=native.sleep)
    return Cleaner([*here, *kept], partial(missing_bytes, settings))


class Rounds:
    """The rounds of one process.

    Args:
        made: What cleans.
        recorder: Tells when builds end.
        every_seconds: Between two whole rounds.
        pause_seconds: See `PAUSE_SECONDS`.
    """

    def __init__(
        self, made: Cleaner, recorder: Recorder, *, every_seconds: float, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._cleaner = made
        self._recorder = recorder
        self._every_seconds = every_seconds
        self._pause_seconds = pause_seconds
        self._ended: native.Channel[BuildName] = native.channel()

    def run(self, stop: Stop) -> None:
        """Cleans until `stop`; call it in a native thread of its own."""
        unsubscribe = self._recorder.subscribe(self._note)
        whole_at = 0.0
        while not stop.is_set():
            is_wanted = bool(native.drain(self._ended, wait_seconds=LOOK_SECONDS))
            is_whole = time.monotonic() >= whole_at
            # What is shared is cleaned by one.
            if self._recorder.is_filing and (is_wanted or is_whole):
                self._cleaner.round(is_whole=is_whole)
                whole_at = time.monotonic() + self._every_seconds if is_whole else whole_at
                native.sleep(self._pause_seconds)
        unsubscribe()

    def _note(self, status: BuildStatus) -> None:
        if status.state.ended:
            self._ended.put(status.name)
