"""warm: keeps the wheels that an image needed, so that the next build finds them on this machine."""

from __future__ import annotations

import argparse

from workflows.builder.wheels import Wheels, packages_of, python_of
from workflows.settings import Settings

_MAX_SBOM_BYTES = 64 * 1024 * 1024


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build, for the log")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Download the wheels that ``<workspace>/sbom.cdx.json`` names; whatever goes wrong, only speed is lost."""
    sbom = settings.workspace / "sbom.cdx.json"
    if not sbom.exists() or sbom.stat().st_size > _MAX_SBOM_BYTES:
        print(f"{options.build} has no list of packages: nothing to keep.", flush=True)
        return
    content = sbom.read_bytes()
    packages = packages_of(content)
    kept = Wheels(settings).add(packages, python_of(content))
    print(f"Kept wheels of {kept} of {len(packages)} Python packages.", flush=True)
