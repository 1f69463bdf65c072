"""What tests on this machine share: a storage, a registry, a vulnerability database, each real and of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.building import Building
from tests.local.farm import Farm
from tests.registries import guard, serve_registry
from tests.storages import unmount

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
