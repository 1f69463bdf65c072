"""What a pod adds to a step's surroundings."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from workflows.run.pod import failed, forget_missing_secrets, leave_notice


def ended(ends: Path, name: str, text: str) -> None:
    (ends / name).mkdir(exist_ok=True)
    (ends / name / "exitcode").write_text(text)


def test_a_step_begins_when_those_before_it_have_ended_well(tmp_path: Path):
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(failed(("publish", "scan"), tmp_path)))
    waiting.start()
    ended(tmp_path, "scan", "0")
    waiting.join(0.3)
    assert waiting.is_alive()
    ended(tmp_path, "publish", "0")
    waiting.join(20)
    assert heard == [None]


def test_a_step_is_left_out_when_one_before_it_failed(tmp_path: Path):
    ended(tmp_path, "fetch", "0")
    ended(tmp_path, "build", "10")
    assert failed(("fetch", "build"), tmp_path) == "build"


def test_what_strangers_code_writes_as_an_exit_code_holds_nobody(tmp_path: Path):
    (tmp_path / "build").mkdir()
    os.mkfifo(tmp_path / "build" / "exitcode")
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "exitcode").symlink_to("/dev/zero")
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(failed(("build", "stage"), tmp_path)))
    waiting.start()
    waiting.join(0.3)
    for name, text in (("build", ""), ("stage", "nothing")):
        (tmp_path / name / "exitcode").unlink()
        ended(tmp_path, name, text)
    waiting.join(0.3)
    assert waiting.is_alive()
    ended(tmp_path, "build", "0")
    ended(tmp_path, "stage", "0")
    waiting.join(20)
    assert heard == [None]


def test_a_secret_that_is_not_mounted_is_not_named(tmp_path: Path):
    (tmp_path / "registry-write").mkdir()
    (tmp_path / "registry-write/auth.json").write_text("{}")
    there = str(tmp_path / "registry-write/auth.json")
    environment = {
        "ARGOSY_REGISTRY_AUTH_FILE": there,
        "ARGOSY_GITHUB_TOKEN_FILE": str(tmp_path / "provider-token/token"),
        "ARGOSY_SCAN_POLICY": "report",
    }
    forget_missing_secrets(environment, tmp_path)
    assert environment == {"ARGOSY_REGISTRY_AUTH_FILE": there, "ARGOSY_SCAN_POLICY": "report"}


def test_a_file_that_somebody_named_elsewhere_must_be_there(tmp_path: Path):
    environment = {"ARGOSY_REGISTRY_AUTH_FILE": "/etc/nowhere/auth.json", "ARGOSY_GITHUB_TOKEN_FILE": ""}
    before = dict(environment)
    forget_missing_secrets(environment, tmp_path)
    assert environment == before


def test_a_notice_is_left_only_where_there_is_a_place_for_it(tmp_path: Path):
    notice = tmp_path / "termination-log"
    leave_notice("Because.", notice)
    assert not notice.exists()
    notice.touch()
    leave_notice("Because." * 1000, notice)
    assert 0 < notice.stat().st_size <= 4096
