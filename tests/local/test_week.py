"""A week of builds and launches under small limits, one every twenty minutes: the disk does not fill.

Storage, staging, caches, catalogue, ledger and archive are the real ones, and so are the steps that bring an image
there and the kinds of cleaning. Played are the strangers' half, which leaves a ready image, and the time of day.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.images import write_layout
from tests.storages import fill, podman
from web.cleaning.retention import ArchiveFiles, LedgerRows
from web.ledger import FindingRecord, LaunchRecord, Ledger
from web.recording import archive
from web.recording.archive import FsspecArchive
from workflows.build import BuildRequest, BuildStatus, State
from workflows.cleaning.caches import BaseLayers, RepositoryCaches, WheelCache
from workflows.cleaning.cleaner import Cleaner
from workflows.cleaning.images import Images
from workflows.cleaning.leftovers import Logs, leftovers
from workflows.cleaning.tool import sizes
from workflows.image import CommitSHA, ImageName, image_name
from workflows.settings import MIB, Settings
from workflows.steps import publish, push
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.containers import Containers
from workflows.stores.staging import Staging

BUILDS = 500
EVERY_SECONDS = 7 * 86400 / BUILDS
ROUND_BUILDS = 5
"""Builds between two rounds: those that end within the pause that web makes."""

WHOLE_ROUNDS = 5
LOST = 40
"""One build of so many is killed when it has staged its image, and nobody looks for that again."""

IMAGE_BYTES = MIB
LOG_BYTES = 200_000
FINDINGS = 5
SLACK = 1.1
"""Folders and what a storage notes of each layer."""

OTHER_BYTES = 5 * MIB
"""Of a state folder with nothing that grows: the ledger's file, the storage's records, configurations."""

LIMITS: Mapping[str, int] = {
    "image_limit_bytes": 20 * MIB,
    "build_cache_limit_bytes": 20 * MIB,
    "archive_limit_bytes": 20 * MIB,
    "ledger_limit_rows": 800,
}


class Week:
    """The farm, the time of day, and who has launched what when."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.catalogue = FolderCatalogue(settings.catalogue_folder)
        self.ledger = Ledger.open(settings.ledger)
        self.archive = FsspecArchive(settings.archive)
        self.now = time.time()
        self.launched: dict[ImageName, float] = {}
        self.left = 0
        self._leaving: set[ImageName] = set()
        self._folder = folder
        kinds = (
            *leftovers(settings, lambda name: False),
            Logs(settings),
            RepositoryCaches(settings),
            WheelCache(settings),
            BaseLayers(settings),
            Images(settings, self.catalogue, self, sleep=self._settle),
            ArchiveFiles(settings, self.archive, self.catalogue),
            LedgerRows(settings, self.ledger, self.catalogue),
        )
        self._cleaner = Cleaner(kinds, lambda: 0, clock=lambda: self.now)

    # --- who works with images ---

    def last_launches(self) -> Mapping[ImageName, float]:
        return self.ledger.last_launches()

    def held(self) -> Collection[ImageName]:
        return ()

    # --- what happens ---

    def build(self, number: int, *, is_lost: bool = False, program: bytes = b"") -> ImageName:
        """A visitor's click on a repository that is new: image, cache, log, SBOM, rows and a launch come of it."""
        request = request_of(number)
        write_layout(self._folder / "layout", {"program": program, "data": os.urandom(IMAGE_BYTES)})
        Staging(self.settings).put(request.name, self._folder / "layout", print)
        fill(self.settings, request.name, IMAGE_BYTES)
        if is_lost:
            self._file(request, State.FAILED)
            return request.image
        push.run(options_of(request), self.settings)
        publish.run(options_of(request), self.settings)
        Staging(self.settings).discard(request.name)
        self._file(request, State.SUCCEEDED)
        self.launch(request.image)
        return request.image

    def launch(self, image: ImageName) -> None:
        self.launched[image] = self.now
        self.ledger.record_launch(
            LaunchRecord(
                image=image,
                provider="git",
                spec="x/main",
                repo_url="https://example.org/x",
                outcome="ready",
                created=self.now,
                ready_seconds=2,
            )
        )

    def clean(self, *, is_whole: bool) -> None:
        before, self._leaving = self.listed(), set()
        self._cleaner.round(is_whole=is_whole)
        listed = self.listed()
        assert listed == self.there(), "launchable and not there, or there and not launchable"
        gone = before - listed
        assert gone == self._leaving, "what left had not left the catalogue first"
        if gone:
            stay = listed - self.running()
            assert max(self.launched[image] for image in gone) < min(self.launched[image] for image in stay)
        self.left += len(gone)

    def check(self, *, is_whole: bool) -> None:
        """That nothing is over its limit; what builds make grow slowly is looked at in whole rounds alone."""
        hasty = {"image_limit_bytes", "build_cache_limit_bytes"}
        for limit, size in self.sizes().items():
            if is_whole or limit in hasty:
                assert size <= LIMITS[limit] * SLACK, f"{limit}: {size}"
        if is_whole:
            folder = self.settings.state
            assert sizes([folder])[folder] <= sum(LIMITS.values()) * SLACK + OTHER_BYTES
            assert not list(self.settings.staging_folder.iterdir()), "what lost builds staged"

    def _settle(self, seconds: float) -> None:
        # Between the catalogue and the storage.
        self._leaving = self.there() - self.listed() if seconds else set()

    def _file(self, request: BuildRequest, state: State) -> None:
        times = {"created": self.now, "started": self.now, "ended": self.now + 60}
        self.ledger.record_status(BuildStatus(request=request, state=state, **times))
        finding = FindingRecord(vulnerability="CVE-2026-1", severity="low", package="x", version="1")
        self.ledger.record_findings(
            request.name, verdict="findings", counts={"low": FINDINGS}, findings=[finding] * FINDINGS
        )
        self.ledger.mark_recorded(request.name, self.now + 60)
        for file in (archive.LOG, archive.SBOM):
            self.archive.put(archive.key(request.name, file), io.BytesIO(os.urandom(LOG_BYTES)))

    # --- what is there ---

    def listed(self) -> set[ImageName]:
        return {entry.image for entry in self.catalogue.entries()}

    def there(self) -> set[ImageName]:
        named = podman(self.settings, "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        return {ImageName(name) for name in named}

    def running(self) -> set[ImageName]:
        return {ImageName(name) for name in podman(self.settings, "ps", "--format", "{{.Image}}").stdout.split()}

    def rows(self) -> int:
        with closing(sqlite3.connect(self.settings.state / "ledger.sqlite")) as connection:
            tables = ("builds", "findings", "launches")
            return sum(connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables)

    def sizes(self) -> dict[str, int]:
        """What there is of each kind, on the disk and in the tables themselves, by the setting that limits it."""
        folders = {
            "image_limit_bytes": Containers(self.settings).images / "overlay",
            "build_cache_limit_bytes": Containers(self.settings).repository("any").parent,
            "archive_limit_bytes": self.settings.state / "archive",
        }
        found = sizes(list(folders.values()))
        return {limit: found[folder] for limit, folder in folders.items()} | {"ledger_limit_rows": self.rows()}


def request_of(number: int) -> BuildRequest:
    commit, slug = CommitSHA(f"{number:040x}"), f"week/{number}"
    return BuildRequest(
        image=image_name("localhost/argosy/", slug, commit),
        provider="git",
        spec=f"{slug}/main",
        ref="main",
        commit=commit,
        repo_url=f"https://example.org/{slug}",
        clone_url=f"https://example.org/{slug}",
        slug=slug,
        owner="week",
    )


def options_of(request: BuildRequest) -> argparse.Namespace:
    return argparse.Namespace(**{name.replace("-", "_"): value for name, value in request.parameters().items()})


@pytest.fixture
def week(machine: Settings, tmp_path: Path) -> Iterator[Week]:
    week = Week(machine.model_copy(update=dict(LIMITS)), tmp_path)
    yield week
    week.ledger.close()


def test_a_week_of_builds_stays_under_every_limit(week: Week, waiting: bytes) -> None:
    chance = random.Random(7)
    used = week.build(0, program=waiting)
    assert podman(week.settings, "run", "--detach", "--network=none", used, "/program").returncode == 0
    greatest: Counter[str] = Counter()
    for number in range(1, BUILDS):
        week.now += EVERY_SECONDS / 2
        week.build(number, is_lost=number % LOST == 0)
        week.now += EVERY_SECONDS / 2
        if chance.random() < 0.3:
            week.launch(chance.choice(sorted(week.listed())))
        if number % ROUND_BUILDS == 0:
            is_whole = number % (ROUND_BUILDS * WHOLE_ROUNDS) == 0
            week.clean(is_whole=is_whole)
            week.check(is_whole=is_whole)
            greatest |= Counter(week.sizes())
    # What a run was worth, for whoever reads a log.
    print(f"{BUILDS} builds, {week.left} images left; at most after a round: {dict(greatest)}")  # noqa: T201
    assert used in week.listed()
    assert week.left > BUILDS * 0.9 - LIMITS["image_limit_bytes"] / IMAGE_BYTES
