"""What a scan found: findings as values, from what Grype says and from what we wrote of it.

Source: the JSON of Grype 0.110 (``grype -o json``), https://github.com/anchore/grype.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_MAX_TEXT = 200
"""Characters of any one text: names and versions come from the image, which is to say from anybody."""
_MAX_ALIASES = 5
_MAX_REASON = 600


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NEGLIGIBLE = "negligible"
    UNKNOWN = "unknown"


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


def finding_of(given: dict[str, Any]) -> Finding:
    """A finding as it was once written (`dataclasses.asdict`); what does not belong there is left out.

    Raises:
        AttributeError: It is no JSON object.
    """
    texts = {name: text(given.get(name)) for name in ("id", "package", "version", "type", "fixed", "fix_state")}
    return Finding(
        **texts,
        severity=_severity(given.get("severity")),
        url=_url(given.get("url")),
        aliases=tuple(map(text, given.get("aliases", ())))[:_MAX_ALIASES],
        refuses=given.get("refuses") is True,
        ignored=text(given.get("ignored"), _MAX_REASON),
    )


def text(given: object, limit: int = _MAX_TEXT) -> str:
    """What an image or Grype says, as it may be shown: one line, of at most `limit` characters."""
    said = "" if given is None else str(given)
    return "".join(character if character.isprintable() else "?" for character in said[:limit])


def _finding_of_match(match: Any) -> Finding:
    vulnerability, artifact = _part(match, "vulnerability"), _part(match, "artifact")
    fix = _part(vulnerability, "fix")
    versions = fix.get("versions") or [""]
    return Finding(
        id=text(vulnerability.get("id")),
        severity=_severity(vulnerability.get("severity")),
        package=text(artifact.get("name")),
        version=text(artifact.get("version")),
        type=text(artifact.get("type")),
        fixed=text(versions[0]),
        fix_state=text(fix.get("state")) or "unknown",
        url=_url(vulnerability.get("dataSource")),
        aliases=_aliases(match),
    )


def _aliases(match: Any) -> tuple[str, ...]:
    given = match.get("relatedVulnerabilities") if isinstance(match, dict) else None
    found = (text(each.get("id")) for each in given or () if isinstance(each, dict))
    own = text(_part(match, "vulnerability").get("id"))
    return tuple(dict.fromkeys(name for name in found if name and name != own))[:_MAX_ALIASES]


def _part(given: Any, name: str) -> dict[str, Any]:
    part = given.get(name) if isinstance(given, dict) else None
    return part if isinstance(part, dict) else {}


def _severity(given: object) -> Severity:
    name = str(given).lower()
    return Severity(name) if name in set(Severity) else Severity.UNKNOWN


def _url(given: object) -> str:
    address = text(given)
    # It becomes a link on a page: no other scheme, and none that was cut.
    return address if address.startswith(("https://", "http://")) and len(address) < _MAX_TEXT else ""


def _order(finding: Finding) -> tuple[int, bool, str, str, str]:
    # Among equals, those that somebody can do something about come first.
    return RANK[finding.severity], not finding.fixed, finding.package, finding.id, finding.version
