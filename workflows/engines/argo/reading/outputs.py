"""What our half of a build left behind, from its log and from the registry: the files are gone with its pod."""

from __future__ import annotations

import json

from workflows.build import BuildStatus
from workflows.engines.argo.reading.log import Log
from workflows.errors import SKIPPED, ConfigError
from workflows.image import ImageDigest, is_digest, split_tag
from workflows.pipeline import PUSH, SCAN
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.scan.verdict import parse_verdict
from workflows.settings import Settings

_LAST_LINES = 20
"""Behind the line that is looked for come a sentence for the visitor and a few lines of Argo's."""


def outputs(status: BuildStatus, log: Log, settings: Settings) -> dict[str, bytes]:
    """``pushed.json`` and ``findings.json`` as `push` and `scan` said them last, ``sbom.cdx.json`` as it is attached.

    Raises:
        TransientError: Kubernetes or the registry does not answer.
    """
    ended = {step.name for step in status.steps if step.exit_code not in {None, SKIPPED}}
    found: dict[str, bytes] = {}
    if SCAN.name in ended and (verdict := _last(status, log, SCAN.name)) and parse_verdict(verdict):
        found["findings.json"] = verdict.encode()
    if PUSH.name not in ended or not (pushed := _last(status, log, PUSH.name)):
        return found
    found["pushed.json"] = pushed.encode()
    if "findings.json" in found and (sbom := _sbom(status, pushed, settings)):
        found["sbom.cdx.json"] = sbom
    return found


def _last(status: BuildStatus, log: Log, step: str) -> str:
    """The last line of a step of our half that begins as JSON does."""
    lines = log.tail(status.name, step, _LAST_LINES)
    return next((line for line in reversed(lines) if line.startswith("{")), "")


def _sbom(status: BuildStatus, pushed: str, settings: Settings) -> bytes | None:
    try:
        digest = str(json.loads(pushed)["digest"])
    except (ValueError, KeyError, TypeError):
        return None
    if not is_digest(digest):
        return None
    try:
        return Referrers(Connection(settings)).find(split_tag(status.request.image)[0], ImageDigest(digest))
    except ConfigError:
        # A web that may not read the registry files everything else all the same.
        return None
