"""What every kind of test shares: the folder is the kind and sets the marker; unit tests have no sockets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.githost import GitHost, SilentHost
from tests.registries import serve_registry
from tests.storages import forget
from workflows.settings import Settings
from workflows.stores.containers import Containers

KINDS = ("unit", "integration", "browser", "local", "cluster", "chart")
TIMEOUT_SECONDS = {"local": 900, "cluster": 1800}
"""Real builds on two slow cores; everything else keeps to pyproject's limit."""
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(HERE).parts[0]
        if kind in KINDS:
            item.add_marker(kind)
        if kind in TIMEOUT_SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS[kind]))
        if kind == "unit":
            # Unix sockets stay: asyncio and gevent make pairs of them.
            item.add_marker(pytest.mark.disable_socket())


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's own settings and git's variables change no test."""
    for name in list(os.environ):
        if name.startswith(("ARGOSY_", "GIT_")) and not name.startswith(("ARGOSY_TEST_", "ARGOSY_CLUSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def githost(tmp_path: Path) -> Iterator[GitHost]:
    """A git host of this test's own."""
    host = GitHost(tmp_path / "githost").start()
    yield host
    host.stop()


@pytest.fixture
def silent_host() -> Iterator[SilentHost]:
    """A host that takes connections and never says a word."""
    host = SilentHost().start()
    yield host
    host.stop()


@pytest.fixture
def drip_host() -> Iterator[SilentHost]:
    """A host that sends a byte now and then and never finishes."""
    host = SilentHost(drip=True).start()
    yield host
    host.stop()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback, open to everybody; its host and port."""
    with serve_registry(tmp_path, "") as place:
        yield place


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a state folder, and so container storages, of this test's own."""
    settings = Settings(state=tmp_path / "state", workspace=tmp_path / "workspace")
    settings.workspace.mkdir()
    containers = Containers(settings)
    containers.prepare()
    yield settings
    forget(containers)


@pytest.fixture(scope="session")
def grype_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Grype database of `tests/vulndb`, made anew so that it is never stale; its program is cached."""
    folder = tmp_path_factory.mktemp("grype-db")
    subprocess.run([HERE / "vulndb" / "make", folder], check=True)
    return folder
