"""Container storages and image stores of this machine, with podman, skopeo and a registry."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images import STATIC_PROGRAM, write_layout
from tests.steps import VULNERABLE, Build
from tests.storages import forget, keep, podman, serve_containers
from workflows.errors import BuildError, ConfigError, TransientError
from workflows.image import ImageName
from workflows.settings import Settings
from workflows.stores.containers import Containers
from workflows.stores.exporter import Exporter
from workflows.stores.images import ImageStore, image_store
from workflows.stores.layout import read_layout
from workflows.stores.skopeo import Skopeo


def test_an_image_of_the_base_storage_runs_in_the_storage_of_images(machine: Settings, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"program": STATIC_PROGRAM.read_bytes()})
    keep(machine, tmp_path / "layout", "localhost/base:1", store=Containers(machine).base)
    done = podman(machine, "run", "--rm", "localhost/base:1", "/program", "--version")
    assert done.returncode == 0, done.stderr
    assert "ldconfig" in done.stdout


def test_two_states_on_one_machine_do_not_see_one_another(machine: Settings, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"program": STATIC_PROGRAM.read_bytes()})
    keep(machine, tmp_path / "layout", "localhost/base:1", store=Containers(machine).base)
    assert podman(machine, "create", "localhost/base:1", "/program").returncode == 0
    other = Settings(state=tmp_path / "other")
    Containers(other).prepare()
    try:
        assert podman(other, "ps", "--all", "--quiet").stdout == ""
        assert podman(other, "images", "--quiet").stdout == ""
        assert len(podman(machine, "ps", "--all", "--quiet").stdout.split()) == 1
    finally:
        forget(Containers(other))


def test_a_base_layer_is_exported_once_and_linked_ever_after(machine: Settings, tmp_path: Path) -> None:
    containers = Containers(machine)
    write_layout(tmp_path / "base", {"large": b"x" * 100_000})
    keep(machine, tmp_path / "base", "localhost/base:1", store=containers.base)
    exporter = Exporter(machine)
    for name in ("first", "second"):
        exporter.export(containers.images, "localhost/base:1", tmp_path / name, print)
    (kept,) = (machine.cache_folder / "blobs").iterdir()
    links = [(tmp_path / name / "blobs" / "sha256" / kept.name).stat() for name in ("first", "second")]
    assert {link.st_ino for link in links} == {kept.stat().st_ino}
    # An image of its own that stands on no base does not carry that layer along.
    write_layout(tmp_path / "alone", {"small": "y"})
    keep(machine, tmp_path / "alone", "localhost/alone:1", store=containers.images)
    exporter.export(containers.images, "localhost/alone:1", tmp_path / "third", print)
    assert kept.name not in {path.name for path in (tmp_path / "third" / "blobs" / "sha256").iterdir()}


@pytest.fixture(params=["socket", "podman", "registry"])
def filled(request: pytest.FixtureRequest, machine: Settings, tmp_path: Path) -> Iterator[tuple[Settings, str]]:
    """Settings of each kind of store, and the prefix of names in it."""
    if request.param == "registry":
        prefix = f"{request.getfixturevalue('registry')}/argosy/"
        changes = {"image_store": "registry", "registry_insecure": True, "image_prefix": prefix}
        yield machine.model_copy(update=changes), prefix
    elif request.param == "socket":
        service = serve_containers(machine)
        yield machine, "localhost/argosy/"
        service.terminate()
        service.wait()
    else:
        yield machine, "localhost/argosy/"


@pytest.fixture
def put(filled: tuple[Settings, str], tmp_path: Path) -> Callable[[str, str], str]:
    def put_image(name: str, content: str) -> str:
        settings, prefix = filled
        layout = tmp_path / f"layout-{content}"
        digest = write_layout(layout, {"f": content})
        transport = "docker://" if settings.image_store == "registry" else "containers-storage:"
        Skopeo(settings).copy(f"oci:{layout}:image", f"{transport}{prefix}{name}", print)
        return digest

    return put_image


class TestEveryImageStore:
    """The contract that both stores hold."""

    def test_an_absent_image_has_no_digest_and_can_be_removed(self, filled: tuple[Settings, str]) -> None:
        settings, prefix = filled
        store: ImageStore = image_store(settings)
        absent = ImageName(f"{prefix}absent:1")
        assert store.digest(absent) is None
        store.remove(absent)

    def test_a_name_and_tag_stand_for_the_digest_that_was_put_there(
        self, filled: tuple[Settings, str], put: Callable[[str, str], str]
    ) -> None:
        settings, prefix = filled
        store = image_store(settings)
        first, other = put("demo:1", "first"), put("demo:2", "other")
        assert store.digest(ImageName(f"{prefix}demo:1")) == first
        assert store.digest(ImageName(f"{prefix}demo:2")) == other
        moved = put("demo:1", "moved")
        assert moved != first
        assert store.digest(ImageName(f"{prefix}demo:1")) == moved

    def test_what_was_removed_is_gone_and_nothing_else(
        self, filled: tuple[Settings, str], put: Callable[[str, str], str]
    ) -> None:
        settings, prefix = filled
        store = image_store(settings)
        put("demo:1", "first")
        other = put("demo:2", "other")
        store.remove(ImageName(f"{prefix}demo:1"))
        assert store.digest(ImageName(f"{prefix}demo:1")) is None
        assert store.digest(ImageName(f"{prefix}demo:2")) == other


def test_a_socket_that_nobody_serves_is_no_obstacle(machine: Settings) -> None:
    machine.container_socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(machine.container_socket))
    assert image_store(machine).digest(ImageName("localhost/argosy/absent:1")) is None


def test_an_image_that_a_container_runs_from_is_not_removed(machine: Settings, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"program": STATIC_PROGRAM.read_bytes()})
    keep(machine, tmp_path / "layout", "localhost/argosy/demo:1", store=Containers(machine).images)
    assert podman(machine, "create", "localhost/argosy/demo:1", "/program").returncode == 0
    with pytest.raises(TransientError):
        image_store(machine).remove(ImageName("localhost/argosy/demo:1"))
    assert image_store(machine).digest(ImageName("localhost/argosy/demo:1")) is not None


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_export_is_compressed_as_the_setting_says(machine: Settings, tmp_path: Path, compression: str) -> None:
    settings = machine.model_copy(update={"compression": compression})
    store = Containers(settings).images
    write_layout(tmp_path / "image", {"f": "x" * 100_000})
    keep(settings, tmp_path / "image", "localhost/demo:1", store=store)
    Exporter(settings).export(store, "localhost/demo:1", tmp_path / "layout", print)
    digest = read_layout(tmp_path / "layout", 10**9)
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    (layer,) = json.loads((blobs / digest.removeprefix("sha256:")).read_text())["layers"]
    media = layer["mediaType"].removeprefix("application/vnd.oci.image.layer.v1.tar").removeprefix("+")
    assert media == ("" if compression == "none" else compression)
    # Whatever it is, the storage takes it under its own digest.
    Skopeo(settings).copy(f"oci:{tmp_path}/layout:image", "containers-storage:localhost/argosy/demo:1", print)
    assert image_store(settings).digest(ImageName("localhost/argosy/demo:1")) == digest


def test_a_registry_that_asks_who_we_are_gets_our_credentials_or_refuses(
    machine: Settings, tmp_path: Path, guarded_registry: str
) -> None:
    prefix = f"{guarded_registry}/argosy/"
    changes = {"image_store": "registry", "registry_insecure": True, "image_prefix": prefix}
    anonymous = machine.model_copy(update=changes)
    auth = {"auths": {guarded_registry: {"auth": base64.b64encode(b"argosy:secret").decode()}}}
    (tmp_path / "auth.json").write_text(json.dumps(auth))
    known = anonymous.model_copy(update={"registry_auth_file": tmp_path / "auth.json"})
    image = ImageName(f"{prefix}demo:1")
    digest = write_layout(tmp_path / "layout", {"f": "x"})
    with pytest.raises(ConfigError):
        Skopeo(anonymous).copy(f"oci:{tmp_path}/layout:image", f"docker://{image}", print)
    with pytest.raises(ConfigError):
        image_store(anonymous).digest(image)
    Skopeo(known).copy(f"oci:{tmp_path}/layout:image", f"docker://{image}", print)
    assert image_store(known).digest(image) == digest


@pytest.fixture
def stored(machine: Settings, tmp_path: Path) -> Build:
    """A build whose image stays on this machine."""
    return Build(machine, tmp_path)


def test_an_image_is_started_by_its_digest_and_no_other(stored: Build) -> None:
    digest = stored.write(VULNERABLE)
    stored.run("stage")
    stored.run("push")
    name = stored.image.rpartition(":")[0]
    assert podman(stored.ours, "image", "inspect", f"{name}@{digest}").returncode == 0
    assert podman(stored.ours, "image", "inspect", f"{name}@sha256:{'0' * 64}").returncode != 0


def test_layers_that_are_not_what_the_manifest_says_are_not_pushed(stored: Build) -> None:
    stored.write(VULNERABLE)
    blobs = stored.settings.workspace / "layout" / "blobs" / "sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes().replace(b"2.19.0", b"2.99.0"))
    stored.run("stage")
    with pytest.raises(BuildError):
        stored.run("push")
    assert image_store(stored.ours).digest(stored.image) is None
