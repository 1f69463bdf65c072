"""``python -m workflows.engines.argo.retire``: removes pipelines that upgrades have left behind. The chart's hook.

A pipeline is a WorkflowTemplate and the ConfigMaps that it reads, all under a name that is their content's. An upgrade
leaves the one before it where it is, because builds that run, and replicas of web that still do, refer to it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping

from workflows.cluster.connection import Cluster, Json
from workflows.engines.argo.site import TEMPLATE
from workflows.errors import ArgosyError
from workflows.settings import Settings, load

_logger = logging.getLogger(__name__)

GENERATION = "argosy/generation"
"""Label of everything that belongs to one pipeline; its value is the pipeline's name."""

REVISION = "argosy/revision"
"""Annotation of the same: the last revision of the release that it was part of. A step back makes an old one new."""

_PIPELINE = re.compile(rf"\b{TEMPLATE}-[0-9a-f]{{10}}\b")
_NOT_ENDED = "workflows.argoproj.io/completed!=true"


def main() -> int:
    """Removes what nobody needs.

    Returns:
        The exit code: 75 where the API server does not answer, 78 where it does not let us.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        retire(Cluster(), load())
    except ArgosyError as error:
        print(f"{error} {error.detail}".strip(), file=sys.stderr)  # noqa: T201  # for the person who reads the Job's log
        return error.exit_code
    return 0


def retire(cluster: Cluster, settings: Settings) -> None:
    """Remove all pipelines but the current one, the one before it, and those that a build still refers to.

    Args:
        cluster: Kubernetes.
        settings: The farm's; they name the current one.

    Raises:
        TransientError: The API server does not answer.
        ConfigError: It does not let us.
    """
    argo = f"/apis/argoproj.io/v1alpha1/namespaces/{settings.builds_namespace}"
    # The template first: what has none begins nothing that could miss the rest.
    kinds = (f"{argo}/workflowtemplates", f"/api/v1/namespaces/{settings.builds_namespace}/configmaps")
    parts = [(kind, each["metadata"]) for kind in kinds for each in cluster.listed(kind, GENERATION)[0]]
    revisions: dict[str, int] = {}
    for _, part in parts:
        name = part["labels"][GENERATION]
        revisions[name] = max(revisions.get(name, 0), _revision(part))
    used = referred_to(cluster.listed(f"{argo}/workflows", _NOT_ENDED)[0])
    surplus = retired(revisions, settings.workflow_template, used)
    for kind, part in parts:
        if part["labels"][GENERATION] in surplus:
            cluster.delete(f"{kind}/{part['name']}")
            _logger.info("removed %s/%s", kind.rpartition("/")[2], part["name"])


def retired(revisions: Mapping[str, int], current: str, used: Iterable[str]) -> set[str]:
    """The pipelines that nobody needs any more.

    Args:
        revisions: The last revision of the release that each was part of.
        current: What new builds refer to.
        used: What builds that have not ended refer to.
    """
    others = sorted((name for name in revisions if name != current), key=lambda name: revisions[name])
    return set(others[:-1]) - {*used}


def referred_to(workflows: Iterable[Json]) -> set[str]:
    """The pipelines whose names stand anywhere in Workflows, also in what Argo has stored of their templates."""
    return {name for workflow in workflows for name in _PIPELINE.findall(json.dumps(workflow))}


def _revision(part: Json) -> int:
    text = str(part.get("annotations", {}).get(REVISION, ""))
    return int(text) if text.isdecimal() else 0


if __name__ == "__main__":
    sys.exit(main())
