"""What a scan found: findings as values, and the verdict that the scan step says in its last line.

Source: the JSON of Grype 0.110 (``grype -o json``), https://github.com/anchore/grype.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

_MAX_TEXT = 200
"""Characters of any one text: names and versions come from the image, which is to say from anybody."""
_MAX_FINDINGS = 100
_MAX_ALIASES = 5
_MAX_REASON = 600
_TOLD = 3
"""How many refusing findings the visitor's sentence names."""
_MAX_LINE_BYTES = 32 * 1024
"""Of the verdict's line: whole in every log, event and database field that it passes through."""


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NEGLIGIBLE = "negligible"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What a scan came to. Only the first says that nothing was found, and only the third is a rule's word."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FINDINGS = "findings"
    REFUSED = "refused"
    NO_DATABASE = "no-database"
    STALE_DATABASE = "stale-database"


RANK = {severity: rank for rank, severity in enumerate(Severity)}
"""From 0, the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one package.

    Args:
        id: As ``CVE-2018-18074``.
        severity: How bad it is.
        package: Its name.
        version: The version that is in the image.
        type: The kind of package, as ``python`` or ``deb``.
        fixed: The first version with the fix; empty where there is none.
        fix_state: ``fixed``, ``not-fixed``, ``wont-fix`` or ``unknown``.
        url: Where to read more; empty or an http(s) address.
        aliases: Other names of the same vulnerability.
        refuses: Whether it refuses the image, under policy ``enforce``.
        ignored: Why it does not although it would, and until when; empty where it would not.
    """

    id: str
    severity: Severity
    package: str
    version: str
    type: str = ""
    fixed: str = ""
    fix_state: str = "unknown"
    url: str = ""
    aliases: tuple[str, ...] = ()
    refuses: bool = False
    ignored: str = ""


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
        return self.outcome not in {Outcome.NO_DATABASE, Outcome.STALE_DATABASE}

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


def parse_verdict(text: str) -> Verdict | None:
    """The verdict that `Verdict.to_line` or `Verdict.to_json` wrote; None where `text` is anything else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        given = json.loads(text)
        return Verdict(
            outcome=Outcome(given["verdict"]),
            counts={str(Severity(name)): int(count) for name, count in given["counts"].items()},
            findings=tuple(_finding_of(entry) for entry in given["findings"]),
            more=int(given.get("more", 0)),
            database=Database(**given["database"]),
            digest=str(given.get("digest", "")),
            message=str(given["message"]),
            refusing=int(given.get("refusing", 0)),
            ignored=int(given.get("ignored", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def normalised(matches: Iterable[Any]) -> tuple[Finding, ...]:
    """Grype's ``matches`` as findings: each once, worst first.

    The same package may lie in several places of an image, and the same vulnerability be told by several sources.
    """
    unique: dict[tuple[str, str, str, str], Finding] = {}
    for finding in map(_finding_of_match, matches):
        key = (finding.id, finding.package, finding.version, finding.type)
        if key not in unique or RANK[finding.severity] < RANK[unique[key].severity]:
            unique[key] = finding
    return tuple(sorted(unique.values(), key=_order))


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each severity that occurs, worst first."""
    counts = Counter(finding.severity for finding in findings)
    return {str(severity): counts[severity] for severity in Severity if counts[severity]}


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


def database_of(status: Any, now: float) -> Database:
    """What Grype says of its database (``descriptor.db.status``).

    Args:
        status: As Grype writes it.
        now: Seconds since the epoch.
    """
    given = status if isinstance(status, dict) else {}
    built = _text(given.get("built"))
    try:
        moment = datetime.fromisoformat(built)
    except ValueError:
        return Database(built=built, version=_text(given.get("schemaVersion")))
    # A time without a zone would be read in this machine's; Grype writes UTC, and no zone is no age.
    age = round((now - moment.timestamp()) / 3600, 3) if moment.tzinfo else None
    return Database(built=built, age_hours=age, version=_text(given.get("schemaVersion")))


def _json_of(verdict: Verdict) -> dict[str, object]:
    given = dataclasses.asdict(verdict)
    return {"verdict": given.pop("outcome"), **given}


def _finding_of(given: dict[str, Any]) -> Finding:
    texts = {name: _text(given.get(name)) for name in ("id", "package", "version", "type", "fixed", "fix_state")}
    return Finding(
        **texts,
        severity=_severity(given.get("severity")),
        url=_url(given.get("url")),
        aliases=tuple(map(_text, given.get("aliases", ())))[:_MAX_ALIASES],
        refuses=given.get("refuses") is True,
        ignored=_text(given.get("ignored"), _MAX_REASON),
    )


def _finding_of_match(match: Any) -> Finding:
    vulnerability, artifact = _part(match, "vulnerability"), _part(match, "artifact")
    fix = _part(vulnerability, "fix")
    versions = fix.get("versions") or [""]
    return Finding(
        id=_text(vulnerability.get("id")),
        severity=_severity(vulnerability.get("severity")),
        package=_text(artifact.get("name")),
        version=_text(artifact.get("version")),
        type=_text(artifact.get("type")),
        fixed=_text(versions[0]),
        fix_state=_text(fix.get("state")) or "unknown",
        url=_url(vulnerability.get("dataSource")),
        aliases=_aliases(match),
    )


def _aliases(match: Any) -> tuple[str, ...]:
    given = match.get("relatedVulnerabilities") if isinstance(match, dict) else None
    found = (_text(each.get("id")) for each in given or () if isinstance(each, dict))
    own = _text(_part(match, "vulnerability").get("id"))
    return tuple(dict.fromkeys(name for name in found if name and name != own))[:_MAX_ALIASES]


def _refusal(refusing: list[Finding]) -> str:
    told = [
        f"{finding.id} in {finding.package} {finding.version}{f' (mended in {finding.fixed})' if finding.fixed else ''}"
        for finding in refusing[:_TOLD]
    ]
    more = f" and {len(refusing) - _TOLD} more" if len(refusing) > _TOLD else ""
    return f"The rules of this service refuse this image for known vulnerabilities: {', '.join(told)}{more}."


def _part(given: Any, name: str) -> dict[str, Any]:
    part = given.get(name) if isinstance(given, dict) else None
    return part if isinstance(part, dict) else {}


def _severity(given: object) -> Severity:
    text = str(given).lower()
    return Severity(text) if text in set(Severity) else Severity.UNKNOWN


def _text(given: object, limit: int = _MAX_TEXT) -> str:
    text = "" if given is None else str(given)
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


def _url(given: object) -> str:
    text = _text(given)
    # It becomes a link on a page: no other scheme, and none that was cut.
    return text if text.startswith(("https://", "http://")) and len(text) < _MAX_TEXT else ""


def _order(finding: Finding) -> tuple[int, bool, str, str, str]:
    # Among equals, those that somebody can do something about come first.
    return RANK[finding.severity], not finding.fixed, finding.package, finding.id, finding.version
