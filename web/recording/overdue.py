"""Scans what was published before the scanner was there, once it is; one image at a time, the newest first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from web import native
from web.ledger import BuildRecord, Ledger
from web.native import Stop
from web.recording.filing import Filing
from web.recording.recorder import Recorder
from workflows.clock import SYSTEM, Clock
from workflows.errors import ArgosyError
from workflows.scan.verdict import Outcome
from workflows.stores.catalogue import Catalogue

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often is asked whether the scanner is there."""

AGAIN_SECONDS = 600.0
"""How often the ledger is asked what is overdue once it is there: what failed, and what was published while it came."""

Scan = Callable[[BuildRecord], Mapping[str, bytes]]


class OverdueScans:
    """Scans published images whose verdict is ``not-scanned-yet``.

    Args:
        ledger: Knows which they are.
        catalogue: Knows which of them may still be launched; no other is worth a scan.
        filing: Files what a scan left.
        recorder: Knows whether this process is the one of several that files.
        scan: Scans the image of an attempt, and returns the files that the scan left.
        is_possible: Whether the scanner is there.
        clock: Says when what failed, and what came late, is looked at again.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalogue: Catalogue,
        filing: Filing,
        recorder: Recorder,
        *,
        scan: Scan,
        is_possible: Callable[[], bool],
        clock: Clock = SYSTEM,
    ) -> None:
        self._ledger = ledger
        self._catalogue = catalogue
        self._filing = filing
        self._recorder = recorder
        self._scan = scan
        self._is_possible = is_possible
        self._clock = clock
        self._next_at = 0.0

    def run(self, stop: Stop) -> None:
        """Looks until `stop`; call it in a native thread of its own."""
        while not stop.is_set():
            self.look(stop)
            native.sleep(LOOK_SECONDS)

    def look(self, stop: Stop) -> None:
        """Scans what is overdue, where it is this process's turn, the scanner is there and time has come."""
        if self._recorder.is_filing and self._is_possible() and self._clock.monotonic() >= self._next_at:
            self._round(stop)
            self._next_at = self._clock.monotonic() + AGAIN_SECONDS

    def _round(self, stop: Stop) -> None:
        try:
            overdue = self._overdue()
        except ArgosyError as error:
            _logger.warning("what is to be scanned is asked for again: %s", error.detail or error)
            return
        for record in overdue:
            if stop.is_set():
                return
            try:
                verdict = self._filing.file_scan(record.name, self._scan(record))
            except ArgosyError as error:
                _logger.warning("%s is not scanned yet: %s", record.name, error.detail or error)
            else:
                _logger.info("%s is scanned now: %s", record.name, verdict and verdict.outcome.value)

    def _overdue(self) -> list[BuildRecord]:
        held = {(entry.image, entry.digest) for entry in self._catalogue.entries()}
        records = self._ledger.builds_judged(Outcome.NOT_YET.value)
        return [record for record in records if (record.image, record.digest) in held]
