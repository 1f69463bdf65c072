"""What is kept of an attempt: its row and findings in the ledger; log, SBOM and findings in the archive.

Everything here may be done twice and gives the same: two processes watch the same engine, and one that fell begins
anew.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, cast

from web.ledger import FindingRecord, Ledger
from web.recording import archive, transcript
from web.recording.archive import Archive
from workflows.build import BuildStatus, LogLine, only_lines
from workflows.engines import Engine
from workflows.image import BuildName, ImageDigest, is_digest
from workflows.scan.verdict import Verdict, parse_verdict

_logger = logging.getLogger(__name__)

SCAN = "scan"
"""The step that says the verdict in a line of its own; where it refuses, the sentence for the visitor comes last."""

PUSHED = "pushed.json"
"""What `push` leaves beside the SBOM: the digest that the image store then held."""

_FILED = (archive.SBOM, archive.FINDINGS)

_IN_MEMORY_BYTES = 2 * 1024**2
"""A log up to here is put together in memory, more of it in a temporary file."""


class Filing:
    """Files attempts of one engine.

    Args:
        engine: Whose attempts they are.
        ledger: Remembers rows.
        archive: Keeps files.
    """

    def __init__(self, engine: Engine, ledger: Ledger, archive: Archive) -> None:
        self._engine = engine
        self._ledger = ledger
        self._archive = archive

    def note(self, status: BuildStatus) -> None:
        """Remembers where an attempt stands."""
        self._ledger.record_status(status)

    def file(self, status: BuildStatus) -> None:
        """Files an ended attempt whole; does nothing where that was done before.

        Raises:
            ArgosyError: Ledger, archive or engine do not answer; all of it may be tried again.
        """
        known = self._ledger.build(status.name)
        if known is not None and known.recorded:
            return
        self._ledger.record_status(status)
        said = self._file_log(status.name)
        # The file holds every finding; where only the log comes back, its bounded last line is all there is.
        verdict = self._file_outputs(status.name) or said
        if verdict is not None:
            self._record(status.name, verdict)
        # Last: whatever fails before, all of it is done again.
        self._ledger.mark_recorded(status.name, time.time())
        _logger.info("%s is filed", status.name)

    def file_scan(self, name: BuildName, outputs: Mapping[str, bytes]) -> Verdict | None:
        """Files what a scan left, in the place of what was known of the attempt.

        Args:
            name: The attempt.
            outputs: Its files, by name.

        Returns:
            The verdict; None where there is none among them, and then nothing is filed in the ledger.

        Raises:
            ArgosyError: Ledger or archive do not answer.
        """
        verdict = self._file_scan(name, outputs)
        if verdict is not None:
            self._record(name, verdict)
        return verdict

    def _file_log(self, name: BuildName) -> Verdict | None:
        tap = _VerdictLine(SCAN)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spooled:
            text = cast("IO[bytes]", spooled)
            transcript.write(tap.passing(only_lines(self._engine.logs(name))), text)
            text.seek(0)
            self._archive.put(archive.key(name, archive.LOG), text)
        return parse_verdict(tap.text)

    def _file_outputs(self, name: BuildName) -> Verdict | None:
        outputs = self._engine.outputs(name)
        digest = _digest(outputs.get(PUSHED, b""))
        if digest:
            self._ledger.record_published(name, digest)
        return self._file_scan(name, outputs)

    def _file_scan(self, name: BuildName, outputs: Mapping[str, bytes]) -> Verdict | None:
        for file in _FILED:
            if file in outputs:
                self._archive.put(archive.key(name, file), io.BytesIO(outputs[file]))
        return parse_verdict(outputs.get(archive.FINDINGS, b"").decode(errors="replace"))

    def _record(self, name: BuildName, verdict: Verdict) -> None:
        self._ledger.record_findings(
            name, verdict=verdict.outcome.value, counts=verdict.counts, findings=_records(verdict)
        )


class _VerdictLine:
    """Lets lines pass and keeps the last one of a step that may be a verdict."""

    def __init__(self, step: str) -> None:
        self._step = step
        self.text = ""

    def passing(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        for line in lines:
            if line.step == self._step and line.text.startswith("{"):
                self.text = line.text
            yield line


def _digest(pushed: bytes) -> ImageDigest | None:
    try:
        digest = json.loads(pushed)["digest"] if pushed else ""
    except (ValueError, KeyError, TypeError):
        _logger.warning("%s cannot be read: %.200r", PUSHED, pushed)
        return None
    return ImageDigest(digest) if isinstance(digest, str) and is_digest(digest) else None


def _records(verdict: Verdict) -> list[FindingRecord]:
    return [
        FindingRecord(
            vulnerability=finding.id,
            severity=finding.severity,
            package=finding.package,
            version=finding.version,
            fixed=finding.fixed,
            url=finding.url,
        )
        for finding in verdict.findings
    ]
