"""Findings and verdicts: normalised, ordered, bounded, and read back."""

from __future__ import annotations

import json

import pytest

from workflows.scan.findings import Finding, Severity, counted, normalised
from workflows.scan.verdict import Database, Outcome, database_of, judged, no_database, parse_verdict

FRESH = Database(built="2026-11-23T00:00:00Z", age_hours=1.0, version="v6")


def match(identity: str, severity: str = "High", package: str = "requests", fixed: str = "2.20.0") -> dict[str, object]:
    return {
        "vulnerability": {
            "id": identity,
            "severity": severity,
            "dataSource": "https://example.org/" + identity,
            "fix": {"versions": [fixed] if fixed else [], "state": "fixed" if fixed else "not-fixed"},
        },
        "artifact": {"name": package, "version": "2.19.0", "type": "python"},
    }


def test_a_match_becomes_a_finding() -> None:
    assert normalised([match("CVE-1")]) == (
        Finding(
            id="CVE-1",
            severity=Severity.HIGH,
            package="requests",
            version="2.19.0",
            type="python",
            fixed="2.20.0",
            fix_state="fixed",
            url="https://example.org/CVE-1",
        ),
    )


def test_the_worst_come_first_and_among_equals_those_with_a_fix() -> None:
    found = normalised(
        [
            match("CVE-low", "Low"),
            match("CVE-b", "Critical", fixed=""),
            match("CVE-?", "Odd"),
            match("CVE-a", "Critical"),
        ]
    )
    assert [finding.id for finding in found] == ["CVE-a", "CVE-b", "CVE-low", "CVE-?"]
    assert counted(found) == {"critical": 2, "low": 1, "unknown": 1}


def test_one_vulnerability_of_one_package_is_one_finding_with_the_worst_severity() -> None:
    found = normalised([match("CVE-1", "Low"), match("CVE-1", "High"), match("CVE-1", "Medium")])
    assert [finding.severity for finding in found] == [Severity.HIGH]


@pytest.mark.parametrize(
    "garbage", [None, [], {}, {"vulnerability": 5, "artifact": None}, {"vulnerability": {"fix": []}}]
)
def test_a_match_without_its_parts_is_still_a_finding(garbage: object) -> None:
    (finding,) = normalised([garbage])
    assert finding.severity is Severity.UNKNOWN


def test_text_from_the_image_is_bounded_and_printable_and_links_are_links() -> None:
    given = match("CVE-1", package="a\x1b[31m\n" + "b" * 1000)
    given["vulnerability"]["dataSource"] = "javascript:alert(1)"  # type: ignore[index]
    (finding,) = normalised([given])
    assert len(finding.package) == 200
    assert finding.package.isprintable()
    assert finding.url == ""


def test_nothing_found_by_a_fresh_database_passes() -> None:
    verdict = judged((), FRESH, digest="sha256:x", max_age_hours=120)
    assert verdict.outcome is Outcome.PASS
    assert verdict.counts == {}


@pytest.mark.parametrize("age", [121.0, None])
def test_nothing_found_by_a_stale_database_does_not_pass(age: float | None) -> None:
    verdict = judged((), Database(age_hours=age), digest="", max_age_hours=120)
    assert verdict.outcome is Outcome.STALE_DATABASE
    assert "database" in verdict.message


def test_no_database_is_said_and_is_no_pass() -> None:
    verdict = no_database("sha256:x")
    assert verdict.outcome is Outcome.NO_DATABASE
    assert "not checked" in verdict.message


@pytest.mark.parametrize("status", [None, {}, {"built": "yesterday"}, {"built": "2026-11-23T00:00:00"}])
def test_a_database_that_does_not_say_when_it_was_built_has_no_age(status: object) -> None:
    assert database_of(status, 0).age_hours is None


def test_the_age_of_a_database_is_in_hours() -> None:
    assert database_of({"built": "1970-01-01T00:00:00Z"}, 7200).age_hours == 2.0


def test_a_verdict_is_read_back_from_its_line_and_from_its_file() -> None:
    verdict = judged(normalised([match("CVE-1")]), FRESH, digest="sha256:x", max_age_hours=120)
    assert parse_verdict(verdict.to_line()) == verdict
    assert parse_verdict(verdict.to_json()) == verdict
    assert "\n" not in verdict.to_line()


@pytest.mark.parametrize("length", [1, 150])
def test_a_line_stays_bounded_and_counts_what_it_leaves_out(length: int) -> None:
    found = normalised([match(f"CVE-{number}", package="ä" * length) for number in range(5000)])
    verdict = judged(found, FRESH, digest="sha256:x", max_age_hours=120)
    line = verdict.to_line()
    assert len(line) <= 32 * 1024
    read = parse_verdict(line)
    assert read is not None
    assert read.total == 5000
    assert read.more + len(read.findings) == 5000
    assert read.findings == verdict.findings[: len(read.findings)]
    assert len(json.loads(verdict.to_json())["findings"]) == 5000


@pytest.mark.parametrize(
    "line", ["", "scanning", "{", "{}", "[]", '{"verdict": "fine"}', '{"verdict": "pass", "counts": []}', "{" * 10_000]
)
def test_any_other_line_is_no_verdict(line: str) -> None:
    assert parse_verdict(line) is None
