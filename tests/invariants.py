"""What holds whenever anything is killed: the table of design.md, *Where state lives*, as checks on a state folder."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.integration.client import Client
from web.recording import archive, transcript
from web.recording.archive import FsspecArchive
from workflows.build import BuildStatus, State
from workflows.errors import Reason
from workflows.image import attempt_of, with_attempt
from workflows.pipeline import STEPS

ORPHAN_SECONDS = 30
"""How long an attempt whose runner died may still be called running, on a machine that is busy."""


class StateFolder:
    """A farm's state folder as the tests see it from outside, whatever processes work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.builds = folder / "builds"
        self._orphans: dict[str, float] = {}
        self._filed: dict[str, tuple[Any, ...]] = {}
        self._logs: dict[str, bytes] = {}

    def statuses(self) -> list[BuildStatus]:
        found = []
        for path in self.builds.glob("build-*/status.json"):
            with suppress(FileNotFoundError):
                found.append(BuildStatus.from_json(path.read_text()))
        return found

    def ledger(self) -> dict[str, sqlite3.Row]:
        with closing(sqlite3.connect(self.folder / "ledger.sqlite", timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["name"]: row for row in connection.execute("select * from builds")}

    def all_filed(self) -> dict[str, sqlite3.Row] | None:
        """The ledger, once every build in it is filed."""
        ledger = self.ledger()
        return ledger if ledger and all(row["recorded"] for row in ledger.values()) else None

    def has_runner(self, name: str) -> bool:
        try:
            with (self.builds / name / "runner").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def check(self) -> None:
        """To be called again and again: what was finished is as it was, and what has lost its runner ends soon."""
        self._check_attempts()
        self._check_finished()

    def resume(self) -> None:
        """Nobody could bury anything while nothing ran at all: what is lost may wait as long again."""
        self._orphans.clear()

    def _check_attempts(self) -> None:
        statuses = self.statuses()
        going = Counter(with_attempt(status.name, 1) for status in statuses if not status.state.ended)
        assert all(count == 1 for count in going.values()), f"one build twice at a time: {going}"
        now = time.monotonic()
        lost = {s.name for s in statuses if s.state is State.RUNNING and not self.has_runner(s.name)}
        self._orphans = {name: self._orphans.get(name, now) for name in lost}
        assert all(now - since < ORPHAN_SECONDS for since in self._orphans.values()), f"nobody buried {self._orphans}"
        for status in statuses:
            if status.state.ended:
                assert not (self.builds / status.name / "strangers").exists(), f"{status.name} left its tree"
            if status.state is State.FAILED:
                assert status.reason is Reason.TRANSIENT, f"{status.name}: {status.reason} {status.message}"

    def _check_finished(self) -> None:
        ledger = self.ledger()
        for name, row in ledger.items():
            before = ledger.get(with_attempt(name, row["attempt"] - 1))
            assert not (is_again(row) and before and is_again(before)), f"{name} is the second try without a wish"
        for name, kept in self._filed.items():
            assert tuple(ledger[name]) == kept, f"{name} was finished and has changed"
            assert self._log(name) == self._logs[name]
        for name, row in ledger.items():
            if row["recorded"] and name not in self._filed:
                self._filed[name] = tuple(row)
                self._logs[name] = self._log(name)

    def _log(self, name: str) -> bytes:
        return (self.folder / "archive" / "builds" / name / archive.LOG).read_bytes()

    # --- what those who follow have seen ---

    def check_clients(self, clients: Iterable[Client], ledger: dict[str, sqlite3.Row]) -> None:
        """Once all is filed: each line once, in order, and what was lost was tried again.

        Args:
            clients: All of them; each has ended or left.
            ledger: From `all_filed`.
        """
        said = self._lines(ledger)
        for client in clients:
            _check_lines(client)
            if not client.has_left:
                _check_end(client, ledger, said)
        for name, row in ledger.items():
            if row["reason"] == "transient" and not is_again(row):
                assert with_attempt(name, row["attempt"] + 1) in ledger, f"{name} was lost and not tried again"

    def _lines(self, ledger: Iterable[str]) -> dict[str, dict[int, int]]:
        """How many lines each step of each attempt has, as the archive tells."""
        store = FsspecArchive((self.folder / "archive").as_uri())
        index = {step.name: number for number, step in enumerate(STEPS)}
        found: dict[str, dict[int, int]] = {}
        for name in ledger:
            counts: dict[int, int] = defaultdict(int)
            for line in transcript.read(store.stream(archive.key(name, archive.LOG)) or ()):
                counts[index[line.step]] += 1
            found[name] = dict(counts)
        return found


def is_again(row: sqlite3.Row) -> bool:
    """Whether an attempt is the second of one that was lost."""
    return bool(json.loads(row["request"])["again"])


def _check_lines(client: Client) -> None:
    for (attempt, step), numbers in client.lines.items():
        assert numbers == sorted(set(numbers)), f"{client.path}: a line twice, or out of its order: {numbers}"
        # Who joined the second attempt alone never saw the first.
        assert numbers == list(range(1, len(numbers) + 1)), f"{client.path}, {attempt}.{step}: {numbers}"


def _check_end(client: Client, ledger: dict[str, sqlite3.Row], said: dict[str, dict[int, int]]) -> None:
    # Who was told of a build and lost its stream before the first line may find the image there: then it saw no build.
    end = next(event for event in client.events if event.get("phase") in {"built", "ready", "failed"})
    build = end.get("build", "")
    if client.last["phase"] == "failed":
        assert client.last["reason"] == "transient", client.last
        # Without a build nothing was begun: what was killed was needed to find out whether there has to be one.
        assert not build or is_again(ledger[build]), f"{client.path} was not tried again: {client.last}"
    elif build:
        seen = {step: numbers for (attempt, step), numbers in client.lines.items() if attempt == attempt_of(build)}
        for step, count in said[build].items():
            if STEPS[step].name not in {"scan", "attach", "warm"}:
                got = len(seen.get(step, ()))
                assert got == count, f"{client.path}: {got} of {count} lines of {step} of {build}: {client.ids}"
