"""A whole farm whose images live in a registry, under enforced rules, and what its visitors see of others' faults.

Between the two stands a `Faulty`, which passes everything on unless a test tells it to fail.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from tests.githost import GitHost
from tests.integration.client import Client
from tests.integration.farm import eventually
from tests.local.farm import Farm
from tests.local.test_click import NOTEBOOK
from tests.registries import SECRET_HASH, Fault, Faulty, blob_uploads, guard, serve_registry
from tests.visitor import Click, Visitor, git_spec, run_cell
from web.launching.hub import HubClient
from workflows.build import BuildStatus
from workflows.errors import PolicyError
from workflows.image import ImageDigest, ImageName, split_tag
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.registry.store import RegistryStore
from workflows.settings import Settings
from workflows.stores.catalogue import FolderCatalogue

IGNORED = """
[[ignore]]
id = "CVE-2099-0001"
package = "bash"
reason = "an advisory that the tests made up, of every base image"
expires = 2999-12-31
"""
SCRATCH = {"Dockerfile": "FROM scratch\nCOPY README.md /\n", "README.md": "x"}
STEADY = """\
FROM localhost/argosy/base:bookworm
RUN for number in $(seq 9999); do echo "line $number"; sleep 0.1; done
"""
VULNERABLE = {
    "Dockerfile": "FROM scratch\nCOPY os-release /etc/\n"
    "COPY METADATA /usr/lib/python3/dist-packages/requests-2.19.0.dist-info/\n",
    "os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
    "METADATA": "Metadata-Version: 2.1\nName: requests\nVersion: 2.19.0\n",
}


class Target:
    """A farm and its registry.

    Args:
        folder: Of both.
        faulty: What stands before the registry.
        database: The folder of Grype's database.
    """

    def __init__(self, folder: Path, faulty: Faulty, database: Path) -> None:
        self.folder = folder
        self.faulty = faulty
        self.database = database
        auth = {"auths": {faulty.place: {"auth": base64.b64encode(b"argosy:secret").decode()}}}
        (folder / "auth.json").write_text(json.dumps(auth))
        (folder / "ignore.toml").write_text(IGNORED)
        registry = {
            "image_store": "registry",
            "image_prefix": f"{faulty.place}/argosy/",
            "registry_auth_file": str(folder / "auth.json"),
            "registry_ca_file": str(folder / "ca.pem"),
            "registry_timeout_seconds": "2",
            "compression": "zstd",
            "scan_policy": "enforce",
            "scan_ignore_file": str(folder / "ignore.toml"),
            "grype_db": str(database),
            "resolve_timeout_seconds": "5",
            "fetch_timeout_seconds": "20",
            "parallel_builds": "3",
            "parallel_builds_per_network": "3",
        }
        self.farm = Farm(folder / "state", **{f"ARGOSY_{name.upper()}": value for name, value in registry.items()})
        environment = self.farm.environment.items()
        self.settings = Settings(**{name.removeprefix("ARGOSY_").lower(): value for name, value in environment})
        self.visitor = Visitor(self.farm.url)

    def click(self, url: str, ref: str = "HEAD") -> Click:
        """A click that stops at the image."""
        return self.visitor.click(git_spec(url, ref), build_only=True)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.farm.url}{path}", timeout=30)

    def image(self, click: Click) -> ImageName:
        """The image that a click was about."""
        status = self.settings.builds_folder / click.build / "status.json"
        return BuildStatus.from_json(status.read_text()).request.image

    @contextmanager
    def failing(self, fault: Fault, where: str = "", times: int = 1_000_000) -> Iterator[list[str]]:
        """The registry fails at requests like ``PUT /v2/…``, so many times; which those were."""
        failed: list[str] = []

        def rule(method: str, path: str) -> Fault | None:
            if len(failed) >= times or not re.search(where, f"{method} {path}"):
                return None
            failed.append(f"{method} {path}")
            return fault

        self.faulty.rule = rule
        try:
            yield failed
        finally:
            self.faulty.rule = lambda method, path: None

    @contextmanager
    def restarted(self, **settings: str) -> Iterator[None]:
        """The farm with other settings, for a while."""
        before = self.farm.environment
        self.farm.stop()
        self.farm.environment = before | {f"ARGOSY_{name.upper()}": value for name, value in settings.items()}
        self.farm.start()
        try:
            yield
        finally:
            self.farm.stop()
            self.farm.environment = before
            self.farm.start()

    @property
    def registry(self) -> psutil.Process:
        mark = str(self.folder / "registry.yml")
        return next(each for each in psutil.Process().children() if mark in each.cmdline())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, grype_db: Path) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    shutil.copytree(grype_db, folder / "database")
    with (
        serve_registry(folder, guard(folder), tls=True) as place,
        Faulty(place, folder).serving() as faulty,
    ):
        target = Target(folder, faulty, folder / "database")
        target.farm.start()
        try:
            yield target
        finally:
            target.farm.stop()


# --- a registry as the target ---


def test_a_click_becomes_a_server_of_an_image_that_the_hub_has_pulled(target: Target, githost: GitHost) -> None:
    commit = githost.create("class/far", {"requirements.txt": "six==1.17.0\n", "index.ipynb": NOTEBOOK})
    first = target.visitor.click(git_spec(f"{githost.url}/class/far"))
    assert first.last["phase"] == "ready", first.log + target.farm.log()
    assert run_cell(first.last["url"], first.last["token"], "import six; print(six.__version__)").strip() == "1.17.0"

    name, tag = split_tag(ImageName(first.last["image"].partition("@")[0]))
    assert (name.partition("/argosy/")[0], tag) == (target.settings.image_prefix.partition("/argosy/")[0], commit)
    digest = RegistryStore(target.settings).digest(ImageName(f"{name}:{tag}"))
    assert digest
    slug = name.partition("/")[2]
    assert blob_uploads(target.folder, f"argosy/staging/{first.build}") != []
    sent = [line for line in blob_uploads(target.folder, slug) if line.startswith("PUT")]
    assert len(sent) == 2, "the SBOM and its empty configuration alone: no blob of the image is sent twice"

    eventually(lambda: target.get(f"/builds/{first.build}/sbom").ok, 60)
    attached = Referrers(Connection(target.settings)).find(name, digest)
    assert attached == target.get(f"/builds/{first.build}/sbom").content
    assert "six" in {component["name"] for component in json.loads(attached)["components"]}

    second = target.visitor.click(git_spec(f"{githost.url}/class/far"))
    assert second.last["phase"] == "ready", second.log
    assert "building" not in second.phases


def test_a_server_is_started_of_layers_in_gzip_too(target: Target, githost: GitHost) -> None:
    githost.create("class/gzip", {"requirements.txt": "six==1.16.0\n", "index.ipynb": NOTEBOOK})
    with target.restarted(compression="gzip"):
        click = target.visitor.click(git_spec(f"{githost.url}/class/gzip"))
        assert click.last["phase"] == "ready", click.log + target.farm.log()
        version = run_cell(click.last["url"], click.last["token"], "import six; print(six.__version__)").strip()
        assert version == "1.16.0"
        name, tag = split_tag(ImageName(click.last["image"].partition("@")[0]))
        manifest = Connection(target.settings).ask("GET", name, f"manifests/{tag}")
        assert manifest
        kinds = [layer["mediaType"] for layer in json.loads(manifest.body)["layers"]]
        assert kinds[-1].endswith("+gzip"), kinds


# --- enforced rules ---


@pytest.mark.smoke
def test_what_the_rules_refuse_is_never_launchable_and_its_findings_are_shown(target: Target, githost: GitHost) -> None:
    githost.create("class/vulnerable", VULNERABLE)
    click = target.visitor.click(git_spec(f"{githost.url}/class/vulnerable"))
    assert (click.last["phase"], click.last["reason"]) == ("failed", "policy"), click.log
    assert "CVE-2018-18074 in requests 2.19.0" in click.last["message"]

    page = f"/builds/{click.build}"
    eventually(lambda: "CVE-2018-18074" in target.get(page).text, 60)
    found = target.get(f"{page}/findings").json()
    assert [each["id"] for each in found["findings"]] == ["CVE-2018-18074"]
    assert "requests" in target.get(f"{page}/sbom").text

    image, digest = target.image(click), ImageDigest(found["digest"])
    assert RegistryStore(target.settings).digest(image) is None
    assert FolderCatalogue(target.settings.catalogue_folder).get(image) is None
    # Not even for whoever has web's token and knows the digest.
    with pytest.raises(PolicyError):
        start_by_hand(HubClient(target.settings), f"{image}@{digest}")


def start_by_hand(hub: HubClient, image: str) -> None:
    """Ask for a server without web, and wait for it."""
    hub.create_user("mallory")
    try:
        hub.start_server("mallory", {"image": image, "token": "t" * 22})
        # A busy Hub takes the wish first, and refuses then.
        list(hub.progress("mallory", 60))
    finally:
        hub.delete_user("mallory")


def test_without_a_database_nothing_is_pushed_and_with_one_again_it_is(target: Target, githost: GitHost) -> None:
    githost.create("class/unscanned", SCRATCH)
    away = target.database / "away"
    (target.database / "6").rename(away)
    try:
        click = target.click(f"{githost.url}/class/unscanned")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "config"), click.log
        assert RegistryStore(target.settings).digest(target.image(click)) is None
    finally:
        away.rename(target.database / "6")
    assert target.click(f"{githost.url}/class/unscanned").last["phase"] == "ready"


def test_with_a_stale_database_nothing_is_pushed_and_what_it_finds_is_shown(target: Target, githost: GitHost) -> None:
    githost.create("class/stale", VULNERABLE | {"README.md": "stale"})
    with target.restarted(grype_db_max_age_hours="0.000001"):
        click = target.click(f"{githost.url}/class/stale")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "config"), click.log
        assert RegistryStore(target.settings).digest(target.image(click)) is None
        eventually(lambda: "CVE-2018-18074" in target.get(f"/builds/{click.build}").text, 60)
        found = target.get(f"/builds/{click.build}/findings").json()
        assert found["verdict"] == "stale-database"
        assert [each["id"] for each in found["findings"]] == ["CVE-2018-18074"]


# --- others' faults, and who does not notice ---


@pytest.fixture
def steady(target: Target, githost: GitHost) -> Iterator[Client]:
    """Somebody who follows a build that goes on and on, and who misses no line whatever fails beside it."""
    githost.create("class/steady", {"Dockerfile": STEADY})
    client = Client(target.farm.url, f"{git_spec(f'{githost.url}/class/steady')}?build_only=true")
    eventually(lambda: lines_of(client), 60)
    yield client
    seen = len(lines_of(client))
    eventually(lambda: len(lines_of(client)) > seen, 30)
    assert not client.is_over, client.last
    build = next(event["build"] for event in client.events if event.get("build"))
    requests.post(f"{target.farm.url}/builds/{build}/cancel", timeout=30).raise_for_status()
    eventually(lambda: client.is_over, 60)
    assert client.last["reason"] == "cancelled"
    lines = lines_of(client)
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert client.streams == 1


def lines_of(client: Client) -> list[str]:
    return re.findall(r"^line \d+$", "".join(event.get("message", "") for event in client.events), re.MULTILINE)


def test_a_registry_that_does_not_answer_fails_those_who_need_it_until_it_is_back(
    target: Target, githost: GitHost, steady: Client
) -> None:
    githost.create("class/unlucky", SCRATCH)
    with paused(target.registry):
        click = target.click(f"{githost.url}/class/unlucky")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "transient"), click.log
    assert target.click(f"{githost.url}/class/unlucky").last["phase"] == "ready"


ZEROS = "sha256:" + "0" * 64
FAULTS = {
    "busy": (Fault(status=429), ""),
    "busy for an hour": (Fault(status=429, headers={"Retry-After": "3600"}), ""),
    "broken": (Fault(status=500), ""),
    "hangs up": (Fault(drop=True), ""),
    "broken for a build": (Fault(status=500), "/staging/"),
    "busy for a build": (Fault(status=429), "/staging/"),
    "breaks in mid-push": (Fault(status=500), "P(UT|ATCH) .*/staging/.*/blobs"),
    "hangs up in mid-push": (Fault(drop=True), "P(UT|ATCH) .*/staging/.*/blobs"),
    "breaks in promotion": (Fault(status=500), "PUT (?!.*/staging/).*/manifests"),
    "lies of what is staged": (Fault(headers={"Docker-Content-Digest": ZEROS}), "GET .*/staging/.*/manifests"),
    "gives other bytes": (Fault(spoil=lambda body: body + b"\n"), "GET .*/staging/.*/manifests/sha256"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_registry_that_fails_is_nobodys_fault_and_forgotten_when_it_is_well(
    target: Target, githost: GitHost, kind: str
) -> None:
    name = f"class/{kind.replace(' ', '-')}"
    githost.create(name, SCRATCH | {"README.md": kind})
    fault, where = FAULTS[kind]
    with target.failing(fault, where) as failed:
        click = target.click(f"{githost.url}/{name}")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "transient"), click.log
        assert failed
    again = target.click(f"{githost.url}/{name}")
    assert again.last["phase"] == "ready", again.log
    catalogue = FolderCatalogue(target.settings.catalogue_folder)
    entry, held = catalogue.get(target.image(again)), RegistryStore(target.settings).digest(target.image(again))
    assert entry
    assert entry.digest == held


def test_a_registry_that_refuses_connections_fails_those_who_need_it_until_it_takes_them(
    target: Target, githost: GitHost
) -> None:
    githost.create("class/refused", SCRATCH | {"README.md": "refused"})
    target.faulty.refuse()
    try:
        click = target.click(f"{githost.url}/class/refused")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "transient"), click.log
    finally:
        target.faulty.start()
    assert target.click(f"{githost.url}/class/refused").last["phase"] == "ready"


@pytest.mark.parametrize(
    "fault", [Fault(status=429, headers={"Retry-After": "1"}), Fault(status=500)], ids=["asks for a pause", "fails"]
)
def test_a_registry_that_is_back_before_the_last_try_is_not_noticed(
    target: Target, githost: GitHost, fault: Fault
) -> None:
    name = f"class/once-{fault.status}"
    githost.create(name, SCRATCH | {"README.md": name})
    with target.failing(fault, "/staging/", times=1) as failed:
        click = target.click(f"{githost.url}/{name}")
    assert failed
    assert click.last["phase"] == "ready", click.log


def test_a_registry_that_takes_our_password_no_more_is_the_operators_affair(
    target: Target, githost: GitHost, steady: Client
) -> None:
    githost.create("class/stranger", SCRATCH)
    (target.folder / "htpasswd").write_text(f"somebody-else:{SECRET_HASH}\n")
    try:
        click = target.click(f"{githost.url}/class/stranger")
        assert (click.last["phase"], click.last["reason"]) == ("failed", "config"), click.log
    finally:
        guard(target.folder)
    assert target.click(f"{githost.url}/class/stranger").last["phase"] == "ready"


def test_a_host_that_drips_is_given_up(target: Target, tmp_path: Path, steady: Client) -> None:
    host = GitHost(tmp_path / "dripping", bytes_per_second=10).start()
    try:
        commit = host.create("class/dripping", SCRATCH | {"data": "x" * 100_000})
        click = target.click(f"{host.url}/class/dripping", commit)
        assert click.last["phase"] == "failed", click.log
        assert click.last["reason"] in {"timeout", "transient"}, click.log
    finally:
        host.stop()


@contextmanager
def paused(process: psutil.Process) -> Iterator[None]:
    """A process that holds its connections and says nothing."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
