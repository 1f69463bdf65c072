"""Kills at random moments of the farm that ``make run`` starts: real builds, a real Hub, real servers.

The seed is printed; ``ARGOSY_TEST_SEED`` repeats a run, ``ARGOSY_TEST_KILLS`` changes its length.
`tests/integration/test_crash.py` does the same with played steps and a played Hub.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.githost import GitHost
from tests.integration.client import Client
from tests.integration.farm import eventually
from tests.invariants import StateFolder
from tests.local.farm import Farm, kill
from tests.visitor import Visitor, git_spec
from workflows.builder.machine import cgroup
from workflows.image import BuildName, ImageName
from workflows.settings import Settings
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.images import image_store

KILLS = int(os.environ.get("ARGOSY_TEST_KILLS", "8"))
CLIENTS = 3
LEAVE_SECONDS = 60
"""After which what a visitor has left behind is gone, by design.md."""

JUPYTER = {"requirements.txt": "six==1.17.0\n"}
LINES = {
    "Dockerfile": "FROM localhost/argosy/base:bookworm\nRUN for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done\n"
}
COMPONENTS = {"web": "web", "hub": "hub", "container engine": "podman"}
"""What `make run` starts again, and how it calls it."""

TOOLS = frozenset({"git", "buildah", "python", "skopeo", "syft", "grype"})


class Machine:
    """The farm, the people who use it, and who has a server that must still be there."""

    def __init__(self, farm: Farm, githost: GitHost, chance: random.Random) -> None:
        self.farm = farm
        self.files = StateFolder(farm.state)
        self.settings = Settings(state=farm.state)
        self.clients: list[Client] = []
        self.lost: set[str] = set()
        self._githost = githost
        self._chance = chance

    # --- who uses it ---

    def follow(self) -> None:
        going = [client for client in self.clients if client.is_alive()]
        for _ in range(CLIENTS - len(going)):
            self.clients.append(Client(self.farm.url, self._click()))

    def _click(self) -> str:
        kind, number = self._chance.choice(("known", "new", "lines", "lines")), len(self.clients)
        if kind == "known":
            return git_spec(f"{self._githost.url}/o/known")
        name = f"o/{kind}{number}"
        self._githost.create(name, (JUPYTER if kind == "new" else LINES) | {"README.md": str(number)})
        spec = git_spec(f"{self._githost.url}/{name}")
        return spec if kind == "new" else f"{spec}?build_only=true"

    # --- what may be killed ---

    def runners(self) -> list[psutil.Process]:
        return [each for each in self.farm.processes().values() if _says(each, "attempt.runner")]

    def supervisors(self) -> list[psutil.Process]:
        return [child for runner in self.runners() for child in _children(runner) if _says(child, "workflows.run")]

    def steps(self) -> list[psutil.Process]:
        return [each for supervisor in self.supervisors() for each in _children(supervisor)]

    def tools(self) -> list[psutil.Process]:
        """What steps have started, but for strangers' own processes: what ends there ends the repository's line."""
        below = [each for step in self.steps() for each in _children(step, recursive=True)]
        return [each for each in below if _name(each) in TOOLS and _is_outside(each)]

    def arrived(self) -> dict[str, Client]:
        """Who got a server, by its user."""
        ready = [client for client in self.clients if "url" in client.last]
        return {client.last["url"].rstrip("/").rpartition("/")[2]: client for client in ready}

    def launches(self) -> list[Path]:
        """That are in flight."""
        return list(self.settings.launches_folder.glob("*.json"))

    # --- invariants ---

    def check(self) -> None:
        self.files.check()

    def check_catalogue(self) -> None:
        images = image_store(self.settings)
        for entry in FolderCatalogue(self.settings.catalogue_folder).entries():
            assert images.digest(ImageName(entry.image)) == entry.digest, f"launchable and not there: {entry.image}"

    def check_servers(self) -> None:
        """Each visitor has one server that answers, and nobody else has any."""
        arrived = self.arrived()
        ready = [client for client in self.clients if "url" in client.last]
        assert len(arrived) == len(ready), "two visitors of one server"
        expected = arrived.keys() - self.lost
        with suppress(AssertionError):
            eventually(lambda: self._told() == (expected, expected), LEAVE_SECONDS + 30)
        assert self._told() == (expected, expected), self.farm.log()
        for user in expected:
            last = arrived[user].last
            headers = {"Authorization": f"token {last['token']}"}
            assert requests.get(f"{last['url']}api/status", headers=headers, timeout=20).status_code == 200

    def _told(self) -> tuple[set[str], set[str]]:
        return self.farm.users(), self.farm.servers()

    def check_nothing_left(self) -> None:
        """Once everything has ended."""
        eventually(lambda: not self.runners(), 30)
        for status in self.files.statuses():
            assert not any(folder.exists() for folder in cgroup.folders(BuildName(status.name)))
            assert not Path("/run/argosy/builds", status.name).exists()
        assert not list(self.settings.staging_folder.glob("*"))
        eventually(lambda: not self.launches(), LEAVE_SECONDS + 30)

    def check_told(self, killed: Container[str]) -> None:
        """That whoever runs the farm reads what has ended."""
        said = (self.farm.state / "run.log").read_text()
        for kind, name in COMPONENTS.items():
            assert kind not in killed or f"{name} has ended by itself and is started again." in said

    def check_nothing_left_of_the_farm(self) -> None:
        """Once it was stopped."""
        assert not self.farm.processes()
        assert str(self.farm.state) not in Path("/proc/mounts").read_text()
        assert [path for path in self.farm.state.rglob("*") if path.is_socket()] == []
        assert not any(self.files.has_runner(status.name) for status in self.files.statuses())


def _says(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in word for word in process.cmdline())
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _is_outside(process: psutil.Process) -> bool:
    """Whether a process is in no container: each of those has a PID namespace of its own."""
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    return False


def _children(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
    try:
        return process.children(recursive=recursive)
    except psutil.Error:
        return []


class Killer:
    """Kills something; whatever `make run` does not start again by itself is started again."""

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self._machine = machine
        self._chance = chance
        self._deck: list[str] = []
        self.count: Counter[str] = Counter()
        self._kinds: dict[str, Callable[[], None]] = {
            "web": lambda: self._component("web.server", machine.runners),
            "hub": lambda: self._component("jupyterhub", machine.launches),
            "container engine": lambda: self._component("podman"),
            "runner": lambda: self._one(machine.runners),
            "step's runner": lambda: self._one(machine.supervisors),
            "step": lambda: self._one(machine.steps),
            "tool": lambda: self._one(machine.tools),
            "machine": self._all,
        }

    def strike(self) -> str:
        if not self._deck:
            # Each kind comes once before any comes again.
            self._deck = self._chance.sample(list(self._kinds), len(self._kinds))
        time.sleep(self._chance.uniform(0, 3))
        kind = self._deck.pop()
        self._kinds[kind]()
        self.count[kind] += 1
        return kind

    def _one(self, find: Callable[[], list[psutil.Process]]) -> None:
        kill(self._chance.choice(eventually(lambda: self._machine.follow() or find(), 60)))

    def _component(self, name: str, meanwhile: Callable[[], object] = lambda: True) -> None:
        eventually(lambda: self._machine.follow() or meanwhile(), 60)
        process = eventually(lambda: self._machine.farm.component(name))
        kill(process, *_children(process, recursive=True))

    def _all(self) -> None:
        self._machine.farm.kill()
        self._machine.lost |= self._machine.arrived().keys()
        self._machine.farm.start()
        self._machine.files.resume()


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("ARGOSY_TEST_SEED") or random.randrange(10**6))
    print(f"ARGOSY_TEST_SEED={seed}")  # noqa: T201  # with it, the same moments come again
    return random.Random(seed)


@pytest.fixture
def machine(tmp_path: Path, githost: GitHost, grype_db: Path, chance: random.Random) -> Iterator[Machine]:
    farm = Farm(tmp_path / "state", ARGOSY_GRYPE_DB=str(grype_db))
    farm.start()
    yield Machine(farm, githost, chance)
    farm.stop()


def test_whatever_is_killed_whenever_nothing_is_lost_twice_or_left(
    machine: Machine, githost: GitHost, chance: random.Random
) -> None:
    githost.create("o/known", JUPYTER)
    known = Visitor(machine.farm.url).click(git_spec(f"{githost.url}/o/known"), build_only=True)
    assert known.last["phase"] == "ready", known.log
    killer = Killer(machine, chance)
    for number in range(KILLS):
        machine.follow()
        kind = killer.strike()
        if chance.random() < 0.1:
            chance.choice(machine.clients).leave()
        try:
            machine.check()
        except AssertionError as error:
            raise AssertionError(f"kill {number} of {kind}: {error}\n{machine.farm.log()}") from error
    for client in machine.clients:
        client.join(120)
        assert not client.is_alive(), f"{client.path} never ended: {client.events[-3:]}\n{machine.farm.log()}"
    print(f"{len(machine.clients)} clicks, {len(machine.arrived())} servers, killed: {dict(killer.count)}")  # noqa: T201
    machine.check()
    machine.files.check_clients(machine.clients, eventually(machine.files.all_filed, 60))
    machine.check_told(killer.count)
    machine.check_servers()
    machine.check_catalogue()
    machine.check_nothing_left()
    machine.farm.stop()
    machine.check_nothing_left_of_the_farm()
