"""The whole way from a storage to a registry and back: TLS, a password, both compressions, mounted blobs, an SBOM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import write_layout
from tests.registries import blob_uploads, serve_secure
from tests.steps import BUILD, VULNERABLE, Build
from tests.storages import keep, podman
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.settings import Settings
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.containers import Containers
from workflows.stores.exporter import Exporter
from workflows.stores.images import image_store

STEPS = ("stage", "push", "publish", "scan", "attach")


@pytest.fixture
def secure(machine: Settings, tmp_path: Path, grype_db: Path) -> Iterator[Settings]:
    with serve_secure(machine, tmp_path, grype_db=grype_db) as farm:
        yield farm


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_whole_way_to_a_registry_with_tls_and_a_password(
    secure: Settings, tmp_path: Path, compression: str
) -> None:
    build = Build(secure.model_copy(update={"compression": compression}), tmp_path)
    write_layout(tmp_path / "image", VULNERABLE | {"large": "x" * 100_000})
    keep(build.settings, tmp_path / "image", "localhost/built:1", store=Containers(build.settings).images)
    layout = build.settings.workspace / "layout"
    Exporter(build.settings).export(Containers(build.settings).images, "localhost/built:1", layout, print)

    for step in STEPS:
        build.run(step)

    entry = FolderCatalogue(secure.catalogue_folder).get(build.image)
    assert entry is not None
    assert image_store(build.ours).digest(build.image) == entry.digest
    assert "CVE-2018-18074" in (build.ours.workspace / "findings.json").read_text()
    sbom = Referrers(Connection(secure)).find(build.image.rpartition(":")[0], entry.digest)
    assert sbom == (build.ours.workspace / "sbom.cdx.json").read_bytes()
    # What was sent once, to the staging place, was not sent again; and the counting counts.
    served = tmp_path / "served"
    slug = build.image.rpartition(":")[0].partition("/")[2]
    assert blob_uploads(served, f"argosy/staging/{BUILD}") != []
    sent = blob_uploads(served, slug)
    assert len([line for line in sent if line.startswith("PUT")]) == 2, "the SBOM and its empty configuration alone"
    # A machine pulls it by digest with the same settings.
    pulled = podman(build.ours, "pull", "--quiet", f"{build.image.rpartition(':')[0]}@{entry.digest}")
    assert pulled.returncode == 0, pulled.stderr
