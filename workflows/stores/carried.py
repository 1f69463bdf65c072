"""Layers of base images that a registry holds already: no build writes them into its layout, and none sends them.

The builder's image carries base images as a storage (the setting ``base_store``), and in it a list of what their
layers are called in a registry. `tools/images` writes both, and pushes the image that ``foundation_image`` names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from workflows.errors import ConfigError
from workflows.settings import Settings

LIST = "carried.json"
"""The list's name in the folder of the storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a registry holds already.

    Args:
        image: The image there, with its tag; empty where there is none.
        layers: Descriptors, as manifests have them, by the digest of the layer's uncompressed content.
    """

    image: str = ""
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def digests(self) -> frozenset[str]:
        """What the layers are called there."""
        return frozenset(str(layer["digest"]) for layer in self.layers.values())


def carried(settings: Settings) -> Carried:
    """What the registry holds of the base images that come with this process's own image.

    Raises:
        ConfigError: The list cannot be read.
    """
    if not settings.base_store or not settings.foundation_image:
        return Carried()
    path = settings.base_store / LIST
    try:
        given = json.loads(path.read_bytes())
        return Carried(image=f"{settings.foundation_image}:{given['tag']}", layers=given["layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(detail=f"{path}: {error}") from error
