from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.fakes import FakeEngine, request
from web import native
from web.ledger import BuildRecord, Ledger
from web.recording import archive, transcript
from web.recording import desk as desk_module
from web.recording.archive import FsspecArchive
from web.recording.recorder import Recorder
from workflows.build import BuildStatus, State
from workflows.errors import Reason, TransientError
from workflows.image import BuildName
from workflows.scan.findings import Finding, Severity
from workflows.scan.verdict import Database, Outcome, Verdict

VERDICT = Verdict(
    outcome=Outcome("findings"),
    counts={"high": 1},
    findings=(
        Finding(id="CVE-2026-1", severity=Severity.HIGH, package="left-pad", version="1", fixed="2", url="https://x/1"),
    ),
    database=Database(built="2026-11-23T00:00:00Z"),
    digest="sha256:" + "1" * 64,
    message="One finding.",
)


class Queue:
    """Admits everything at every tick, and counts."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.ticks = 0
        self.fault: Exception | None = None

    def close(self) -> None:
        pass

    def tick(self) -> None:
        self.ticks += 1
        if self.fault:
            raise self.fault
        for name, status in list(self.engine.builds.items()):
            if status.state is State.QUEUED:
                self.engine.admit(name)


class Patient:
    """A ledger or an archive that is away until it is told to come back."""

    def __init__(self, real: object) -> None:
        self.real = real
        self.is_away = False
        self.refused = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if self.is_away:
                self.refused += 1
                raise TransientError(detail="away")
            return getattr(self.real, name)(*args, **kwargs)

        return call


class Desk:
    """A recorder at work, and what a test wants to know of it."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine()
        self.queue = Queue(self.engine)
        self.books = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.ledger = Patient(self.books)
        self.store = FsspecArchive(f"file://{folder / 'archive'}")
        self.archive = Patient(self.store)
        self.stops: list[tuple[native.Flag, threading.Thread]] = []

    def open(self, keep_seconds: float = 600) -> Recorder:
        made = Recorder(self.engine, self.ledger, self.archive, self.queue, keep_seconds=keep_seconds)
        stop = native.Flag()
        thread = threading.Thread(target=made.run, args=(stop,))
        thread.start()
        self.stops.append((stop, thread))
        return made

    def close(self) -> None:
        for stop, thread in self.stops:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()
        self.stops.clear()

    def build(self) -> BuildName:
        return self.engine.submit(request()).name

    def recorded(self, name: BuildName) -> BuildRecord:
        until(lambda: (known := self.books.build(name)) is not None and known.recorded)
        known = self.books.build(name)
        assert known is not None
        return known


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.01)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(desk_module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(desk_module, "LAST_RETRY_SECONDS", 0.1)
    made = Desk(tmp_path)
    yield made
    made.close()
    made.engine.is_over = True
    time.sleep(0.05)  # the filing thread looks at its flag once more
    made.books.close()


def a_whole_build(desk: Desk) -> BuildName:
    name = desk.build()
    until(lambda: desk.engine.builds[name].state is State.RUNNING)
    desk.engine.say(name, "fetch", "Cloning", "done")
    desk.engine.say(name, "build", "===== scan: 1 lines =====", "ü")
    desk.engine.say(name, "scan", "scanning", VERDICT.to_line())
    desk.engine.files[name] = {
        "sbom.cdx.json": b'{"bomFormat": "CycloneDX"}',
        "findings.json": VERDICT.to_json().encode(),
        "pushed.json": b'{"image": "localhost/argosy/owner-repo:abc", "digest": "sha256:%s"}' % (b"1" * 64),
        "unknown.txt": b"not ours to keep",
    }
    desk.engine.end(name)
    return name


def test_a_finished_build_is_filed_whole(desk):
    desk.open()
    name = a_whole_build(desk)
    known = desk.recorded(name)
    assert (known.state, known.verdict, dict(known.counts)) == (State.SUCCEEDED, "findings", {"high": 1})
    assert known.digest == "sha256:" + "1" * 64
    assert [finding.vulnerability for finding in desk.books.findings(name)] == ["CVE-2026-1"]
    assert desk.store.get(archive.key(name, archive.SBOM)) == b'{"bomFormat": "CycloneDX"}'
    assert desk.store.get(archive.key(name, archive.FINDINGS)) == VERDICT.to_json().encode()
    assert not desk.store.exists(archive.key(name, "unknown.txt"))
    lines = list(transcript.read(desk.store.stream(archive.key(name, archive.LOG))))
    assert lines == desk.engine.lines[name]


def test_without_the_file_the_last_line_of_the_scan_is_taken(desk):
    name = desk.build()
    desk.engine.say(name, "scan", VERDICT.to_line())
    desk.engine.end(name, Reason.POLICY)
    desk.open()
    assert desk.recorded(name).verdict == "findings"
    assert len(desk.books.findings(name)) == 1


def test_a_verdict_that_a_build_prints_is_no_verdict(desk):
    name = desk.build()
    desk.engine.say(name, "build", VERDICT.to_line())
    desk.engine.end(name)
    desk.open()
    assert desk.recorded(name).verdict == ""


def test_a_failed_build_is_remembered_with_its_reason(desk):
    desk.open()
    name = desk.build()
    desk.engine.end(name, Reason.BUILD)
    assert desk.recorded(name).reason is Reason.BUILD
    assert desk.books.latest_failure(name, since=0) is not None
    assert desk.store.get(archive.key(name, archive.LOG)) == b""


def test_every_stage_of_a_build_reaches_the_ledger_and_the_subscribers(desk):
    heard: list[BuildStatus] = []
    made = desk.open()
    unsubscribe = made.subscribe(heard.append)
    desk.engine.submit(request(attempt=2))
    until(lambda: heard)  # the watch has begun
    name = desk.build()
    until(lambda: (known := desk.books.build(name)) is not None and known.state is State.RUNNING)
    assert made.statuses[name].state is State.RUNNING
    desk.engine.publish(name)
    until(lambda: desk.books.build(name).published)
    unsubscribe()
    desk.engine.end(name)
    desk.recorded(name)
    states = [status.state for status in heard if status.name == name]
    assert states == [State.QUEUED, State.RUNNING, State.RUNNING]


def test_a_subscriber_that_fails_harms_nobody_else(desk):
    heard: list[BuildStatus] = []
    made = desk.open()

    def loud(status: BuildStatus) -> None:
        raise RuntimeError(status.name)

    made.subscribe(loud)
    made.subscribe(heard.append)
    name = a_whole_build(desk)
    desk.recorded(name)
    assert heard[-1].state is State.SUCCEEDED


@pytest.mark.parametrize("who", ["ledger", "archive"])
def test_what_is_away_for_a_while_loses_nothing(desk, who):
    away: Patient = getattr(desk, who)
    away.is_away = True
    made = desk.open(keep_seconds=0)
    heard: list[BuildStatus] = []
    made.subscribe(heard.append)
    name = a_whole_build(desk)
    until(lambda: away.refused > 5 and heard[-1].state is State.SUCCEEDED)  # the watch and the queue went on
    assert desk.engine.forgotten == []
    away.is_away = False
    known = desk.recorded(name)
    assert known.state is State.SUCCEEDED
    assert desk.store.exists(archive.key(name, archive.LOG))
    until(lambda: desk.engine.forgotten == [name])


def test_the_queue_moves_while_the_ledger_hangs(desk):
    release = threading.Event()
    desk.ledger.real = type("Hanging", (), {"record_status": lambda _, status: release.wait(60)})()
    desk.open()
    first = desk.build()
    until(lambda: desk.engine.builds[first].state is State.RUNNING)
    second = desk.engine.submit(request(attempt=2)).name
    until(lambda: desk.engine.builds[second].state is State.RUNNING)
    release.set()
    desk.ledger.real = desk.books


def test_a_watch_that_breaks_off_is_begun_again(desk):
    desk.engine.watch_faults = [TransientError(detail="gone"), RuntimeError("a bug"), OSError("torn")]
    desk.open()
    name = a_whole_build(desk)
    desk.recorded(name)


def test_an_admission_that_fails_is_tried_again(desk):
    desk.queue.fault = OSError("no such folder")
    desk.open()
    name = desk.build()
    until(lambda: desk.queue.ticks >= 2)
    desk.queue.fault = None
    until(lambda: desk.engine.builds[name].state is State.RUNNING)


def test_time_alone_moves_the_queue(desk):
    desk.open()
    before = desk.queue.ticks
    until(lambda: desk.queue.ticks >= before + 2)


def test_one_attempt_that_cannot_be_filed_is_not_in_the_others_way(desk):
    broken = desk.build()
    desk.engine.end(broken)
    other = desk.engine.submit(request(attempt=2)).name
    desk.engine.end(other)
    desk.engine.logs_faults = [OSError("its log is unreadable")]
    desk.open()
    desk.recorded(other)
    desk.recorded(broken)


def test_a_new_process_files_what_the_old_one_left_and_nothing_twice(desk):
    desk.open()
    first = a_whole_build(desk)
    stamp = desk.recorded(first).recorded
    desk.close()
    second = desk.engine.submit(request(attempt=2)).name
    desk.engine.end(second, Reason.CANCELLED)
    desk.open()
    desk.recorded(second)
    assert desk.recorded(first).recorded == stamp
    assert desk.engine.readers.count(first) == 1


def test_a_process_that_fell_in_the_middle_is_made_good(desk):
    desk.archive.is_away = True
    desk.open()
    name = a_whole_build(desk)
    until(lambda: desk.archive.refused > 1)
    desk.close()
    assert desk.books.build(name).recorded == 0
    desk.archive.is_away = False
    desk.open()
    assert desk.recorded(name).verdict == "findings"
    assert len(desk.books.findings(name)) == 1


def test_two_processes_at_one_engine_agree(desk):
    desk.open()
    desk.open()
    names = []
    for attempt in range(1, 21):
        name = desk.engine.submit(request(attempt=attempt)).name
        desk.engine.say(name, "build", f"line of {attempt}")
        desk.engine.end(name, Reason.BUILD)
        names.append(name)
    for attempt, name in enumerate(names, start=1):
        assert desk.recorded(name).attempt == attempt
        lines = list(transcript.read(desk.store.stream(archive.key(name, archive.LOG))))
        assert [line.text for line in lines] == [f"line of {attempt}"]


def test_what_is_filed_is_forgotten_after_its_time_and_only_then(desk):
    made = desk.open(keep_seconds=0.5)
    forgotten: list[tuple[float, bool]] = []
    forget = desk.engine.forget

    def noting(name: BuildName) -> None:
        forgotten.append((time.time(), name in made.statuses))
        forget(name)

    desk.engine.forget = noting
    name = a_whole_build(desk)
    recorded = desk.recorded(name).recorded
    until(lambda: desk.engine.forgotten == [name])
    ((at, was_known),) = forgotten
    assert at - recorded > 0.4
    assert was_known
    until(lambda: name not in made.statuses)
    assert desk.books.build(name) is not None


def test_the_archived_log_is_a_text_that_people_can_read(desk, tmp_path):
    desk.open()
    name = a_whole_build(desk)
    desk.recorded(name)
    text = gzip.decompress((tmp_path / "archive" / archive.key(name, archive.LOG)).read_bytes()).decode()
    assert text.startswith("===== fetch: 2 lines =====\nCloning\ndone\n===== build: 2 lines =====\n")
