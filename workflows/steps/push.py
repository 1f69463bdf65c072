"""push: copies the staged image to its final name and makes sure that it has arrived."""

from __future__ import annotations

import argparse
import json

from workflows.errors import InternalError, TransientError
from workflows.image import BuildName, ImageDigest, ImageName, split_tag
from workflows.registry.store import RegistryStore
from workflows.scan.verdict import Outcome, parse_verdict
from workflows.settings import Settings
from workflows.stores.files import write_whole
from workflows.stores.images import image_store
from workflows.stores.skopeo import Skopeo
from workflows.stores.staging import StagedImage, Staging


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build, after which the staging place is named")
    parser.add_argument("--image", required=True, help="name and tag that the image is to have, or has")
    parser.add_argument("--held", default="", help="digest, where that image is there already and nothing is staged")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Push, and tell ``<workspace>/pushed.json`` and the last line of the log what is there now.

    (1) The staged image is looked up once; from then on its digest is all that counts.
    (2) Under policy ``enforce`` that is the digest which `scan` let pass, and no other: whoever may write to the
        staging place could have put another image there since.
    (3) It is copied with its manifest as it is; one that is held has its name already.
    (4) What the final name now stands for is asked of the store itself and compared.

    Raises:
        BuildError: There is no usable image in the staging place.
        TooLargeError: It is larger than the setting ``max_image_bytes``.
        ConfigError: The registry refuses our credentials.
        TransientError: Network, registry or disk; or somebody else pushed the same name at the same time.
        InternalError: Under ``enforce``: `scan` let nothing pass here, or something else.
    """
    image = ImageName(options.image)
    staged = _source(options, settings)  # (1)
    if settings.scan_policy == "enforce":
        _check(settings, staged.digest)  # (2)
    if not options.held:
        _copy(staged, image, settings)  # (3)
    found = _found(settings, image)  # (4)
    if found != staged.digest:
        raise TransientError(detail=f"{image} should be {staged.digest} and is {found}")
    pushed = json.dumps({"image": image, "digest": found})
    write_whole(settings.workspace / "pushed.json", pushed + "\n")
    _say(pushed)


def _source(options: argparse.Namespace, settings: Settings) -> StagedImage:
    staging = Staging(settings)
    if options.held:
        return staging.held(ImageName(options.image), ImageDigest(options.held))
    return staging.open(BuildName(options.build))


def _copy(staged: StagedImage, image: ImageName, settings: Settings) -> None:
    name, tag = split_tag(image)
    transport = "containers-storage:"
    if staged.manifest is not None:
        transport = "docker://"
        RegistryStore(settings).mount(staged.name, staged.manifest.blobs, name)
    Skopeo(settings).copy(staged.skopeo, f"{transport}{name}:{tag}", _say)


def _found(settings: Settings, image: ImageName) -> ImageDigest | None:
    if settings.image_store == "storage":
        return image_store(settings).digest(image)
    # Computed from what it gives: what a registry merely says of itself is no check of it.
    manifest = RegistryStore(settings).manifest(*split_tag(image))
    return manifest.digest if manifest else None


def _check(settings: Settings, digest: ImageDigest) -> None:
    try:
        verdict = parse_verdict((settings.workspace / "findings.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InternalError(detail=f"there was no scan: {error}") from error
    if verdict is None or verdict.outcome not in {Outcome.PASS, Outcome.FINDINGS}:
        raise InternalError(detail=f"no scan let this pass: {verdict and verdict.outcome}")
    if verdict.digest != digest:
        raise InternalError(detail=f"{verdict.digest} was scanned and {digest} is staged")


def _say(line: str) -> None:
    print(line, flush=True)
