"""`tools/affected.py`: every file of the repository has its suites, and the wide ones are never left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools.affected import CLUSTER, DEEP, EVERYTHING, ROOMS, changed, room_of, suites

ROOT = Path(__file__).parents[2]
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_file_is_in_a_room():
    for path in FILES:
        assert "test" in room_of(path).suites, path


def test_every_room_holds_a_file():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_a_file_in_no_room_is_said():
    with pytest.raises(LookupError, match=r"^new/thing.py is in no room"):
        suites(["web/app.py", "new/thing.py"])


def test_every_suite_is_a_target_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {suite for room in ROOMS for suite in room.suites} <= targets


@pytest.mark.parametrize(
    "path",
    [
        "workflows/builder/uv.py",
        "workflows/engines/local.py",
        "workflows/engines/argo/order.py",
        "hub-config/spawner.py",
        "tools/run.py",
        "tools/install",
    ],
)
def test_builder_engines_hub_and_tools_need_all_that_one_machine_can_show(path):
    assert DEEP in suites([path])


@pytest.mark.parametrize("path", ["workflows/engines/local.py", "charts/argosy/values.yaml", "requirements.lock"])
def test_engines_and_chart_need_all_that_a_cluster_can_show(path):
    assert CLUSTER in suites([path])


def test_suites_of_several_files_come_once_each_and_in_order():
    assert suites(["tests/cluster/farm.py", "web/app.py", "tests/benchmarks/feed.py", "README.md"]) == [
        "test",
        "test-deep-farm",
        "test-cluster",
        "bench",
    ]
    assert suites(["web/app.py", "tools/run.py"]) == ["test", "test-deep", "test-cluster"], "half of test-deep is in it"
    assert suites([]) == []
    assert suites(["pyproject.toml"]) == list(EVERYTHING)


def test_what_differs_is_what_is_committed_what_is_not_and_what_git_does_not_know(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("init")
    for name in ("same", "committed", "changed", "moved"):
        (tmp_path / name).write_text("1")
    (tmp_path / ".gitignore").write_text("ignored\n")
    git("add", ".")
    git("commit", "--message=first")
    git("tag", "base")
    (tmp_path / "committed").write_text("2")
    git("mv", "moved", "elsewhere")
    git("commit", "--all", "--message=second")
    (tmp_path / "changed").write_text("2")
    (tmp_path / "new").write_text("1")
    (tmp_path / "ignored").write_text("1")
    assert changed("base") == ["changed", "committed", "elsewhere", "moved", "new"]
    assert changed("HEAD") == ["changed", "new"]
    with pytest.raises(SystemExit, match="no-such-commit"):
        changed("no-such-commit")
