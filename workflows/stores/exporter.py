"""Writes images of a build's storage as OCI layouts, without the layers that are somewhere already.

Source: OCI image layout specification 1.0, https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workflows.image import is_digest
from workflows.settings import Settings
from workflows.stores.carried import carried
from workflows.stores.containers import Containers
from workflows.stores.files import write_whole
from workflows.stores.layout import REF, descriptor_of, manifest_of
from workflows.stores.skopeo import Skopeo

_logger = logging.getLogger(__name__)


class Exporter:
    """Writes images of a build's storage as layouts.

    An uncompressed base layer of 650 MB takes 11 s to write and is the same every time: it is kept once, in the cache
    folder, and linked into each layout, where skopeo finds it and goes on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._containers = Containers(settings)
        self._blobs = settings.cache_folder / "blobs"

    def export(self, store: Path, image: str, layout: Path, report: Callable[[str], None]) -> None:
        """Write one image of `store` to `layout`, compressed as the setting ``compression`` says.

        Args:
            store: The graph root that holds it, as `Containers.repository` gives it.
            image: Its name or id there.
            layout: A folder that does not exist yet.
            report: Is handed each line that skopeo prints.

        Raises:
            ConfigError: There is no skopeo.
            TransientError: The disk does not take it.
            InternalError: Anything else.
        """
        base = self._base_layers() if self._settings.compression == "none" else frozenset()
        known = carried(self._settings).layers
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for digest in base:
            _link(self._blobs / digest, blobs / digest)
        for digest in known:
            # It looks for a file of that name alone, and writes nothing where there is one.
            (blobs / digest.removeprefix("sha256:")).touch()
        Skopeo(self._settings).export(f"containers-storage:{image}", f"oci:{layout}:{REF}", store, report)
        self._blobs.mkdir(parents=True, exist_ok=True)
        for digest in base:
            _link(blobs / digest, self._blobs / digest)
        for path in self._blobs.iterdir():
            if path.name not in base:
                path.unlink(missing_ok=True)
        if known:
            _replace(layout, known)
        self._drop_unused(layout)

    @staticmethod
    def _drop_unused(layout: Path) -> None:
        """Take out linked layers of base images that this image does not stand on: they are not part of it."""
        blobs = layout / "blobs" / "sha256"
        manifest = manifest_of(layout)
        layers = (layer["digest"] for layer in manifest["layers"])
        used = {descriptor_of(layout)["digest"], manifest["config"]["digest"], *layers}
        for path in blobs.iterdir():
            if f"sha256:{path.name}" not in used:
                path.unlink()

    def _base_layers(self) -> frozenset[str]:
        try:
            layers = json.loads((self._containers.base / "overlay-layers" / "layers.json").read_bytes())
            digests = [str(layer.get("diff-digest", "")) for layer in layers]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            # Only speed is lost.
            _logger.warning("cannot read the layers of base images: %s", error)
            return frozenset()
        return frozenset(digest.removeprefix("sha256:") for digest in digests if is_digest(digest))


def _replace(layout: Path, known: Mapping[str, dict[str, Any]]) -> None:
    """Name layers that a registry holds by what they are called there; they are no longer in the layout."""
    blobs = layout / "blobs" / "sha256"
    manifest = manifest_of(layout)
    manifest["layers"] = [known.get(layer["digest"], layer) for layer in manifest["layers"]]
    for digest in known:
        (blobs / digest.removeprefix("sha256:")).unlink()
    content = json.dumps(manifest)
    digest = hashlib.sha256(content.encode()).hexdigest()
    write_whole(blobs / digest, content)
    named = descriptor_of(layout) | {"digest": f"sha256:{digest}", "size": len(content)}
    write_whole(layout / "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}))


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        # Absent, there already, or on another file system: skopeo writes it then.
        _logger.debug("%s is not linked to %s: %s", source, target, error.strerror)
