"""What a container storage holds, by its own records: quicker than asking a tool, and without taking its locks.

Source: https://github.com/containers/storage, ``images.go``, ``layers.go``, ``containers.go``: the records are JSON,
replaced whole at each change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.cleaning.tool import run
from workflows.errors import TransientError
from workflows.stores.containers import Containers


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One image of a storage.

    Args:
        id: The digest of its configuration, without ``sha256:``.
        names: With their tags; none where a later image took the last one.
        layers: From the top, as far as they lie in this storage.
        kept: Seconds since the epoch when it was last put there.
    """

    id: str
    names: tuple[str, ...]
    layers: tuple[str, ...]
    kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A storage at one moment.

    Args:
        images: All of them.
        sizes: Bytes by layer.
        in_use: Ids of images that a container, running or not, is made from.
        foreign: Layers of the storage of base images on which layers and images stand here.
    """

    images: tuple[StoredImage, ...]
    sizes: dict[str, int]
    in_use: frozenset[str]
    foreign: frozenset[str]


def read(graph: Path, runroot: Path) -> Storage:
    """What lies below a graph root; nothing where there is none.

    Args:
        graph: The graph root.
        runroot: Where newer versions keep records of containers that a restart of the machine forgets.

    Raises:
        TransientError: The records cannot be read now.
    """
    layers = {str(record["id"]): record for record in _records(graph / "overlay-layers" / "layers.json")}
    images = list(_records(graph / "overlay-images" / "images.json"))
    containers = [
        record
        for folder in (graph, runroot)
        for name in ("containers.json", "volatile-containers.json")
        for record in _records(folder / "overlay-containers" / name)
    ]
    stands_on = {str(record.get("parent") or "") for record in layers.values()}
    stands_on |= {str(record.get("layer") or "") for record in (*images, *containers)}
    return Storage(
        images=tuple(_image(record, layers, graph) for record in images),
        sizes={layer: int(record.get("diff-size") or 0) for layer, record in layers.items()},
        in_use=frozenset(str(record.get("image") or "") for record in containers),
        foreign=frozenset(stands_on - layers.keys() - {""}),
    )


def remove_images(containers: Containers, graph: Path, names: Sequence[str]) -> str:
    """Remove images by name or id; the storage itself refuses those that a container is made from.

    Returns:
        What podman said.

    Raises:
        ConfigError: There is no podman.
        TransientError: No process can be started now.
    """
    said = []
    for start in range(0, len(names), _AT_ONCE):
        command = ["podman", "rmi", "--", *names[start : start + _AT_ONCE]]
        said.append(run(command, containers.environment(graph)))
    return "".join(said)


_AT_ONCE = 100
"""Names of one command line."""


def _image(record: dict[str, Any], layers: dict[str, dict[str, Any]], graph: Path) -> StoredImage:
    top = str(record.get("layer") or "")
    try:
        kept = (graph / "overlay-images" / str(record["id"])).stat().st_mtime
    except OSError:
        # Removed in this moment.
        kept = 0
    names = tuple(str(name) for name in record.get("names") or ())
    return StoredImage(id=str(record["id"]), names=names, layers=tuple(_chain(top, layers)), kept=kept)


def _chain(layer: str, layers: dict[str, dict[str, Any]]) -> Iterator[str]:
    seen: set[str] = set()
    while layer in layers and layer not in seen:
        seen.add(layer)
        yield layer
        layer = str(layers[layer].get("parent") or "")


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes() or b"[]")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise TransientError(detail=f"cannot read {path}: {error}") from error
    return [record for record in found or () if isinstance(record, dict) and "id" in record]
