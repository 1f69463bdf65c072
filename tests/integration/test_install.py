"""`tools/install`: what it puts where, what it leaves alone, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("tools/install", "requirements.lock", "pyproject.toml", "README.md", "LICENSE", "workflows", "web")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing was installed yet."""
    for name in FILES:
        source, target = ROOT / name, tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path / "checkout"


def install(checkout: Path, what: str, *around: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*around, str(checkout / "tools" / "install"), what]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def has(checkout: Path, module: str) -> bool:
    command = [checkout / ".venv" / "bin" / "python", "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.deep
def test_make_run_installs_what_it_needs_and_nothing_of_the_tests_and_takes_nothing_away(checkout: Path) -> None:
    first = install(checkout, "run")
    assert first.returncode == 0, first.stderr
    assert "✔ Python's packages" in first.stderr
    assert all(has(checkout, module) for module in ("flask", "jupyterhub", "repo2docker", "rich", "psycopg"))
    assert not any(has(checkout, module) for module in ("pytest", "mypy", "hera"))
    assert install(checkout, "run").stderr == "", "what is there is not installed again"

    assert install(checkout, "python").returncode == 0
    assert has(checkout, "pytest")
    lock = checkout / "requirements.lock"
    lock.write_text(f"{lock.read_text()}# a change\n")
    assert "✔ Python's packages" in install(checkout, "run").stderr
    assert has(checkout, "pytest"), "what the tests need stays"


@pytest.mark.deep
def test_what_make_run_installs_has_the_locks_versions(checkout: Path) -> None:
    assert install(checkout, "run").returncode == 0
    command = [Path(sys.executable).with_name("uv"), "pip", "freeze", "--python", checkout / ".venv/bin/python"]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    locked = {line.partition(" ;")[0] for line in (checkout / "requirements.lock").read_text().splitlines()}
    assert len(frozen) > 50
    # Those two are the virtual environment's own.
    assert {line for line in frozen if "==" in line and not line.startswith(("pip==", "setuptools=="))} <= locked


def test_whoever_is_not_root_is_told_so_before_anything_is_installed(checkout: Path, tmp_path: Path) -> None:
    done = install(checkout, "run", "unshare", "--user", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert done.stderr == "install: Builds run behind walls that only root can make: sudo make run\n"
    assert not (checkout / ".venv").exists()


def test_a_disk_that_is_too_small_is_told_before_it_is_filled(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    script = f'mount -t tmpfs -o size=8m tmpfs {cache} && exec "$0" "$@"'
    done = install(checkout, "run", "unshare", "--mount", "sh", "-c", script, XDG_CACHE_HOME=str(cache))
    assert done.returncode == 1
    assert done.stderr.startswith(f"install: 0 GiB are free on the disk of {cache}")
    assert "XDG_CACHE_HOME" in done.stderr
    assert not (checkout / ".venv").exists()
