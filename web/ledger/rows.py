"""From values to rows and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from web.ledger.records import BuildRecord, FindingRecord, LaunchRecord
from workflows.build import BuildRequest, BuildStatus, Lane, State, StepStatus
from workflows.errors import Reason
from workflows.image import with_attempt

_SAME = ("provider", "spec", "ref", "commit", "repo_url", "image", "owner", "network", "attempt")
"""Columns that hold the request's field of the same name."""

_TOLD = ("message", "created", "started", "ended", "published")
"""Columns that hold the status's field of the same name."""


def row_of_status(status: BuildStatus) -> dict[str, Any]:
    """The columns that an engine's word settles."""
    request = status.request
    return (
        {name: clean(getattr(request, name)) for name in _SAME}
        | {name: clean(getattr(status, name)) for name in _TOLD}
        | {
            "name": status.name,
            "first": with_attempt(status.name, 1),
            "lane": request.lane.value,
            "request": clean(request.to_json()),
            "state": status.state.value,
            "reason": status.reason.value if status.reason else "",
            "steps": [dataclasses.asdict(step) for step in status.steps],
        }
    )


def build_of_row(row: Mapping[str, Any]) -> BuildRecord:
    """The attempt in a row of `builds`."""
    return BuildRecord(
        **{field: row[field] for field in BuildRecord.__dataclass_fields__ if field not in _CONVERTED},
        lane=Lane(row["lane"]),
        request=BuildRequest.from_json(row["request"]),
        state=State(row["state"]),
        reason=Reason(row["reason"]) if row["reason"] else None,
        steps=tuple(StepStatus(**step) for step in row["steps"]),
        counts=MappingProxyType(dict(row["counts"])),
    )


_CONVERTED = frozenset({"lane", "request", "state", "reason", "steps", "counts"})


def row_of_launch(launch: LaunchRecord) -> dict[str, Any]:
    """The columns of one launch."""
    row = {name: clean(value) for name, value in dataclasses.asdict(launch).items()}
    return row | {"reason": launch.reason.value if launch.reason else ""}


def launch_of_row(row: Mapping[str, Any]) -> LaunchRecord:
    """The launch in a row of `launches`."""
    values = {field: row[field] for field in LaunchRecord.__dataclass_fields__}
    return LaunchRecord(**values | {"reason": Reason(row["reason"]) if row["reason"] else None})


def row_of_finding(build: str, finding: FindingRecord) -> dict[str, Any]:
    """The columns of one finding."""
    row = {name: clean(value) for name, value in dataclasses.asdict(finding).items()}
    return row | {"build": build, "vulnerability": finding.vulnerability[:128], "severity": finding.severity[:32]}


def finding_of_row(row: Mapping[str, Any]) -> FindingRecord:
    """The finding in a row of `findings`."""
    return FindingRecord(**{field: row[field] for field in FindingRecord.__dataclass_fields__})


def clean(value: Any) -> Any:
    """`value` as both databases can hold it: PostgreSQL refuses NUL in text, and no driver encodes a lone surrogate."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
