"""attach: the SBOM becomes a referrer of the image in the registry, so that whoever has the digest finds it.

A step of its own, because it needs what push and scan leave, in whatever order they ran; and because scan, which reads
strangers' files, is to hold no credentials that write.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workflows.errors import InternalError
from workflows.image import BuildName, ImageDigest, ImageName, is_digest, split_tag
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build, for the log")
    parser.add_argument("--image", required=True, help="name and tag of the image")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Attach ``<workspace>/sbom.cdx.json`` to the image that `push` pushed.

    Raises:
        InternalError: `push` or `scan` left nothing here, or each something of another image.
        ConfigError: The registry refuses our credentials.
        TransientError: It cannot be reached or fails.
    """
    build, image, workspace = BuildName(options.build), ImageName(options.image), settings.workspace
    digest = str(_read(workspace / "pushed.json").get("digest"))
    scanned = _read(workspace / "findings.json").get("digest")
    if not is_digest(digest) or scanned != digest:
        raise InternalError(detail=f"{build}: pushed {digest} and scanned {scanned}")
    sbom = workspace / "sbom.cdx.json"
    metadata = _read(sbom).get("metadata")
    created = str(metadata.get("timestamp", "")) if isinstance(metadata, dict) else ""
    name = split_tag(image)[0]
    referrers = Referrers(Connection(settings))
    artifact = referrers.attach(name, ImageDigest(digest), sbom.read_bytes(), created=created)
    print(f"attached the SBOM to {name}@{digest} as {artifact}", flush=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InternalError(detail=f"there is nothing in {path}: {error}") from error
    return given if isinstance(given, dict) else {}
