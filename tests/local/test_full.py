"""Full disks, for real: a build ends by it with its reason, nobody else notices, and with room again all goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.githost import GitHost
from tests.images import DEBIAN
from tests.integration.client import Client
from tests.integration.farm import eventually
from tests.integration.hub import FakeHub
from tests.integration.webs import Webs
from tests.invariants import StateFolder
from tests.local.building import Building
from tests.local.disks import Disk, small_disk
from tests.local.test_build import assert_nothing_is_left, repository
from tests.steps import Build
from tests.storages import forget
from tools.farm import free_ports
from workflows.errors import DISK_FULL, EXIT_CODES, Reason, TransientError
from workflows.settings import MIB, Settings, environment_of
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.containers import Containers
from workflows.stores.images import image_store

# --- one step after the other ---


@pytest.mark.parametrize("size", [16 * MIB, 40 * MIB], ids=["downloading", "laying out"])
def test_a_fetch_that_fills_the_workspace_is_nobodys_fault(githost: GitHost, tmp_path: Path, size: int) -> None:
    # Noise takes as much room packed as laid out: the smaller disk takes not even the pack.
    commit = githost.create("o/r", {"noise": os.urandom(24 * MIB)})
    with small_disk(tmp_path / "disk", size) as disk:
        settings = Settings(state=tmp_path / "state", workspace=disk.folder / "workspace")
        (settings.workspace / "tmp").mkdir(parents=True)
        arguments = ["--build=b", f"--clone-url={githost.url}/o/r", f"--commit={commit}", "--ref=main"]
        done = subprocess.run(
            [sys.executable, "-I", "-m", "workflows.run", "fetch", *arguments],
            # As the engine says it: temporary files lie in the workspace, too.
            env=os.environ | environment_of(settings) | {"TMPDIR": str(settings.workspace / "tmp")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == EXIT_CODES[Reason.TRANSIENT], done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == DISK_FULL
        assert not (settings.workspace / ".fetch").exists()


def test_a_line_that_meets_a_full_storage_is_nobodys_fault(building: Building) -> None:
    dockerfile = "ARG BASE\nFROM ${BASE}\nRUN head -c 40M /dev/urandom > /var/noise && echo written\n"
    with small_disk(building.state / "cache" / "repositories", 256 * MIB) as disk:
        disk.fill(leave=30 * MIB)
        built = building.build(repository(building, {"Dockerfile": dockerfile}), "full")
        assert built.code == EXIT_CODES[Reason.TRANSIENT], built.log + built.operator
        assert built.log.splitlines()[-1] == DISK_FULL
        disk.empty()
        again = building.build(repository(building, {"Dockerfile": dockerfile}), "full")
        assert again.code == 0, again.log + again.operator
    assert_nothing_is_left(building)


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[tuple[Build, Disk]]:
    """A built image, and a state folder on a small disk."""
    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        settings = Settings(state=disk.folder / "state")
        containers = Containers(settings)
        containers.prepare()
        build = Build(settings, tmp_path)
        build.write(DEBIAN | {"noise": os.urandom(8 * MIB)})
        yield build, disk
        forget(containers)


def test_each_step_that_meets_a_full_disk_goes_through_once_there_is_room(staged: tuple[Build, Disk]) -> None:
    build, disk = staged
    for step in ("stage", "push", "publish"):
        disk.fill()
        with pytest.raises(TransientError, match=DISK_FULL):
            build.run(step)
        assert FolderCatalogue(build.ours.catalogue_folder).entries() == ()
        disk.empty()
        build.run(step)
    (entry,) = FolderCatalogue(build.ours.catalogue_folder).entries()
    assert image_store(build.ours).digest(build.image) == entry.digest


# --- a farm ---

BODY = """
    if name == "build" and "fills" in image:
        with open(workspace / "filling", "wb", buffering=0) as filling:
            while True:
                filling.write(bytes(1 << 20))
    if name == "build" and "steady" in image:
        number = 0
        while not (state / "go").exists():
            print(f"line {number}", "x" * 200, flush=True)
            number += 1
            with (state / "printed").open("a") as printed: printed.write(".")
            time.sleep(0.05)
    if name == "push":
        push()
    if name == "publish":
        publish()
    say(5, 0.01)
"""


class Site:
    """A web whose workspaces, ledger and archive lie on a small disk each, and its visitors."""

    def __init__(self, folder: Path, disks: dict[str, Disk], hub: FakeHub) -> None:
        self.disks = disks
        self.webs = Webs(
            folder,
            free_ports(1)[0],
            hub.url,
            BODY,
            limit=600,
            ledger_url=f"sqlite:///{disks['ledger'].folder}/ledger.sqlite",
            archive_url=(disks["archive"].folder / "archive").as_uri(),
        )
        self.webs.start()

    def click(self, repository: str) -> Client:
        return Client(self.webs.url, f"gh/o/{repository}/main")

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.webs.url}{path}", timeout=30)

    @property
    def printed(self) -> int:
        """How many lines the steady build has printed."""
        return (self.webs.settings.state / "printed").stat().st_size

    def go_on(self) -> None:
        """Let builds of ``steady`` end."""
        (self.webs.settings.state / "go").touch()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    hub = FakeHub()
    places = {"builds": tmp_path / "state" / "builds", "ledger": tmp_path / "ledger", "archive": tmp_path / "archive"}
    with ExitStack() as stack:
        stack.callback(hub.close)
        disks = {name: stack.enter_context(small_disk(place, 48 * MIB)) for name, place in places.items()}
        site = Site(tmp_path, disks, hub)
        stack.callback(site.webs.close)
        yield site


def ended(client: Client) -> Client:
    eventually(lambda: client.is_over, 60)
    return client


def numbers(client: Client) -> list[str]:
    """Those of the lines of a steady build that a client has seen."""
    return [event["message"].split()[1] for event in client.events if event["message"].startswith("line ")]


def assert_every_line_once(site: Site, client: Client) -> None:
    """Nothing is missing of what a steady build has printed, up to its last line."""
    assert numbers(client) == [str(number) for number in range(site.printed)]


def test_a_build_that_fills_the_workspaces_ends_alone(site: Site) -> None:
    steady = site.click("steady")
    eventually(lambda: numbers(steady), 60)
    fills = ended(site.click("fills"))
    assert (fills.last["phase"], fills.last["reason"], fills.last["message"]) == (
        "failed",
        "transient",
        f"{DISK_FULL}\n",
    )
    assert not steady.is_over
    site.go_on()
    assert ended(steady).last["phase"] == "ready", steady.last
    assert_every_line_once(site, steady)
    assert ended(site.click("later")).last["phase"] == "ready"


def test_while_the_workspaces_are_full_nothing_begins_and_what_runs_loses_no_line(site: Site) -> None:
    steady = site.click("steady")
    eventually(lambda: numbers(steady), 60)
    site.disks["builds"].fill()
    refused = ended(site.click("refused"))
    assert (refused.last["phase"], refused.last["reason"]) == ("failed", "transient")
    assert refused.last["message"] == f"{DISK_FULL}\n"
    eventually(lambda: waiting_lines(site) > 20, 60)
    site.disks["builds"].empty()
    site.go_on()
    assert ended(steady).last["phase"] == "ready", steady.last
    assert_every_line_once(site, steady)
    assert ended(site.click("refused")).last["phase"] == "ready"


def test_a_build_whose_step_ends_while_the_workspaces_are_full_has_its_reason(site: Site) -> None:
    steady = site.click("steady")
    eventually(lambda: numbers(steady), 60)
    site.disks["builds"].fill()
    # What becomes of its step has to be written, and cannot be.
    site.go_on()
    assert ended(steady).last["message"] == f"{DISK_FULL}\n"
    assert (steady.last["phase"], steady.last["reason"]) == ("failed", "transient")
    site.disks["builds"].empty()
    assert ended(site.click("steady")).last["phase"] == "ready"


def waiting_lines(site: Site) -> int:
    """How many lines the build that runs has printed, and its log could not take yet."""
    logs = site.webs.settings.builds_folder.glob("build-*/logs/build.log")
    return site.printed - sum(path.read_text().count("\n") for path in logs)


@pytest.mark.parametrize("place", ["ledger", "archive"])
def test_a_full_ledger_or_archive_keeps_no_visitor_from_a_server_and_is_made_good(site: Site, place: str) -> None:
    known = ended(site.click("known"))
    site.disks[place].fill()
    built = ended(site.click("new"))
    again = ended(site.click("known"))
    assert [each.last["phase"] for each in (known, built, again)] == ["ready"] * 3, [built.last, again.last]
    name = next(event["build"] for event in built.events if event.get("build"))
    assert "build says 4" in site.get(f"/builds/{name}/log").text
    assert site.get(f"/builds/{name}").status_code == 200
    assert not is_filed(site, name)
    site.disks[place].empty()
    eventually(lambda: is_filed(site, name), 60)
    assert "build says 4" in site.get(f"/builds/{name}/log").text


def is_filed(site: Site, name: str) -> bool:
    row = StateFolder(site.disks["ledger"].folder).ledger().get(name)
    return bool(row and row["recorded"])
