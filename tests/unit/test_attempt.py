"""What a runner is handed over, and what of the environment a step may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.build import BuildRequest, BuildStatus, State
from workflows.engines.attempt.environment import step_environment
from workflows.engines.attempt.folder import BuildFolder
from workflows.engines.attempt.job import WORKSPACE, Job
from workflows.engines.attempt.journal import Changes, tell
from workflows.errors import NotFoundError
from workflows.image import BuildName, CommitSHA, ImageName
from workflows.pipeline import SECRET_SETTINGS, STEPS, Half
from workflows.settings import PREFIX, Settings


@pytest.fixture
def wish() -> BuildRequest:
    return BuildRequest(
        image=ImageName("localhost/example:1"),
        provider="git",
        spec="x",
        ref="main",
        commit=CommitSHA("1" * 40),
        repo_url="https://example.org/repo",
        clone_url="https://example.org/repo",
        slug="example",
        owner="owner",
    )


def test_a_job_survives_its_way_over_the_disk():
    job = Job(
        steps=STEPS,
        command=("python", "-I"),
        parameters={"build": "b"},
        environments={"fetch": {"PATH": "/bin"}},
        timeout_seconds=1.5,
    )
    assert Job.from_json(job.to_json()) == job


def test_the_marks_name_is_a_setting():
    assert WORKSPACE.removeprefix(PREFIX).lower() in Settings.model_fields


PUBLIC_FILES = {"registry_ca_file", "scan_ignore_file"}
"""Files that any step may read."""


def test_every_setting_that_leads_to_a_secret_is_withheld():
    suspects = {
        name for name in Settings.model_fields if name.endswith(("_file", "_token", "_secret", "_key"))
    } - PUBLIC_FILES
    assert suspects <= SECRET_SETTINGS <= Settings.model_fields.keys()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_sees_only_what_the_allow_list_names(step, monkeypatch, tmp_path: Path):
    for name in ("GITHUB_TOKEN", "SSH_AUTH_SOCK", "PYTHONPATH", "LD_PRELOAD", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("HOME", "/root")
    seen = step_environment(step, tmp_path, Settings(state=tmp_path, hub_token_file=tmp_path / "t"))
    assert "planted" not in seen.values()
    assert "ARGOSY_HUB_TOKEN_FILE" not in seen
    assert seen["https_proxy"] == "http://proxy.example:3128"
    assert seen["HOME"] == (str(tmp_path) if step.half is Half.STRANGERS else "/root")
    assert seen["TMPDIR"] == str(tmp_path / "tmp")


@pytest.mark.parametrize("name", ["", ".", "..", "../etc", "/etc", "build-a-1234567-12345678/../x", "a" * 64])
def test_no_name_leads_out_of_the_builds_folder(name: str, tmp_path: Path):
    with pytest.raises(NotFoundError):
        BuildFolder(tmp_path, BuildName(name))


def test_a_journal_that_grows_too_long_begins_anew_and_nothing_is_missed(tmp_path: Path, wish):
    changes = Changes(tmp_path)
    assert changes.poll() == []
    for _ in range(6000):
        tell(tmp_path, BuildName("build-" + "x" * 40 + "-1234567-12345678"))
    assert (tmp_path / ".changes").stat().st_size < 256 * 1024
    BuildFolder.create(tmp_path, BuildStatus(request=wish, state=State.QUEUED, created=1))
    assert [status.name for status in changes.poll()] == [wish.name]
    assert changes.poll() == []
    changes.close()


def test_a_name_in_the_journal_that_is_none_is_passed_over(tmp_path: Path):
    changes = Changes(tmp_path)
    changes.poll()
    with (tmp_path / ".changes").open("ab") as journal:
        journal.write(b"../../etc\n\xff\xfe\n\n")
    assert changes.poll() == []
    changes.close()


def test_a_change_that_nobody_told_of_is_found_all_the_same(tmp_path: Path, wish):
    changes = Changes(tmp_path)
    changes.poll()
    BuildFolder.create(tmp_path, BuildStatus(request=wish, state=State.QUEUED, created=1))
    (tmp_path / ".changes").write_bytes(b"")
    changes._scan_at = 0
    assert len(changes.poll()) == 1
    changes.close()
