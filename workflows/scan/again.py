"""Scans an image that is published already, outside of any build: on this machine, giving way to everything else."""

from __future__ import annotations

import sys
from pathlib import Path

from workflows.cleaning.tool import delete, spawn
from workflows.engines.attempt.environment import step_environment
from workflows.errors import TransientError, of_disk
from workflows.image import BuildName, ImageDigest, ImageName
from workflows.pipeline import RUNNER, SCAN
from workflows.settings import Settings

_OUTPUTS = ("sbom.cdx.json", "findings.json")
_TOLD = 2000
"""Characters of a failure's output that its detail holds."""


def scan_again(settings: Settings, build: BuildName, image: ImageName, digest: ImageDigest) -> dict[str, bytes]:
    """Run the step `scan` on an image that its store holds. Blocks; any native thread may call.

    The step ends with this process, as its runner sees that nobody is its parent any more.

    Args:
        settings: The farm's.
        build: After which the image is scanned.
        image: Name and tag.
        digest: What they stand for.

    Returns:
        What the step left: ``sbom.cdx.json`` and ``findings.json``.

    Raises:
        TransientError: It failed, or no process can be started now.
    """
    workspace = settings.state / "scans" / build
    delete([workspace])
    try:
        (workspace / "tmp").mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise of_disk(error, f"cannot make {workspace}") from error
    command = SCAN.command({"build": build, "image": image, "held": digest})
    environment = step_environment(SCAN, workspace, settings)
    try:
        said = spawn(["nice", "-n", "10", sys.executable, *RUNNER[1:], *command], environment)
        outputs = {name: _read(workspace / name) for name in _OUTPUTS}
    finally:
        delete([workspace])
    if not all(outputs.values()):
        raise TransientError(detail=f"{image} cannot be scanned: {said[-_TOLD:]}")
    return outputs


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
