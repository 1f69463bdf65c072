"""Policy ``enforce`` with Syft and Grype: what is refused, what is ignored, a database that changes under scans."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images import DEBIAN
from tests.steps import VULNERABLE, Build, last_line
from workflows.errors import ConfigError, InternalError, PolicyError
from workflows.scan.database import hold
from workflows.scan.scanner import Scanner
from workflows.scan.verdict import Outcome, Verdict, parse_verdict
from workflows.settings import Settings
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.images import image_store

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def build(to_registry: Settings, tmp_path: Path, grype_db: Path) -> Build:
    """A staged image with one vulnerable package, under enforced rules."""
    build = Build(to_registry.model_copy(update={"grype_db": grype_db, "scan_policy": "enforce"}), tmp_path)
    build.write(VULNERABLE)
    build.run("stage")
    return build


def scan(build: Build, **changes: object) -> Verdict:
    """What the scan left, whether it let the image pass or not."""
    build.run("scan", build.ours.model_copy(update=changes))
    return left(build)


def left(build: Build) -> Verdict:
    verdict = parse_verdict((build.ours.workspace / "findings.json").read_text())
    assert verdict is not None
    return verdict


def ignore_file(folder: Path, expires: str = "2999-12-31", package: str = "requests") -> Path:
    path = folder / "ignore.toml"
    path.write_text(
        f'[[ignore]]\nid = "cve-2018-18074"\npackage = "{package}"\nreason = "no proxy here"\nexpires = {expires}\n'
    )
    return path


def test_what_the_rules_refuse_is_said_and_goes_no_further(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PolicyError, match=r"refuse this image.*CVE-2018-18074 in requests 2\.19\.0.*2\.20\.0") as told:
        scan(build)
    assert told.value.exit_code == 77
    said = parse_verdict(last_line(capsys))
    assert said is not None
    assert said == left(build)
    assert (said.outcome, said.refusing, said.ignored) == (Outcome.REFUSED, 1, 0)
    assert [(finding.id, finding.refuses) for finding in said.findings] == [("CVE-2018-18074", True)]
    assert (build.ours.workspace / "sbom.cdx.json").exists()
    # Whoever runs the next steps all the same gets nowhere.
    for step in ("push", "publish"):
        with pytest.raises(InternalError):
            build.run(step)
    assert image_store(build.ours).digest(build.image) is None
    assert FolderCatalogue(build.ours.catalogue_folder).entries() == ()


def test_what_the_rules_refuse_in_an_image_that_is_there_already_is_not_published(build: Build) -> None:
    build.run("push", build.ours.model_copy(update={"scan_policy": "report"}))
    digest = image_store(build.ours).digest(build.image)
    assert digest
    (build.ours.workspace / "pushed.json").unlink()
    with pytest.raises(PolicyError):
        build.run("scan", held=digest)
    for step in ("push", "publish"):
        with pytest.raises(InternalError):
            build.run(step, held=digest)
    assert FolderCatalogue(build.ours.catalogue_folder).entries() == ()


def test_what_the_rules_let_pass_is_pushed_and_published(build: Build) -> None:
    verdict = scan(build, scan_severity="critical")
    assert (verdict.outcome, verdict.refusing) == (Outcome.FINDINGS, 0)
    build.run("push")
    build.run("publish")
    assert image_store(build.ours).digest(build.image) == verdict.digest
    assert FolderCatalogue(build.ours.catalogue_folder).get(build.image) is not None


def test_only_what_was_scanned_is_pushed(build: Build) -> None:
    scan(build, scan_severity="critical")
    # Somebody who may write to the staging place puts another image there, after the scan.
    shutil.rmtree(build.settings.workspace / "layout", ignore_errors=True)
    build.write(DEBIAN | {"evil": "x"})
    build.run("stage")
    with pytest.raises(InternalError):
        build.run("push")
    assert image_store(build.ours).digest(build.image) is None


def test_what_nobody_can_mend_refuses_only_where_that_is_asked_for(build: Build, tmp_path: Path) -> None:
    advisory = {"id": "CVE-2099-1", "severity": "critical", "ecosystem": "pypi", "package": "requests", "affected": ""}
    (tmp_path / "advisories.json").write_text(json.dumps([advisory]))
    database = tmp_path / "unfixed"
    subprocess.run([HERE / "vulndb" / "make", database, tmp_path / "advisories.json"], check=True)
    assert scan(build, grype_db=database).outcome is Outcome.FINDINGS
    with pytest.raises(PolicyError):
        scan(build, grype_db=database, scan_only_fixable=False)


def test_what_is_ignored_is_told_with_its_reason(build: Build, tmp_path: Path) -> None:
    verdict = scan(build, scan_ignore_file=ignore_file(tmp_path))
    assert (verdict.outcome, verdict.refusing, verdict.ignored) == (Outcome.FINDINGS, 0, 1)
    assert verdict.findings[0].ignored == "no proxy here (until 2999-12-31)"
    assert "Ignored by the rules of this service: 1." in verdict.message
    build.run("push")


def test_an_entry_is_for_its_package_alone(build: Build, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        scan(build, scan_ignore_file=ignore_file(tmp_path, package="urllib3"))


def test_an_expired_entry_ignores_nothing_and_is_said(build: Build, tmp_path: Path) -> None:
    file = ignore_file(tmp_path, expires="2020-01-31")
    with pytest.raises(PolicyError, match="counts again since 2020-01-31 is over"):
        scan(build, scan_ignore_file=file)
    assert "cve-2018-18074 in requests" in left(build).message


def test_a_wrong_file_stops_before_the_scan(build: Build, tmp_path: Path) -> None:
    (tmp_path / "ignore.toml").write_text('[[ignore]]\nid = "CVE-1"\n')
    with pytest.raises(ConfigError) as told:
        scan(build, scan_ignore_file=tmp_path / "ignore.toml")
    assert "reason: missing" in told.value.detail
    assert "expires: missing" in told.value.detail
    assert not (build.ours.workspace / "sbom.cdx.json").exists()


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_fresh_database_nothing_passes(build: Build, tmp_path: Path, *, missing: bool) -> None:
    changes = {"grype_db": tmp_path / "none"} if missing else {"grype_db_max_age_hours": 1e-9}
    with pytest.raises(ConfigError, match="lets no image pass") as told:
        scan(build, **changes)
    assert told.value.exit_code == 78
    assert left(build).outcome is (Outcome.NO_DATABASE if missing else Outcome.STALE_DATABASE)
    with pytest.raises(InternalError):
        build.run("push")


# --- a database that changes under scans ---


@contextmanager
def updated_all_the_time(database: Path, folder: Path) -> Iterator[list[int]]:
    """The database's folder is taken away, another put in its place, and the old one deleted: again and again."""
    over, counted = threading.Event(), [0]

    def update() -> None:
        while not over.is_set():
            fresh, old = folder / "fresh", folder / "old"
            shutil.copytree(database / "6", fresh)
            (database / "6").rename(old)
            fresh.rename(database / "6")
            shutil.rmtree(old)
            counted[0] += 1

    thread = threading.Thread(target=update)
    thread.start()
    try:
        yield counted
    finally:
        over.set()
        thread.join()


@pytest.fixture
def changing(tmp_path: Path, grype_db: Path) -> Path:
    shutil.copytree(grype_db, tmp_path / "changing")
    return tmp_path / "changing"


def test_a_database_that_is_updated_while_scans_run_does_no_harm(
    settings: Settings, tmp_path: Path, changing: Path
) -> None:
    sbom = tmp_path / "sbom.cdx.json"
    part = {"type": "library", "name": "requests", "version": "2.19.0", "purl": "pkg:pypi/requests@2.19.0"}
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [part]}))
    settings = settings.model_copy(update={"grype_db": changing})

    def verdict(number: int) -> Outcome:
        return Scanner(settings, tmp_path / f"scan-{number}").verdict("sha256:0", sbom).outcome

    with updated_all_the_time(changing, tmp_path) as counted, ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(verdict, range(12)))
    assert counted[0] > 12
    assert outcomes == [Outcome.FINDINGS] * 12


def test_a_view_of_a_database_is_whole_and_stays(changing: Path, tmp_path: Path) -> None:
    names = {path.name for path in (changing / "6").iterdir()}
    with updated_all_the_time(changing, tmp_path) as counted:
        for number in itertools.count():
            if number >= 50 and counted[0] >= 10:
                break
            view = hold(changing, tmp_path / f"view-{number}")
            assert view != changing
            assert {path.name for path in (view / "6").iterdir()} == names
    held = (tmp_path / "view-0" / "6" / "vulnerability.db").read_bytes()
    assert held == (changing / "6" / "vulnerability.db").read_bytes()
