"""The rules of policy ``enforce``: which findings refuse an image.

The file of findings that are ignored is an operator's word, with a reason and an end for each:

    [[ignore]]
    id = "CVE-2018-18074"
    package = "requests"          # may be left out: in every package
    reason = "No notebook of ours sends credentials anywhere."
    expires = 2027-01-31          # the last day on which it is ignored, in UTC
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from workflows.errors import ConfigError
from workflows.scan.findings import RANK, Finding, Severity
from workflows.settings import Settings

_MAX_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """One finding that refuses no image.

    Args:
        id: Of the vulnerability, or one of its other names.
        reason: Why, for whoever reads the verdict.
        expires: The last day, in UTC.
        package: The one package that is meant; empty: every one.
    """

    id: str
    reason: str
    expires: date
    package: str = ""

    def fits(self, finding: Finding) -> bool:
        """Whether `finding` is meant, whatever the day."""
        is_named = self.id.casefold() in {name.casefold() for name in (finding.id, *finding.aliases)}
        return is_named and (not self.package or _normal(self.package) == _normal(finding.package))

    def __str__(self) -> str:
        return f"{self.id}{f' in {self.package}' if self.package else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What refuses an image.

    Args:
        severity: The least one that does.
        only_fixable: Whether only what a newer version mends does.
        ignores: What does not, although it would.
    """

    severity: Severity = Severity.HIGH
    only_fixable: bool = True
    ignores: tuple[Ignore, ...] = ()

    def decide(self, finding: Finding, today: date) -> Finding:
        """`finding` with what the rules say of it."""
        if RANK[finding.severity] > RANK[self.severity] or (self.only_fixable and not finding.fixed):
            return finding
        ignore = next((each for each in self.ignores if each.fits(finding) and today <= each.expires), None)
        if ignore is None:
            return dataclasses.replace(finding, refuses=True)
        return dataclasses.replace(finding, ignored=f"{ignore.reason} (until {ignore.expires})")

    def expired(self, findings: Sequence[Finding], today: date) -> tuple[Ignore, ...]:
        """Entries that would have kept one of `findings` from refusing, and whose last day is over."""
        refusing = [finding for finding in findings if finding.refuses]
        return tuple(each for each in self.ignores if today > each.expires and any(map(each.fits, refusing)))


def rules_of(settings: Settings) -> Rules:
    """The rules that the settings ``scan_…`` say.

    Raises:
        ConfigError: The file of ignored findings is wrong; all of its faults are listed.
    """
    file = settings.scan_ignore_file
    return Rules(
        severity=Severity(settings.scan_severity),
        only_fixable=settings.scan_only_fixable,
        ignores=read_ignores(file) if file else (),
    )


def read_ignores(path: Path) -> tuple[Ignore, ...]:
    """The entries of a file of ignored findings.

    Raises:
        ConfigError: It cannot be read or holds anything but entries; the detail lists every fault.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(detail=f"ignore file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(detail=f"ignore file {path}: {error}") from error
    entries = given.pop("ignore", [])
    faults = [f"{name}: no such table" for name in given]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        faults.append("ignore: not an array of tables, write [[ignore]]")
        entries = []
    for number, entry in enumerate(entries, start=1):
        faults += [f"entry {number}: {fault}" for fault in _faults(entry)]
    if faults:
        raise ConfigError(detail=f"ignore file {path}: {'; '.join(faults)}")
    return tuple(Ignore(**entry) for entry in entries)


def today() -> date:
    """The day, in UTC."""
    return datetime.now(UTC).date()


def _faults(entry: dict[str, Any]) -> list[str]:
    faults = [f"{name}: no such key" for name in entry if name not in {"id", "package", "reason", "expires"}]
    for name in ("id", "reason", "package"):
        value = entry.get(name)
        if name == "package" and value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            faults.append(f"{name}: missing" if value is None else f"{name}: not a text")
        elif len(value) > _MAX_REASON or not value.isprintable():
            faults.append(f"{name}: more than one line of {_MAX_REASON} characters")
    expires = entry.get("expires")
    # A moment is a day, too, for Python.
    if not isinstance(expires, date) or isinstance(expires, datetime):
        faults.append("expires: missing" if expires is None else "expires: not a day, write 2027-01-31 without quotes")
    return faults


def _normal(package: str) -> str:
    # Python's rule, which does no harm to the others'.
    return re.sub(r"[-_.]+", "-", package).casefold()
