from __future__ import annotations

import dataclasses

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from web.ledger import FindingRecord, LaunchRecord, Ledger, database, ledger
from web.ledger.database import Database
from web.ledger.models import Build, Model
from workflows.build import BuildOptions, BuildRequest, BuildStatus, Lane, State, StepStatus
from workflows.errors import ConfigError, InternalError, Reason
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName

REQUEST = BuildRequest(
    image=ImageName("localhost/argosy/owner-repo:abc"),
    provider="gh",
    spec="owner/repo/main",
    ref="main",
    commit=CommitSHA("a" * 40),
    repo_url="https://github.example/owner/repo",
    clone_url="https://github.example/owner/repo",
    slug="owner/repo",
    owner="owner",
    options=BuildOptions(build_args=(("A", "1"),)),
    network="192.0.2.0/24",
)
QUEUED = BuildStatus(request=REQUEST, state=State.QUEUED, created=100, queue_position=3)
RUNNING = BuildStatus(request=REQUEST, state=State.RUNNING, created=100, started=110)
FAILED = dataclasses.replace(RUNNING, state=State.FAILED, reason=Reason.BUILD, message="No.", ended=150)
SUCCEEDED = dataclasses.replace(
    RUNNING,
    state=State.SUCCEEDED,
    published=140,
    ended=150,
    steps=(StepStatus(name="fetch", started=110, ended=112, exit_code=0),),
)


@pytest.fixture
def books():
    opened = Ledger.open("sqlite://")
    yield opened
    opened.close()


def attempt(status: BuildStatus, number: int) -> BuildStatus:
    return dataclasses.replace(status, request=dataclasses.replace(status.request, attempt=number))


def test_a_build_comes_back_as_it_was_told(books):
    books.record_status(SUCCEEDED)
    found = books.build(SUCCEEDED.name)
    assert found is not None
    assert found.request == REQUEST
    assert (found.name, found.first, found.attempt) == (REQUEST.name, REQUEST.name, 1)
    assert (found.state, found.reason, found.lane) == (State.SUCCEEDED, None, Lane.LAUNCH)
    assert (found.created, found.started, found.published, found.ended) == (100, 110, 140, 150)
    assert found.steps == SUCCEEDED.steps
    assert (found.digest, found.recorded, found.verdict, dict(found.counts)) == ("", 0, "", {})


def test_what_was_never_told_is_unknown(books):
    name = BuildName("build-owner-repo-aaaaaaa-00000000")
    assert books.build(name) is None
    assert books.attempts(name) == ()
    assert books.last_attempt(name) == 0
    assert books.latest_failure(name, since=0) is None
    assert books.findings(name) == ()


def test_a_later_word_replaces_an_earlier_one(books):
    for status in (QUEUED, RUNNING, FAILED):
        books.record_status(status)
        found = books.build(status.name)
        assert found.state is status.state
    assert (found.reason, found.message) == (Reason.BUILD, "No.")


@pytest.mark.parametrize("late", [QUEUED, RUNNING])
def test_an_older_word_never_undoes_an_end(books, late):
    books.record_status(FAILED)
    books.record_status(late)
    assert books.build(FAILED.name).state is State.FAILED


def test_a_queued_word_never_undoes_a_running_one(books):
    books.record_status(RUNNING)
    books.record_status(QUEUED)
    assert books.build(FAILED.name).state is State.RUNNING


def test_what_was_filed_outlives_the_same_word_told_again(books):
    books.record_status(SUCCEEDED)
    books.record_published(SUCCEEDED.name, ImageDigest("sha256:" + "0" * 64))
    books.mark_recorded(SUCCEEDED.name, 160)
    books.record_status(SUCCEEDED)
    found = books.build(SUCCEEDED.name)
    assert (found.digest, found.recorded) == ("sha256:" + "0" * 64, 160)


def test_attempts_of_one_build_belong_together(books):
    for number in (1, 2, 11, 10):
        books.record_status(attempt(FAILED, number))
    assert [build.attempt for build in books.attempts(attempt(FAILED, 10).name)] == [1, 2, 10, 11]
    assert books.last_attempt(FAILED.name) == 11


@pytest.mark.parametrize("reason", list(Reason))
def test_only_the_repositorys_own_faults_are_remembered(books, reason):
    books.record_status(dataclasses.replace(FAILED, reason=reason))
    found = books.latest_failure(FAILED.name, since=100)
    assert (found is not None) == (reason in {Reason.BUILD, Reason.TOO_LARGE})


def test_a_failure_is_forgotten_after_its_time(books):
    books.record_status(FAILED)
    assert books.latest_failure(FAILED.name, since=150) is not None
    assert books.latest_failure(FAILED.name, since=150.1) is None


def test_a_new_attempt_makes_the_old_failure_no_answer(books):
    books.record_status(FAILED)
    books.record_status(attempt(QUEUED, 2))
    assert books.latest_failure(FAILED.name, since=0) is None


def test_the_usual_duration_ends_when_the_image_can_be_launched(books):
    assert books.typical_seconds() is None
    for number, seconds in enumerate((10, 30, 1000), start=1):
        books.record_status(attempt(dataclasses.replace(SUCCEEDED, published=110 + seconds, ended=5000), number))
    books.record_status(attempt(FAILED, 9))
    assert books.typical_seconds(REQUEST.repo_url) == 30
    assert books.typical_seconds() == 30
    assert books.typical_seconds("https://github.example/other/one") is None


def test_the_latest_builds_come_first(books):
    for number in (1, 2, 3):
        books.record_status(attempt(dataclasses.replace(QUEUED, created=100 + number), number))
    assert [build.attempt for build in books.recent_builds(2)] == [3, 2]


def test_findings_told_again_take_the_old_ones_place(books):
    books.record_status(SUCCEEDED)
    old = FindingRecord(vulnerability="CVE-1", severity="high", package="p", version="1")
    new = FindingRecord(vulnerability="CVE-2", severity="low", package="p", version="1", fixed="2", url="https://x")
    for findings in ((old, old), (new, old)):
        books.record_findings(SUCCEEDED.name, verdict="findings", counts={"high": 1}, findings=findings)
    assert books.findings(SUCCEEDED.name) == (new, old)
    found = books.build(SUCCEEDED.name)
    assert (found.verdict, dict(found.counts)) == ("findings", {"high": 1})


def test_findings_of_an_unknown_build_are_refused_whole(books):
    finding = FindingRecord(vulnerability="CVE-1", severity="high", package="p", version="1")
    with pytest.raises(InternalError):
        books.record_findings(SUCCEEDED.name, verdict="findings", counts={}, findings=[finding])
    assert books.findings(SUCCEEDED.name) == ()


def test_a_launch_is_remembered_without_its_visitor(books):
    launch = LaunchRecord(
        image=REQUEST.image,
        provider="gh",
        spec="owner/repo/main",
        repo_url=REQUEST.repo_url,
        outcome="failed",
        reason=Reason.TRANSIENT,
        attempts=4,
        created=100,
        ready_seconds=61.5,
    )
    books.record_launch(launch)
    assert books.recent_launches() == (launch,)
    columns = {column for table in Model.metadata.tables.values() for column in table.columns.keys()}  # noqa: SIM118
    assert not columns & {"token", "user", "username", "ip", "client_ip", "host", "nonce"}


def test_text_that_a_database_cannot_hold_is_kept_as_far_as_it_goes(books):
    books.record_status(dataclasses.replace(FAILED, message="before\0after \udc80"))
    assert books.build(FAILED.name).message == "before\N{REPLACEMENT CHARACTER}after ?"


def test_models_and_migrations_agree():
    opened = Database("sqlite://")
    opened.migrate()
    context = {"compare_type": True, "compare_server_default": True}
    assert opened.read(lambda c: compare_metadata(MigrationContext.configure(c, opts=context), Model.metadata)) == []
    opened.close()


def test_migrations_may_be_run_again():
    opened = Database("sqlite://")
    opened.migrate()
    opened.migrate()
    opened.close()


@pytest.mark.parametrize("url", ["", "mysql://host/db", "nonsense://x", "postgresql+nonsense://u:secret@host/db"])
def test_a_url_that_cannot_be_used_is_refused_without_telling_its_password(url):
    with pytest.raises(ConfigError) as caught:
        Ledger.open(url)
    assert "secret" not in caught.value.detail


def test_the_upsert_is_said_in_postgresqls_words_too():
    statement = postgresql.insert(Build.__table__)
    row = {"name": "n", "state": "queued"}
    said = str(
        database.upsert(statement, row, keys=["name"], insert_only={"digest": ""}, where=Build.ended == 0).compile(
            dialect=postgresql.dialect()
        )
    )
    assert "ON CONFLICT (name) DO UPDATE SET state = excluded.state WHERE builds.ended" in said
    assert "digest = " not in said


def test_rows_of_findings_have_an_end(books, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_FINDINGS", 2)
    books.record_status(SUCCEEDED)
    finding = FindingRecord(vulnerability="CVE-1", severity="high", package="p", version="1")
    books.record_findings(SUCCEEDED.name, verdict="findings", counts={"high": 3}, findings=[finding] * 3)
    assert len(books.findings(SUCCEEDED.name)) == 2
