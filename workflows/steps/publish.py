"""publish: lets the Hub start the image, by an entry in the catalogue."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from pathlib import Path

from workflows.errors import InternalError
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName
from workflows.settings import Settings
from workflows.stores.catalogue import Entry, catalogue_of

_UNKNOWN = "unknown"
"""What made an image that was there before: another farm, or a build that was cut off. The sweep renews it first."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build that made the image")
    parser.add_argument("--provider", required=True, help="prefix of the repository's provider")
    parser.add_argument("--spec", required=True, help="what was asked for")
    parser.add_argument("--commit", required=True, help="the resolved ref")
    parser.add_argument("--repo-url", required=True, help="canonical address of the repository")
    parser.add_argument("--image", required=True, help="name and tag of the image")
    parser.add_argument("--held", default="", help="digest, where the image was there before this build")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Add the image to the catalogue, with the digest that `push` found.

    Everything else comes from the build's own arguments: nothing that the strangers' half wrote is believed.

    Raises:
        InternalError: `push` has not run here, or pushed another image.
        TransientError: The disk does not take it.
    """
    image = ImageName(options.image)
    entry = Entry(
        image=image,
        digest=_pushed(settings.workspace / "pushed.json", image),
        provider=options.provider,
        spec=options.spec,
        repo_url=options.repo_url,
        commit=CommitSHA(options.commit),
        builder=_UNKNOWN if options.held else _builder(),
        published=time.time(),
        build=BuildName(options.build),
    )
    catalogue_of(settings).add(entry)
    print(f"published {entry.image}@{entry.digest}", flush=True)


def _pushed(path: Path, image: ImageName) -> ImageDigest:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["image"] == image:
            return ImageDigest(given["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InternalError(detail=f"push left nothing in {path}") from error
    raise InternalError(detail=f"push pushed {given['image']!r} and not {image!r}")


def _builder() -> str:
    version = importlib.metadata.version
    return f"argosy {version('argosy')}, repo2docker {version('jupyter-repo2docker')}"
