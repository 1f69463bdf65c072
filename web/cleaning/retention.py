"""What is forgotten of finished builds: files of the archive and rows of the ledger, the oldest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from web.ledger import Ledger, Remembered
from web.recording.archive import FsspecArchive, Kept
from workflows.cleaning.choice import Limits, Thing
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue


class ArchiveFiles:
    """What is kept of each build: log, SBOM and findings leave together.

    Args:
        settings: The farm's.
        archive: Where they are.
        catalogue: What may be launched still holds what is known of it.
    """

    name = "archive"
    is_hasty = False
    is_spare = False

    def __init__(self, settings: Settings, archive: FsspecArchive, catalogue: Catalogue) -> None:
        self.limits = Limits(size=settings.archive_limit_bytes, age_seconds=settings.keep_seconds)
        self._archive = archive
        self._catalogue = catalogue

    def things(self) -> list[Thing]:
        """See `Kind`."""
        held = {f"builds/{entry.build}" for entry in self._catalogue.entries()}
        return [
            Thing(
                name=folder,
                used=max(each.modified for each in files),
                parts={each.key: each.size_bytes for each in files},
                is_held=folder in held,
                is_orphan=not all(each.is_whole for each in files),
            )
            for folder, files in self._folders().items()
        ]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        self._archive.remove([key for thing in things for key in thing.parts])

    def _folders(self) -> dict[str, list[Kept]]:
        folders = defaultdict(list)
        for each in self._archive.kept():
            # What is half written is no part of anything.
            folders[each.key.rpartition("/")[0] if each.is_whole else each.key].append(each)
        return folders


class LedgerRows:
    """Builds with their findings, and days of launches; their size is counted in rows.

    Args:
        settings: The farm's.
        ledger: Where they are.
        catalogue: What may be launched still holds what is known of it.
    """

    name = "ledger"
    is_hasty = False
    is_spare = False

    def __init__(self, settings: Settings, ledger: Ledger, catalogue: Catalogue) -> None:
        self.limits = Limits(size=settings.ledger_limit_rows, age_seconds=settings.keep_seconds)
        self._ledger = ledger
        self._catalogue = catalogue
        self._remembered: dict[str, Remembered] = {}

    def things(self) -> list[Thing]:
        """See `Kind`."""
        held = {entry.build for entry in self._catalogue.entries()}
        self._remembered = {each.build or f"launches before {each.at:.0f}": each for each in self._ledger.history()}
        return [
            Thing(name=name, used=each.at, parts={name: each.rows}, is_held=each.is_open or each.build in held)
            for name, each in self._remembered.items()
        ]

    def remove(self, things: Sequence[Thing]) -> None:
        """See `Kind`."""
        # In parts, so that nobody who has a row to write waits for long.
        for start in range(0, len(things), _AT_ONCE):
            self._ledger.forget([self._remembered[thing.name] for thing in things[start : start + _AT_ONCE]])


_AT_ONCE = 200
"""Builds of one transaction."""
