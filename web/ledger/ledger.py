"""The ledger: builds, launches and findings, remembered."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Integer, Select, Table, and_, delete, func, or_, select, update
from sqlalchemy import cast as cast_sql

from web.ledger import database, rows
from web.ledger.database import Database
from web.ledger.models import Build, Finding, Launch
from web.ledger.records import BuildRecord, FindingRecord, LaunchRecord, Remembered
from workflows.build import BuildStatus, State
from workflows.errors import InternalError, Reason
from workflows.image import BuildName, ImageDigest, ImageName, with_attempt

REMEMBERED_FAILURES = frozenset({Reason.BUILD, Reason.TOO_LARGE})
"""The repository's own faults: trying again gives the same answer until somebody commits."""

TYPICAL_OF = 15
"""Builds whose median is called usual: enough to smooth, few enough to follow a farm that changes."""

MAX_FINDINGS = 5000
"""Rows of one build; a scanner says hundreds. The archive holds all of them."""

DAY_SECONDS = 86400
"""Launches are forgotten by the day."""

_BUILDS = cast("Table", Build.__table__)
_FINDINGS = cast("Table", Finding.__table__)
_LAUNCHES = cast("Table", Launch.__table__)

Record = TypeVar("Record")


class Ledger:
    """What was built, launched and found. Every method blocks; call none on the event loop.

    Any native thread may call, in any number of processes. Every method raises `TransientError` where the database
    does not answer.
    """

    def __init__(self, opened: Database) -> None:
        self._database = opened

    @classmethod
    def open(cls, url: str) -> Ledger:
        """The ledger at SQLAlchemy's `url`, with its tables up to date; several processes may open it at once.

        Raises:
            ConfigError: The URL cannot be read, or names a database that Argosy does not know.
            TransientError: The database does not answer.
        """
        opened = Database(url)
        opened.migrate()
        return cls(opened)

    def close(self) -> None:
        """Closes the connection; nothing may be called after."""
        self._database.close()

    # --- what web asks ---

    def build(self, name: BuildName) -> BuildRecord | None:
        """One attempt; None where nothing is known of it."""
        found = self._builds(select(_BUILDS).where(_BUILDS.c.name == name))
        return found[0] if found else None

    def attempts(self, name: BuildName) -> tuple[BuildRecord, ...]:
        """Every attempt of the build that `name` is one of, oldest first."""
        first = with_attempt(name, 1)
        return self._builds(select(_BUILDS).where(_BUILDS.c.first == first).order_by(_BUILDS.c.attempt))

    def last_attempt(self, name: BuildName) -> int:
        """The highest attempt that is known of the build that `name` is one of; 0 where there was none."""
        attempts = self.attempts(name)
        return attempts[-1].attempt if attempts else 0

    def latest_failure(self, name: BuildName, *, since: float) -> BuildRecord | None:
        """The failure that answers the next visitor without a build.

        Args:
            name: Any attempt of the build.
            since: Seconds since the epoch; what ended before is forgotten.

        Returns:
            The build's last attempt, where that failed by the repository's own fault; None otherwise.
        """
        attempts = self.attempts(name)
        last = attempts[-1] if attempts else None
        failed = last and last.state is State.FAILED and last.reason in REMEMBERED_FAILURES and last.ended >= since
        return last if failed else None

    def typical_seconds(self, repo_url: str | None = None) -> float | None:
        """How long a build usually takes until its image may be launched.

        Args:
            repo_url: Whose builds are looked at; None: the whole farm's.

        Returns:
            The median of the last successful builds, in seconds; None where there was none.
        """
        # What ended well and published nothing had nothing to do.
        query = select(_BUILDS).where(_BUILDS.c.state == State.SUCCEEDED.value, _BUILDS.c.published > 0)
        query = query.order_by(_BUILDS.c.ended.desc())
        if repo_url is not None:
            query = query.where(_BUILDS.c.repo_url == repo_url)
        took = [build.published - build.started for build in self._builds(query.limit(TYPICAL_OF))]
        return statistics.median(took) if took else None

    def recent_builds(self, limit: int = 50) -> tuple[BuildRecord, ...]:
        """The latest attempts, newest first."""
        return self._builds(select(_BUILDS).order_by(_BUILDS.c.created.desc(), _BUILDS.c.name).limit(limit))

    def open_builds(self) -> tuple[BuildRecord, ...]:
        """Attempts of which something is left to be filed, oldest first."""
        return self._builds(select(_BUILDS).where(_BUILDS.c.recorded == 0).order_by(_BUILDS.c.created))

    def builds_judged(self, verdict: str) -> tuple[BuildRecord, ...]:
        """Filed attempts with that verdict of the scan, newest first."""
        query = select(_BUILDS).where(_BUILDS.c.verdict == verdict, _BUILDS.c.recorded > 0)
        return self._builds(query.order_by(_BUILDS.c.created.desc()))

    def findings(self, name: BuildName) -> tuple[FindingRecord, ...]:
        """What the scan found in the attempt's image, in the scanner's order."""
        query = select(_FINDINGS).where(_FINDINGS.c.build == name).order_by(_FINDINGS.c.id)
        return self._records(query, rows.finding_of_row)

    def recent_launches(self, limit: int = 50) -> tuple[LaunchRecord, ...]:
        """The latest launches, newest first."""
        query = select(_LAUNCHES).order_by(_LAUNCHES.c.created.desc(), _LAUNCHES.c.id.desc()).limit(limit)
        return self._records(query, rows.launch_of_row)

    # --- what cleaning asks and tells ---

    def last_launches(self) -> dict[ImageName, float]:
        """When each image was last launched well, in seconds since the epoch."""
        query = select(_LAUNCHES.c.image, func.max(_LAUNCHES.c.created)).where(_LAUNCHES.c.outcome == "ready")
        rows_found = self._database.read(lambda each: each.execute(query.group_by(_LAUNCHES.c.image)).all())
        return {ImageName(image): float(at) for image, at in rows_found}

    def history(self) -> tuple[Remembered, ...]:
        """All that is remembered: each build with its findings, each day's launches together."""
        found = select(_FINDINGS.c.build, func.count().label("rows")).group_by(_FINDINGS.c.build).subquery()
        builds = select(
            _BUILDS.c.name, _BUILDS.c.created, _BUILDS.c.ended, _BUILDS.c.recorded, func.coalesce(found.c.rows, 0)
        ).outerjoin(found, found.c.build == _BUILDS.c.name)
        day = cast_sql(func.floor(_LAUNCHES.c.created / DAY_SECONDS), Integer)
        launches = select(day, func.count()).group_by(day)
        return self._database.read(
            lambda each: (
                *(
                    Remembered(build=name, at=max(created, ended), rows=1 + rows, is_open=not recorded)
                    for name, created, ended, recorded, rows in each.execute(builds)
                ),
                *(
                    Remembered(build=None, at=(day + 1) * DAY_SECONDS, rows=rows, is_open=False)
                    for day, rows in each.execute(launches)
                ),
            )
        )

    def forget(self, remembered: Sequence[Remembered]) -> None:
        """Deletes part of the history, builds with their findings."""
        self._database.write(lambda connection: _forget(connection, remembered))

    # --- what web tells ---

    def record_status(self, status: BuildStatus) -> None:
        """Remembers an engine's word; an older word than the one that is known changes nothing."""
        row = rows.row_of_status(status)
        self._database.write(lambda connection: _upsert_build(connection, row))

    def record_findings(
        self, name: BuildName, *, verdict: str, counts: Mapping[str, int], findings: Sequence[FindingRecord]
    ) -> None:
        """Remembers a scan's verdict and findings, in the place of what was known of that attempt.

        Raises:
            InternalError: No status of this attempt was recorded.
        """
        found = [rows.row_of_finding(name, finding) for finding in findings[:MAX_FINDINGS]]
        values = {"verdict": verdict[:32], "counts": dict(counts)}
        self._database.write(lambda connection: _replace_findings(connection, name, values, found))

    def record_published(self, name: BuildName, digest: ImageDigest) -> None:
        """Remembers the digest under which an attempt's image was published."""
        self._update(name, {"digest": digest})

    def mark_recorded(self, name: BuildName, at: float) -> None:
        """Remembers that nothing of an attempt is left to be filed.

        Args:
            name: The attempt.
            at: Seconds since the epoch.
        """
        self._update(name, {"recorded": at})

    def record_launch(self, launch: LaunchRecord) -> None:
        """Remembers how a launch went."""
        row = rows.row_of_launch(launch)
        self._database.write(lambda connection: connection.execute(_LAUNCHES.insert().values(**row)))

    def _update(self, name: BuildName, values: dict[str, Any]) -> None:
        self._database.write(lambda connection: _update_build(connection, name, values))

    def _builds(self, query: Select[Any]) -> tuple[BuildRecord, ...]:
        return self._records(query, rows.build_of_row)

    def _records(self, query: Select[Any], made: Callable[[Mapping[str, Any]], Record]) -> tuple[Record, ...]:
        found = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(made(dict(row)) for row in found)


def _forget(connection: Connection, remembered: Sequence[Remembered]) -> None:
    for each in remembered:
        if each.build is not None:
            connection.execute(delete(_FINDINGS).where(_FINDINGS.c.build == each.build))
            connection.execute(delete(_BUILDS).where(_BUILDS.c.name == each.build))
        else:
            created = _LAUNCHES.c.created
            connection.execute(delete(_LAUNCHES).where(created >= each.at - DAY_SECONDS, created < each.at))


def _upsert_build(connection: Connection, row: dict[str, Any]) -> None:
    unknown: dict[str, Any] = {"digest": "", "recorded": 0.0, "verdict": "", "counts": {}}
    statement = database.insert(connection, _BUILDS)
    new, old = statement.excluded, _BUILDS.c
    # Two processes watch the same engine, and neither knows how late the other is: an end stays an end.
    newer = or_(new.ended > 0, and_(old.ended == 0, new.started >= old.started))
    connection.execute(database.upsert(statement, row, insert_only=unknown, keys=["name"], where=newer))


def _replace_findings(
    connection: Connection, name: BuildName, values: dict[str, Any], found: list[dict[str, Any]]
) -> None:
    _update_build(connection, name, values)
    connection.execute(delete(_FINDINGS).where(_FINDINGS.c.build == name))
    if found:
        connection.execute(_FINDINGS.insert(), found)


def _update_build(connection: Connection, name: BuildName, values: dict[str, Any]) -> None:
    changed = connection.execute(update(_BUILDS).where(_BUILDS.c.name == name).values(**values))
    if changed.rowcount != 1:
        raise InternalError(detail=f"the ledger knows no build {name}")
