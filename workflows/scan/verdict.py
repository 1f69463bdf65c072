"""What a scan came to: the verdict, which the scan step says in its last line."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from workflows.scan.findings import Finding, Severity, counted, finding_of, text

_MAX_FINDINGS = 100
_TOLD = 3
"""How many refusing findings the visitor's sentence names."""
_MAX_LINE_BYTES = 32 * 1024
"""Of the verdict's line: whole in every log, event and database field that it passes through."""


class Outcome(StrEnum):
    """What a scan came to. Only the first says that nothing was found, and only the third is a rule's word."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FINDINGS = "findings"
    REFUSED = "refused"
    NO_DATABASE = "no-database"
    STALE_DATABASE = "stale-database"
    NOT_YET = "not-scanned-yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database that was asked.

    Args:
        built: When it was made, as ISO 8601; empty where there is none.
        age_hours: At the time of the scan; None where there is none.
        version: Of its schema.
    """

    built: str = ""
    age_hours: float | None = None
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a scan came to.

    Args:
        outcome: The verdict itself.
        counts: How many findings there are of each severity, all of them counted.
        findings: Those that refuse the image, then the others; worst first.
        more: How many findings were counted and are not in `findings`.
        database: The database that was asked.
        digest: The image that was scanned.
        message: What people read: one sentence or a few.
        refusing: How many findings refuse the image.
        ignored: How many would and are ignored.
    """

    outcome: Outcome
    counts: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    more: int = 0
    database: Database = field(default_factory=Database)
    digest: str = ""
    message: str = ""
    refusing: int = 0
    ignored: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether a database was asked that is fresh enough to be believed."""
        return self.outcome not in {Outcome.NO_DATABASE, Outcome.STALE_DATABASE, Outcome.NOT_YET}

    @property
    def total(self) -> int:
        """How many findings there are."""
        return sum(self.counts.values())

    def to_line(self) -> str:
        """This verdict as one line of JSON of at most 32 KiB; findings that do not fit are counted in ``more``."""
        kept = self.findings[:_MAX_FINDINGS]
        while True:
            bounded = dataclasses.replace(self, findings=kept, more=self.more + len(self.findings) - len(kept))
            line = json.dumps(_json_of(bounded))
            if len(line) <= _MAX_LINE_BYTES or not kept:
                return line
            kept = kept[: len(kept) * 3 // 4]

    def to_json(self) -> str:
        """This verdict as JSON with every finding, for ``findings.json``."""
        return json.dumps(_json_of(self), indent=1) + "\n"


def parse_verdict(said: str) -> Verdict | None:
    """The verdict that `Verdict.to_line` or `Verdict.to_json` wrote; None where `said` is anything else."""
    if not said.lstrip().startswith("{"):
        return None
    try:
        given = json.loads(said)
        return Verdict(
            outcome=Outcome(given["verdict"]),
            counts={str(Severity(name)): int(count) for name, count in given["counts"].items()},
            findings=tuple(finding_of(entry) for entry in given["findings"]),
            more=int(given.get("more", 0)),
            database=Database(**given["database"]),
            digest=str(given.get("digest", "")),
            message=str(given["message"]),
            refusing=int(given.get("refusing", 0)),
            ignored=int(given.get("ignored", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def judged(findings: tuple[Finding, ...], database: Database, *, digest: str, max_age_hours: float) -> Verdict:
    """The verdict on an image.

    Args:
        findings: All of them, as `normalised` gives them; under policy ``enforce`` as the rules have decided on each.
        database: The one that was asked; with an unknown age it counts as stale.
        digest: The image's.
        max_age_hours: Above it a database is stale.
    """
    counts = counted(findings)
    told = ", ".join(f"{count} {severity}" for severity, count in counts.items()) or "nothing"
    outcome = Outcome.FINDINGS if findings else Outcome.PASS
    message = f"The scan found {told}."
    refusing = [finding for finding in findings if finding.refuses]
    ignored = sum(bool(finding.ignored) for finding in findings)
    if ignored:
        message += f" Ignored by the rules of this service: {ignored}."
    if refusing:
        outcome = Outcome.REFUSED
        message = f"{_refusal(refusing)} {message}"
    if database.age_hours is None or database.age_hours > max_age_hours:
        outcome = Outcome.STALE_DATABASE
        age = "of unknown age" if database.age_hours is None else f"{database.age_hours:.0f} hours old"
        message += f" The database is {age}: newer vulnerabilities are not in it."
    return Verdict(
        outcome=outcome,
        counts=counts,
        # Sorting keeps the order of equals: worst first, in both groups.
        findings=tuple(sorted(findings, key=lambda finding: not finding.refuses)),
        database=database,
        digest=digest,
        message=message,
        refusing=len(refusing),
        ignored=ignored,
    )


def no_database(digest: str) -> Verdict:
    """The verdict where there was nothing to ask."""
    message = "There is no vulnerability database: the image was not checked."
    return Verdict(outcome=Outcome.NO_DATABASE, digest=digest, message=message)


def not_yet(digest: str) -> Verdict:
    """The verdict while the scanner itself is still on its way: somebody scans the image once it is there."""
    message = "The scanner is not installed yet: the image is scanned as soon as it is."
    return Verdict(outcome=Outcome.NOT_YET, digest=digest, message=message)


def database_of(status: Any, now: float) -> Database:
    """What Grype says of its database (``descriptor.db.status``).

    Args:
        status: As Grype writes it.
        now: Seconds since the epoch.
    """
    given = status if isinstance(status, dict) else {}
    built = text(given.get("built"))
    try:
        moment = datetime.fromisoformat(built)
    except ValueError:
        return Database(built=built, version=text(given.get("schemaVersion")))
    # A time without a zone would be read in this machine's; Grype writes UTC, and no zone is no age.
    age = round((now - moment.timestamp()) / 3600, 3) if moment.tzinfo else None
    return Database(built=built, age_hours=age, version=text(given.get("schemaVersion")))


def _json_of(verdict: Verdict) -> dict[str, object]:
    given = dataclasses.asdict(verdict)
    return {"verdict": given.pop("outcome"), **given}


def _refusal(refusing: list[Finding]) -> str:
    told = [
        f"{finding.id} in {finding.package} {finding.version}{f' (mended in {finding.fixed})' if finding.fixed else ''}"
        for finding in refusing[:_TOLD]
    ]
    more = f" and {len(refusing) - _TOLD} more" if len(refusing) > _TOLD else ""
    return f"The rules of this service refuse this image for known vulnerabilities: {', '.join(told)}{more}."
