"""What tests on this machine share: a storage, a registry, a vulnerability database, each real and of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.building import Building
from tests.local.farm import Farm
from tests.local.registries import guard, serve_registry, wait_until
from workflows.settings import Settings
from workflows.stores.containers import Containers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory, grype_db: Path) -> Iterator[Farm]:
    """The whole of Argosy, as `make run` starts it, with limits that a test can reach."""
    farm = Farm(
        tmp_path_factory.mktemp("farm") / "state",
        ARGOSY_GRYPE_DB=str(grype_db),
        ARGOSY_MAX_SOURCE_BYTES=str(20 * 1024**2),
        ARGOSY_RESOLVE_TIMEOUT_SECONDS="10",
        ARGOSY_PARALLEL_BUILDS="2",
    )
    farm.start()
    yield farm
    farm.stop()


@pytest.fixture(scope="session")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Building]:
    """A state folder with a base image; each test builds repositories of its own in it."""
    building = Building(tmp_path_factory.mktemp("building"))
    yield building
    unmount(building.state)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a state folder, and so container storages, of this test's own."""
    settings = Settings(state=tmp_path / "state", workspace=tmp_path / "workspace")
    settings.workspace.mkdir()
    containers = Containers(settings)
    containers.prepare()
    yield settings
    forget(containers)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback, open to everybody; its host and port."""
    with serve_registry(tmp_path, "") as place:
        yield place


@pytest.fixture
def guarded_registry(tmp_path: Path) -> Iterator[str]:
    """The same, open to the user ``argosy`` with the password ``secret`` alone."""
    with serve_registry(tmp_path, guard(tmp_path)) as place:
        yield place


@pytest.fixture
def waiting(tmp_path: Path) -> bytes:
    """A program that does nothing and does not end."""
    (tmp_path / "wait.c").write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "wait", tmp_path / "wait.c"], check=True)
    return (tmp_path / "wait").read_bytes()


def serve_containers(settings: Settings) -> subprocess.Popen[bytes]:
    """Podman's API on the settings' socket, ready; the caller ends it."""
    socket = settings.container_socket
    socket.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{socket}"],
        env=os.environ | Containers(settings).environment(),
        stderr=subprocess.DEVNULL,
    )
    wait_until(socket.exists, process)
    return process


def forget(containers: Containers) -> None:
    """Remove containers of a test's storages, their mounts and what lies outside its state folder."""
    for store in (containers.images, containers.base):
        environment = os.environ | containers.environment(store)
        subprocess.run(
            ["podman", "rm", "--all", "--force", "--time=0"], env=environment, check=True, capture_output=True
        )
        unmount(store, containers.runroot(store))
        shutil.rmtree(containers.runroot(store), ignore_errors=True)


def unmount(*folders: Path) -> None:
    """Let go of what container tools leave mounted below folders, which pytest could never delete otherwise."""
    mounts = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if any(mount.is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", mount], check=True)
