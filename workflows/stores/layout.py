"""OCI layouts: an image as a folder, the form in which the strangers' half hands it over.

`exporter.Exporter` writes one; `read_layout` reads one that may be anybody's work.

Source: OCI image layout specification 1.0, https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflows.errors import BuildError, TooLargeError
from workflows.image import ImageDigest, is_digest
from workflows.stores.files import write_whole

REF = "image"
"""The one name in a staged layout, and the tag of a staged image in a registry."""

_REF_NAME = "org.opencontainers.image.ref.name"
_MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""What registries accept."""


def read_layout(layout: Path, limit_bytes: int, *, rename: bool = False) -> ImageDigest:
    """The digest of the one image in a layout that strangers may have written.

    Args:
        layout: Its folder.
        limit_bytes: What all of its files together may have.
        rename: Whether the image gets the name `REF` there, whatever it was called; otherwise it must have it.

    (1) Every file is a plain one: a link could lead a tool of ours to a file of this machine.
    (2) Together they are within the limit.
    (3) The index names exactly one image, whose manifest has the digest that it claims. Layers and configuration are
        verified against the manifest by skopeo while it copies them.

    Raises:
        BuildError: There is no usable image in it.
        TooLargeError: It is larger than the limit.
    """
    size = 0
    for path, status in _walk(layout):
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # (1)
            raise unusable(f"{path} is neither a file nor a folder")
        size += status.st_size
        if size > limit_bytes:  # (2)
            raise TooLargeError(f"The image is larger than the {limit_bytes // 1024**2} MiB that this service allows.")
    descriptor = descriptor_of(layout)  # (3)
    digest = ImageDigest(descriptor["digest"])
    content = _read(layout / "blobs" / "sha256" / digest.removeprefix("sha256:"))
    if hashlib.sha256(content).hexdigest() != digest.removeprefix("sha256:"):
        raise unusable(f"the manifest is not {digest}")
    named = {"mediaType": descriptor["mediaType"], "digest": digest, "size": len(content)}
    index = {"schemaVersion": 2, "manifests": [named | {"annotations": {_REF_NAME: REF}}]}
    if rename:
        write_whole(layout / "index.json", json.dumps(index))
    elif descriptor.get("annotations", {}).get(_REF_NAME) != REF:
        raise unusable("the image has another name")
    return digest


def _walk(layout: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        yield layout, layout.lstat()
        for folder, folders, files in os.walk(layout, onerror=_raise):
            for name in (*folders, *files):
                path = Path(folder, name)
                yield path, path.lstat()
    except OSError as error:
        raise unusable(f"{layout}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error


def descriptor_of(layout: Path) -> dict[str, Any]:
    """What the index of a layout says of its one image.

    Raises:
        BuildError: It does not name exactly one.
    """
    try:
        index = json.loads(_read(layout / "index.json"))
    except (ValueError, RecursionError) as error:
        raise unusable("index.json is no JSON") from error
    manifests = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(manifests, list) or len(manifests) != 1 or not isinstance(manifests[0], dict):
        raise unusable("index.json does not name exactly one image")
    descriptor: dict[str, Any] = manifests[0]
    if descriptor.get("mediaType") not in _MANIFESTS or not is_digest(str(descriptor.get("digest"))):
        raise unusable(f"index.json names no image of one platform: {str(descriptor)[:500]}")
    if not isinstance(descriptor.get("annotations", {}), dict):
        raise unusable("index.json has annotations that are none")
    return descriptor


def absent_layers(layout: Path) -> frozenset[str]:
    """The digests of layers that the image in a layout has and that are not in there.

    Raises:
        BuildError: There is no usable image in it.
    """
    digests = {str(layer["digest"]) for layer in manifest_of(layout)["layers"]}
    if not all(map(is_digest, digests)):
        raise unusable("a layer has no digest")
    blobs = layout / "blobs" / "sha256"
    return frozenset(digest for digest in digests if not (blobs / digest.removeprefix("sha256:")).is_file())


def manifest_of(layout: Path) -> dict[str, Any]:
    """The manifest of the one image in a layout.

    Raises:
        BuildError: There is none that can be used.
    """
    digest = str(descriptor_of(layout)["digest"])
    try:
        manifest = json.loads(_read(layout / "blobs" / "sha256" / digest.removeprefix("sha256:")))
        manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise unusable("the manifest is none") from error
    return dict(manifest)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise unusable(f"{path}: {error.strerror}") from error
    if len(content) > _MAX_MANIFEST_BYTES:
        raise unusable(f"{path} is larger than any manifest")
    return content


def unusable(detail: str) -> BuildError:
    """What a visitor reads of a layout that is none; `detail` is the operator's."""
    return BuildError("The build left no image that can be used.", detail=f"staged layout: {detail}")
