"""From stage to scan by the steps' own run(): with skopeo, a registry or a storage, Syft and Grype."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.images import DEBIAN, python_package
from tests.steps import BUILD, VULNERABLE, Build, last_line
from workflows.errors import ArgosyError, BuildError, ConfigError, InternalError, TransientError
from workflows.scan.findings import Severity
from workflows.scan.verdict import Outcome, Verdict, parse_verdict
from workflows.settings import Settings
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.images import image_store
from workflows.stores.staging import Staging


@pytest.fixture(params=["registry", pytest.param("storage", marks=pytest.mark.deep)])
def build(request: pytest.FixtureRequest, tmp_path: Path, grype_db: Path) -> Build:
    """A build whose image goes to a registry or into this machine's storage."""
    return Build(request.getfixturevalue(f"to_{request.param}").model_copy(update={"grype_db": grype_db}), tmp_path)


@pytest.fixture
def to_storage(machine: Settings) -> Settings:
    return machine


@pytest.fixture
def here(to_registry: Settings, tmp_path: Path, grype_db: Path) -> Build:
    """A build for whose test it does not matter where its image goes."""
    return Build(to_registry.model_copy(update={"grype_db": grype_db}), tmp_path)


def scan(build: Build, capsys: pytest.CaptureFixture[str], **changes: object) -> Verdict:
    build.run("scan", build.ours.model_copy(update=changes))
    verdict = parse_verdict(last_line(capsys))
    assert verdict is not None
    return verdict


def test_a_staged_image_is_pushed_published_and_scanned(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    digest = build.write(VULNERABLE)
    build.run("stage")
    build.run("push")
    assert json.loads(last_line(capsys)) == {"image": build.image, "digest": digest}
    assert image_store(build.ours).digest(build.image) == digest
    build.run("publish")
    entry = FolderCatalogue(build.ours.catalogue_folder).get(build.image)
    assert entry is not None
    assert (entry.digest, entry.commit, entry.build) == (digest, "1a2b3c4", BUILD)
    verdict = scan(build, capsys)
    assert verdict.outcome is Outcome.FINDINGS
    assert verdict.digest == digest
    (finding,) = verdict.findings
    assert (finding.id, finding.package, finding.version) == ("CVE-2018-18074", "requests", "2.19.0")
    assert (finding.severity, finding.fixed) == (Severity.HIGH, "2.20.0")
    sbom = json.loads((build.ours.workspace / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert "pkg:pypi/requests@2.19.0" in {part.get("purl") for part in sbom["components"]}
    assert parse_verdict((build.ours.workspace / "findings.json").read_text()) == verdict
    Staging(build.ours).discard(BUILD)
    with pytest.raises(BuildError):
        build.run("push")


def test_an_image_that_is_there_already_is_scanned_and_published_and_nothing_is_staged(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = build.write(VULNERABLE)
    for step in ("stage", "push"):
        build.run(step)
    Staging(build.ours).discard(BUILD)
    (build.ours.workspace / "pushed.json").unlink()
    build.run("push", held=digest)
    assert json.loads(last_line(capsys)) == {"image": build.image, "digest": digest}
    build.run("publish", held=digest)
    entry = FolderCatalogue(build.ours.catalogue_folder).get(build.image)
    assert entry is not None
    # What built it, nobody knows: the sweep renews it.
    assert (entry.digest, entry.builder) == (digest, "unknown")
    build.run("scan", held=digest)
    verdict = parse_verdict(last_line(capsys))
    assert verdict is not None
    assert (verdict.digest, [finding.id for finding in verdict.findings]) == (digest, ["CVE-2018-18074"])
    assert not (build.ours.workspace / "layout").exists()


def test_an_image_that_is_not_there_any_more_is_not_published(build: Build) -> None:
    digest = build.write(VULNERABLE)
    for held in (digest, "sha256:" + "0" * 64):
        for step in ("scan", "push"):
            with pytest.raises(TransientError):
                build.run(step, held=held)
    with pytest.raises(InternalError):
        build.run("publish", held=digest)


def test_what_is_no_digest_is_held_by_nobody(build: Build) -> None:
    for step in ("scan", "push"):
        with pytest.raises(InternalError):
            build.run(step, held="latest")


def test_another_image_under_the_name_is_not_the_one_that_was_held(build: Build) -> None:
    first = build.write(VULNERABLE)
    for step in ("stage", "push"):
        build.run(step)
    shutil.rmtree(build.settings.workspace / "layout", ignore_errors=True)
    build.write(DEBIAN)
    for step in ("stage", "push"):
        build.run(step)
    with pytest.raises(TransientError):
        build.run("push", held=first)


def test_steps_that_are_run_again_end_the_same(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    digest = build.write(VULNERABLE)
    for step in ("stage", "stage", "push", "push", "publish", "publish"):
        build.run(step)
    assert image_store(build.ours).digest(build.image) == digest
    assert scan(build, capsys).outcome is scan(build, capsys).outcome
    left = {path.name for path in build.ours.workspace.iterdir()}
    assert left == {"pushed.json", "sbom.cdx.json", "findings.json"}


def test_nothing_is_pushed_where_nothing_was_staged(build: Build) -> None:
    for step in ("push", "scan"):
        with pytest.raises(BuildError):
            build.run(step)


def test_a_registry_that_is_away_is_worth_another_try(to_registry: Settings, tmp_path: Path) -> None:
    build = Build(to_registry.model_copy(update={"image_prefix": "127.0.0.1:1/argosy/"}), tmp_path)
    build.write(VULNERABLE)
    for step in ("stage", "push"):
        with pytest.raises(TransientError):
            build.run(step)


@pytest.mark.parametrize("pushed", [None, "{", '{"image": "localhost/argosy/other:1", "digest": "sha256:0"}'])
def test_only_what_push_pushed_is_published(here: Build, pushed: str | None) -> None:
    if pushed is not None:
        (here.ours.workspace / "pushed.json").write_text(pushed)
    with pytest.raises(InternalError):
        here.run("publish")
    assert FolderCatalogue(here.ours.catalogue_folder).entries() == ()


def test_an_image_with_nothing_against_it_passes(here: Build, capsys: pytest.CaptureFixture[str]) -> None:
    here.write(DEBIAN | python_package("requests", "2.32.0"))
    here.run("stage")
    verdict = scan(here, capsys)
    assert verdict.outcome is Outcome.PASS
    assert verdict.database.age_hours is not None


def test_a_missing_database_is_said(here: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here.write(VULNERABLE)
    here.run("stage")
    verdict = scan(here, capsys, grype_db=tmp_path / "no-database")
    assert verdict.outcome is Outcome.NO_DATABASE
    assert verdict.findings == ()
    # What is in the image is known all the same.
    assert (here.ours.workspace / "sbom.cdx.json").exists()


def test_without_a_scanner_the_image_is_said_to_be_not_scanned_yet_and_what_is_in_it_is_known(
    here: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "grype").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(without))
    monkeypatch.setenv("HOME", str(tmp_path))
    digest = here.write(VULNERABLE)
    here.run("stage")
    verdict = scan(here, capsys)
    assert (verdict.outcome, verdict.digest, verdict.is_whole) == (Outcome.NOT_YET, digest, False)
    assert "pkg:pypi/requests@2.19.0" in (here.ours.workspace / "sbom.cdx.json").read_text()


def test_a_broken_database_is_no_database(
    here: Build, tmp_path: Path, grype_db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(grype_db, tmp_path / "broken")
    (tmp_path / "broken" / "6" / "vulnerability.db").write_bytes(b"not a database")
    here.write(VULNERABLE)
    here.run("stage")
    assert scan(here, capsys, grype_db=tmp_path / "broken").outcome is Outcome.NO_DATABASE


def test_a_stale_database_is_said_and_still_asked(here: Build, capsys: pytest.CaptureFixture[str]) -> None:
    here.write(VULNERABLE)
    here.run("stage")
    verdict = scan(here, capsys, grype_db_max_age_hours=1e-9)
    assert verdict.outcome is Outcome.STALE_DATABASE
    assert [finding.id for finding in verdict.findings] == ["CVE-2018-18074"]


def test_a_machine_without_scanners_is_set_up_wrongly(
    here: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write(VULNERABLE)
    here.run("stage")
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        bare.setenv("HOME", str(tmp_path))
        bare.setattr("sys.executable", str(tmp_path / "python"))
        with pytest.raises(ConfigError, match="set up wrongly"):
            here.run("scan")


@pytest.mark.parametrize("name", ["../../etc", "Build-x", ""])
def test_a_name_that_is_no_builds_reaches_no_step(here: Build, name: str) -> None:
    for step in ("stage", "push", "scan"):
        with pytest.raises(ArgosyError):
            here.run(step, build=name)
