"""Images that were published before the scanner was there, scanned once it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.clock import PlayedClock
from tests.integration.fakes import FakeEngine, request
from web import native
from web.ledger import BuildRecord, Ledger
from web.recording import archive as keys
from web.recording.archive import FsspecArchive
from web.recording.filing import Filing
from web.recording.overdue import AGAIN_SECONDS, OverdueScans
from workflows.errors import TransientError
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName
from workflows.scan.verdict import Database, judged, not_yet
from workflows.stores.catalogue import Entry, FolderCatalogue

SBOM = b'{"bomFormat": "CycloneDX"}'


class Files:
    """A recorder that files, or does not."""

    is_filing = True


class Farm:
    """A ledger, an archive and a catalogue of published images, and a scanner that comes when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.archive = FsspecArchive(f"file://{folder / 'archive'}")
        self.catalogue = FolderCatalogue(folder / "catalogue")
        self.recorder = Files()
        self.is_there = True
        self.scanned: list[BuildName] = []
        self.broken: set[BuildName] = set()
        self._engine = FakeEngine()
        self._clock = PlayedClock()
        self.scans = OverdueScans(
            self.ledger,
            self.catalogue,
            Filing(self._engine, self.ledger, self.archive),
            self.recorder,  # type: ignore[arg-type]
            scan=self._scan,
            is_possible=lambda: self.is_there,
            clock=self._clock,
        )

    def publish(self, number: int) -> BuildName:
        """An image that was published and not scanned."""
        commit, digest = CommitSHA(f"{number:040}"), ImageDigest(f"sha256:{number:064}")
        image = ImageName(f"localhost/argosy/owner-repo:{commit}")
        status = self._engine.submit(request(image=image, commit=commit))
        self._engine.end(status.name)
        self.ledger.record_status(self._engine.builds[status.name])
        self.ledger.record_published(status.name, digest)
        self.ledger.record_findings(status.name, verdict="not-scanned-yet", counts={}, findings=[])
        self.ledger.mark_recorded(status.name, 1)
        self.archive.put(keys.key(status.name, keys.FINDINGS), io.BytesIO(not_yet(digest).to_json().encode()))
        entry = Entry(
            image=image,
            digest=digest,
            provider="gh",
            spec="owner/repo/main",
            repo_url="https://github.example/owner/repo",
            commit=commit,
            builder="",
            published=1,
            build=status.name,
        )
        self.catalogue.add(entry)
        return status.name

    def look(self) -> None:
        """One look, so long after the last one that there is a round."""
        self._clock.sleep(AGAIN_SECONDS)
        self.scans.look(native.Flag())

    def verdict(self, name: BuildName) -> str:
        record = self.ledger.build(name)
        assert record is not None
        return record.verdict

    def _scan(self, record: BuildRecord) -> dict[str, bytes]:
        self.scanned.append(record.name)
        if record.name in self.broken:
            raise TransientError(detail="the disk is full")
        verdict = judged((), Database(built="2026-11-30T00:00:00Z", age_hours=1), digest=record.digest, max_age_hours=2)
        return {keys.SBOM: SBOM, keys.FINDINGS: verdict.to_json().encode()}


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_what_is_overdue_is_scanned_and_filed_in_the_place_of_what_was_known(farm: Farm) -> None:
    name = farm.publish(1)
    farm.look()
    assert farm.verdict(name) == "pass"
    assert farm.archive.get(keys.key(name, keys.SBOM)) == SBOM
    assert b'"pass"' in (farm.archive.get(keys.key(name, keys.FINDINGS)) or b"")
    farm.look()
    assert farm.scanned == [name], "what is scanned is not overdue any more"


def test_one_that_cannot_be_scanned_holds_up_no_other_and_is_tried_in_the_next_round(farm: Farm) -> None:
    names = {farm.publish(number) for number in range(3)}
    farm.broken = {next(iter(names))}
    farm.look()
    assert set(farm.scanned) == names
    assert {name for name in names if farm.verdict(name) == "not-scanned-yet"} == farm.broken
    farm.broken = set()
    farm.look()
    assert {farm.verdict(name) for name in names} == {"pass"}


def test_what_cannot_be_launched_any_more_is_not_scanned(farm: Farm) -> None:
    removed, replaced = farm.publish(1), farm.publish(2)
    entries = {entry.build: entry for entry in farm.catalogue.entries()}
    farm.catalogue.remove(entries[removed].image)
    farm.ledger.record_published(replaced, ImageDigest("sha256:" + "e" * 64))
    farm.look()
    assert farm.scanned == []


def test_it_waits_for_the_scanner_and_for_its_turn_among_several_processes(farm: Farm) -> None:
    name = farm.publish(1)
    farm.is_there = False
    farm.look()
    farm.is_there, farm.recorder.is_filing = True, False
    farm.look()
    assert farm.scanned == []
    farm.recorder.is_filing = True
    farm.look()
    assert farm.scanned == [name]
