"""resolve: from a spec to the commit that it stands for, and whether there is anything to build, where nobody asked.

Web knows all this before it submits a build. A Workflow that stands on its own (submitted by hand, or by a schedule)
begins here: its further steps take their arguments from what this one leaves.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Literal

from workflows import providers
from workflows.build import BuildRequest, Lane
from workflows.image import ImageDigest
from workflows.pipeline import RESOLVE, Standing
from workflows.settings import Settings
from workflows.stores.catalogue import catalogue_of
from workflows.stores.files import write_whole
from workflows.stores.images import image_store


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the Workflow, which is the build's")
    parser.add_argument("--provider", required=True, help="prefix of the repository's provider")
    parser.add_argument("--spec", required=True, help="the repository and its ref, as in the URL")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Ask the host, the catalogue and the image store; each output becomes a file in ``<workspace>/outputs``.

    The last line printed is the repository at its commit, as JSON.

    Raises:
        SpecError: There is no such provider, or the spec cannot be read.
        NotFoundError: The repository or the ref does not exist, or is private.
        ConfigError: The registry refuses our credentials.
        TransientError: Host, catalogue or image store does not answer, has a fault or a rate limit.
    """
    provider = providers.find(providers.create(settings), options.provider)
    parts = provider.parse(options.spec)
    print(f"Resolving {parts.ref} of {parts.repo_url} …", flush=True)
    repository = provider.resolve(options.spec)
    request = BuildRequest.of(repository, settings.image_prefix, named=options.build, lane=Lane.PREBUILD)
    standing, held = _look(request, settings)
    print(f"{request.image} is {standing}.", flush=True)
    request = dataclasses.replace(request, held=held)
    outputs = request.parameters() | {"standing": standing.value, "request": request.to_json()}
    for name in RESOLVE.outputs:
        write_whole(settings.workspace / "outputs" / name, outputs[name], durable=False)
    print(json.dumps(dataclasses.asdict(repository)), flush=True)


def _look(request: BuildRequest, settings: Settings) -> tuple[Standing, ImageDigest | Literal[""]]:
    found = image_store(settings).digest(request.image)
    if found is None:
        return Standing.ABSENT, ""
    if catalogue_of(settings).get(request.image, found) is not None:
        return Standing.KNOWN, ""
    return Standing.HELD, found
