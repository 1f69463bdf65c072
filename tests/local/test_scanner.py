"""A farm that begins without its scanner: it is used meanwhile, and what was published is scanned once it is there."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.githost import GitHost
from tests.integration.farm import eventually
from tests.local.farm import Farm
from tests.visitor import Visitor, git_spec

COMPILE_SECONDS = 900
"""Four minutes on two idle cores where nothing of it was compiled before."""


@pytest.fixture
def fresh(tmp_path: Path, grype_db: Path) -> Iterator[Farm]:
    """A farm on a machine that has everything but Grype, and a browser."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argosy"
    folder = tmp_path / "cache" / "argosy"
    (folder / "bin").mkdir(parents=True)
    for entry in (*cache.iterdir(), *(cache / "bin").iterdir()):
        if entry.name not in {"bin", "grype", "base-image.lock"}:
            (folder / entry.relative_to(cache)).symlink_to(entry)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    go = subprocess.run(["go", "env", "GOPATH", "GOCACHE"], capture_output=True, text=True, check=True)
    environment = dict(zip(("GOPATH", "GOCACHE"), go.stdout.split(), strict=True))
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(folder.parent),
        "PATH": os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != str(cache / "bin")),
        "BROWSER": str(browser),
        "OPEN": "1",
    }
    farm = Farm(tmp_path / "state", ARGOSY_GRYPE_DB=str(grype_db), **environment)
    yield farm
    farm.stop()


def test_images_are_published_before_the_scanner_is_there_and_scanned_once_it_is(
    fresh: Farm, githost: GitHost, tmp_path: Path
) -> None:
    githost.create("class/early", {"Dockerfile": "FROM scratch\nCOPY README.md /\n", "README.md": "early"})
    fresh.start()
    opened = eventually(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text())
    assert opened.startswith(f"{fresh.url}/v2/git/"), "OPEN=1 opens the example"

    click = Visitor(fresh.url).click(git_spec(f"{githost.url}/class/early"), build_only=True)

    assert click.last["phase"] == "ready", click.log
    assert "Not scanned yet" in verdict(fresh, click.build, "")
    assert "not-scanned-yet" in requests.get(f"{fresh.url}/builds/{click.build}/findings", timeout=30).text
    assert requests.get(f"{fresh.url}/builds/{click.build}/sbom", timeout=30).status_code == 200
    said = verdict(fresh, click.build, "Not scanned yet")
    assert "nothing is known against" in said
    assert (tmp_path / "cache" / "argosy" / "bin" / "grype").exists()
    assert "✔ the scanner, in the background" in fresh.log()


def verdict(farm: Farm, build: str, seen: str) -> str:
    """What a build's page says of the scan, once that is something other than `seen`."""
    deadline = time.monotonic() + COMPILE_SECONDS
    while True:
        page = requests.get(f"{farm.url}/builds/{build}", timeout=30).text
        found = re.search(r"<h2>Known vulnerabilities</h2>\s*<p>(.*?)</p>", page, re.DOTALL)
        if found and not (seen and seen in found[1]):
            return found[1]
        assert time.monotonic() < deadline, farm.log()
        time.sleep(0.5)
