"""What the ledger is told and what it answers: values, never rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from workflows.build import BuildRequest, Lane, State, StepStatus
from workflows.errors import Reason
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """One attempt, as the ledger remembers it.

    Args:
        name: The attempt's name.
        first: Name of the build's first attempt: the same for every attempt.
        attempt: From 1.
        provider: The provider's prefix.
        spec: What was asked for.
        ref: The ref that was resolved.
        commit: The resolved ref.
        repo_url: Canonical address, for people.
        image: Name and tag.
        digest: The published image's; empty before, and where it never was published.
        owner: Whose repository it is.
        lane: Who waited for whom.
        network: Client network of the first requester; empty where there was none.
        request: What was asked for, whole, so that it can be asked for again.
        state: Where it stands.
        reason: Why it failed; None unless it did.
        message: One sentence for the visitor.
        created: Seconds since the epoch.
        started: Seconds since the epoch; 0 before it left the queue.
        published: Seconds since the epoch at which the image became launchable; 0 before.
        ended: Seconds since the epoch; 0 before it ended.
        recorded: Seconds since the epoch at which log, SBOM and findings were filed; 0 before.
        steps: In pipeline order.
        verdict: The scan's; empty before and without one.
        counts: Findings by severity.
    """

    name: BuildName
    first: BuildName
    attempt: int
    provider: str
    spec: str
    ref: str
    commit: CommitSHA
    repo_url: str
    image: ImageName
    digest: ImageDigest | Literal[""]
    owner: str
    lane: Lane
    network: str
    request: BuildRequest
    state: State
    reason: Reason | None
    message: str
    created: float
    started: float
    published: float
    ended: float
    recorded: float
    steps: tuple[StepStatus, ...]
    verdict: str
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRecord:
    """One known vulnerability of one package in an image.

    Args:
        vulnerability: As ``CVE-2026-1234`` or ``GHSA-...``.
        severity: In lower case, as the scanner says it.
        package: The package's name.
        version: The version that is in the image.
        fixed: The version that mends it; empty where there is none.
        url: Where it is described; empty where nowhere.
    """

    vulnerability: str
    severity: str
    package: str
    version: str
    fixed: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """How one launch went. It holds no user name, no token and no address.

    Args:
        image: Name and tag.
        build: The attempt that the visitor followed; empty where the image was known.
        provider: The provider's prefix.
        spec: What was asked for.
        repo_url: Canonical address, for people.
        outcome: ``ready`` or ``failed``.
        reason: Why it failed; None unless it did.
        attempts: Servers that were tried, from 1; 0 where none was.
        created: Seconds since the epoch at which launching began.
        ready_seconds: From there to the end, well or not.
    """

    image: ImageName
    provider: str
    spec: str
    repo_url: str
    outcome: Literal["ready", "failed"]
    created: float
    ready_seconds: float
    build: str = ""
    reason: Reason | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A part of the ledger that may be forgotten as a whole.

    Args:
        build: The attempt; None: the launches of one day.
        at: Seconds since the epoch; of a day its end.
        rows: How many there are.
        is_open: Whether its end is not filed yet.
    """

    build: BuildName | None
    at: float
    rows: int
    is_open: bool
