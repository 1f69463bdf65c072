"""A hundred kills at random moments: of web, runners, step runners, steps, the Hub, and of everything at once.

The steps and the Hub are played here, so that moments cost little. `make test` makes ten of these kills.
The seed is printed; ``ARGOSY_TEST_SEED`` and ``ARGOSY_TEST_KILLS`` repeat a run or change its length.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.farm import eventually
from tests.integration.hub import FakeHub
from tests.integration.webs import LEAVE_SECONDS, Webs
from tests.invariants import StateFolder
from tools.farm import free_ports
from workflows.cleaning.leftovers import leftovers

KILLS = int(os.environ.get("ARGOSY_TEST_KILLS", "100"))
FEW_KILLS = 10
CLIENTS = 3
UNFINISHED = "unfinished files"


class Machine:
    """What the test sees from outside: processes, files and the ledger."""

    def __init__(self, webs: Webs, hub: FakeHub) -> None:
        self.webs = webs
        self.hub = hub
        self.state = webs.settings.state
        self.files = StateFolder(self.state)

    # --- processes ---

    def runners(self) -> list[int]:
        return [pid for pid, command, _ in self._processes() if b"attempt.runner" in command]

    def supervisors(self) -> list[int]:
        steps = self._steps()
        return [pid for pid, parent in steps.items() if parent not in steps]

    def steps(self) -> list[int]:
        steps = self._steps()
        return [pid for pid, parent in steps.items() if parent in steps]

    def left(self) -> list[int]:
        return [pid for pid, _, _ in self._processes()]

    def _steps(self) -> dict[int, int]:
        script = str(self.webs.script).encode()
        found = {}
        for pid, command, _ in self._processes():
            with suppress(OSError, IndexError):
                if script in command.split(b"\0"):
                    found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return found

    def _processes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Those of this farm, but for web."""
        state = str(self.state).encode()
        for entry in (path.name for path in Path("/proc").iterdir()):
            if not entry.isdigit() or int(entry) in {os.getpid(), self.webs.pid, self.webs.maker}:
                continue
            with suppress(OSError):
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                environment = Path(f"/proc/{entry}/environ").read_bytes()
                if command and (b"ARGOSY_WORKSPACE=" + state in environment or state in command):
                    yield int(entry), command, environment

    def kill(self, *pids: int) -> None:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    # --- state ---

    def check(self) -> None:
        self.files.check()
        images = {path.read_text() for path in (self.state / "images").glob("*")} - {""}
        for path in (self.state / "catalogue").glob("image-*.json"):
            assert json.loads(path.read_text())["digest"] in images, "launchable and not there"

    def check_nothing_left(self) -> None:
        """Once everything has ended."""
        builds = self.state / "builds"
        eventually(lambda: not self.left(), 20)
        eventually(lambda: not list(builds.glob("build-*")), 20)
        for part in builds.glob(".new-*"):
            os.utime(part, (0, 0))
        self.webs.kill()
        self.webs.start()
        eventually(lambda: {path.name for path in builds.iterdir()} <= {".admission", ".changes"}, 30)
        # What is left of a file whose writer was killed is cleaning's, a while later.
        (unfinished,) = (kind for kind in leftovers(self.webs.settings, lambda _: False) if kind.name == UNFINISHED)
        unfinished.remove(unfinished.things())
        assert not [path for path in self.state.rglob(".*") if path.name.endswith(".new") or ".part" in path.name]
        assert not list((self.state / "staging").glob("*"))
        assert not list((self.state / "launches").glob("*"))
        assert all(row["recorded"] for row in self.files.ledger().values())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    hub = FakeHub()
    webs = Webs(tmp_path, free_ports(1)[0], hub.url)
    webs.start()
    made = Machine(webs, hub)
    yield made
    webs.close()
    hub.close()
    made.kill(*made.left())


class Killer:
    """Kills something, and starts again what only an operator would start."""

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self._machine = machine
        self._chance = chance
        self.count: Counter[str] = Counter()
        self.lost_servers: set[str] = set()
        self._kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "web": (30, self._web),
            "runner": (20, lambda: self._one(machine.runners())),
            "step's runner": (15, lambda: self._one(machine.supervisors())),
            "step": (15, lambda: self._one(machine.steps())),
            "machine": (12, self._all),
            "hub": (8, self._hub),
        }

    def strike(self) -> str:
        while True:
            time.sleep(self._chance.uniform(0, 1.2))
            (kind,) = self._chance.choices(list(self._kinds), [weight for weight, _ in self._kinds.values()])
            if self._kinds[kind][1]():
                self.count[kind] += 1
                return kind

    def _one(self, pids: list[int]) -> bool:
        if pids:
            self._machine.kill(self._chance.choice(sorted(pids)))
        return bool(pids)

    def _web(self) -> bool:
        self._machine.webs.kill()
        time.sleep(self._chance.uniform(0, 0.2))
        self._machine.webs.start()
        return True

    def _all(self) -> bool:
        machine = self._machine
        machine.kill(machine.webs.pid, *machine.left())
        while left := machine.left():
            machine.kill(*left)
        self._hub()
        machine.webs.start()
        return True

    def _hub(self) -> bool:
        self.lost_servers |= set(self._machine.hub.users)
        self._machine.hub.crash()
        return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(KILLS, marks=pytest.mark.deep)])
def test_whatever_is_killed_whenever_nothing_is_lost_twice_or_left(machine: Machine, kills: int) -> None:
    seed = int(os.environ.get("ARGOSY_TEST_SEED") or random.randrange(10**6))
    print(f"ARGOSY_TEST_SEED={seed}")  # noqa: T201  # with it, the same moments come again
    chance = random.Random(seed)
    killer = Killer(machine, chance)
    clients: list[Client] = []

    def follow() -> None:
        going = [client for client in clients if client.is_alive()]
        for _ in range(CLIENTS - len(going)):
            number = len(clients) // 2 + 1  # two follow each build
            query = "?build_only=true" if chance.random() < 0.4 else ""
            clients.append(Client(machine.webs.url, f"gh/o/r{number}/main{query}"))

    for number in range(kills):
        follow()
        kind = killer.strike()
        if chance.random() < 0.05:
            chance.choice(clients).leave()
        try:
            machine.check()
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}, kill {number} of {kind}: {error}\n{machine.webs.log()[-3000:]}"
            ) from error
    for client in clients:
        client.join(60)
        assert not client.is_alive(), f"seed {seed}: {client.path} never ended: {client.events[-3:]}"
    # What a run was worth, for whoever reads a log.
    print(f"{len(clients)} clicks, {sum(client.streams for client in clients)} streams, killed: {dict(killer.count)}")  # noqa: T201
    machine.check()
    machine.files.check_clients(clients, eventually(machine.files.all_filed, 60))
    check_servers(machine, clients, killer)
    machine.check_nothing_left()
    machine.check()


def check_servers(machine: Machine, clients: list[Client], killer: Killer) -> None:
    """Each visitor has one server, and nobody else has any."""
    ready = [client.last["url"].rstrip("/").rpartition("/")[2] for client in clients if "url" in client.last]
    assert len(ready) == len(set(ready))
    expected = set(ready) - killer.lost_servers

    def nobodys() -> set[str]:
        return set(machine.hub.users) - expected

    try:
        eventually(lambda: not nobodys(), LEAVE_SECONDS + 10)
    except AssertionError as error:
        left, log = nobodys(), machine.webs.log().splitlines()
        said = "\n".join(line for line in log if any(user in line for user in left))
        gone = [client.path for client in clients if client.has_left and not client.is_over]
        told = f"of these the Hub has said to be ready {left & machine.hub.told_ready}; who left: {gone}"
        raise AssertionError(f"nobody's: {left}; {told}\n{said[-3000:]}") from error
    assert expected <= set(machine.hub.users), "a visitor's server was removed"
