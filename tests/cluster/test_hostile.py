"""A repository whose RUN line gets out into the container of the build and does its worst there (`hostile/`)."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster.conftest import SECRETS
from tests.cluster.farm import Farm
from tests.cluster.namespace import Object, eventually
from tests.images import DEBIAN, python_package, write_layout
from tests.visitor import Click, Visitor, git_spec

HOSTILE = Path(__file__).parent / "hostile"
VULNERABLE = ("requests", "2.19.0")
"""What `tests/vulndb` knows something against, and its fix."""


def plant(running: Farm, name: str, folder: Path, *, is_torn: bool = False) -> tuple[str, set[str]]:
    """The repository; its commit, and the digests of the images that it may have staged."""
    images = {
        each: write_layout(folder / each, DEBIAN | python_package(*VULNERABLE) | {f"{each}.txt": each})
        for each in ("one", "two")
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for each in images:
            archive.add(folder / each, each)
    wanted = {"secrets": [text[::-1] for text in said()], "victim": f"{running.prefix}victim:1", "is_torn": is_torn}
    files = {path.name: path.read_bytes() for path in HOSTILE.iterdir() if path.is_file()}
    files |= {"forged.tar": packed.getvalue(), "wanted.json": json.dumps(wanted).encode()}
    return running.githost.create(name, files), set(images.values())


def said() -> list[str]:
    """Each secret of the farm as it may be read: as it is, and as a registry's file has it."""
    plain = list(SECRETS.values())
    return plain + [base64.b64encode(f"argosy:{text}".encode()).decode() for text in plain]


def click(running: Farm, name: str) -> Click:
    made = Visitor(running.url).click(git_spec(f"{running.githost.url}/{name}"), build_only=True)
    assert "OUT of the RUN line" in made.log, f"{made.log}\n{running.logs()}"
    assert "LOOKED into" in made.log
    assert "FOUND" not in made.log, made.log
    return made


def entries(running: Farm) -> list[Object]:
    found = running.release.catalogue.list("configmaps", "argosy/image")
    return [json.loads(each["data"]["entry"]) for each in found]


def of(running: Farm, name: str) -> list[Object]:
    assert not [each for each in entries(running) if "victim" in json.dumps(each)]
    return [each for each in entries(running) if each["repo_url"].endswith(f"/{name}")]


def held(image: str) -> str:
    """The digest of what the registry holds under a name; empty where there is nothing."""
    command = ["skopeo", "inspect", "--no-tags", "--tls-verify=false", "--format={{.Digest}}", f"docker://{image}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def asked(running: Farm, build: str, file: str) -> Any:
    answer = requests.get(f"{running.url}/builds/{build}/{file}", timeout=60)
    return answer.json() if answer.status_code == 200 else None


def test_what_is_published_is_what_was_staged_scanned_by_us_and_under_its_own_name(
    running: Farm, tmp_path: Path
) -> None:
    commit, staged = plant(running, "hostile/forger", tmp_path)
    made = click(running, "hostile/forger")
    build = made.build
    assert made.last["phase"] == "ready", f"{made.last}\n{made.log}"
    (entry,) = of(running, "hostile/forger")
    assert entry["digest"] in staged
    assert entry["digest"] == held(entry["image"])
    assert (entry["commit"], entry["build"]) == (commit, build)
    assert entry["image"].endswith(f":{commit}")
    sbom = eventually(lambda: asked(running, build, "sbom"), what=running.logs)
    names = {part.get("purl") or part.get("name") for part in sbom["components"]}
    assert "pkg:pypi/requests@2.19.0" in names
    assert "forged-by-hostile" not in json.dumps(sbom)
    findings = eventually(lambda: asked(running, build, "findings"), what=running.logs)
    assert (findings["verdict"], findings["digest"]) == ("findings", entry["digest"])
    log = requests.get(f"{running.url}/builds/{build}/log", timeout=60).text
    assert "HOSTILE RAN" not in log


def test_one_that_tears_blobs_while_they_are_read_gets_a_whole_image_or_none(running: Farm, tmp_path: Path) -> None:
    _, staged = plant(running, "hostile/torn", tmp_path, is_torn=True)
    made = click(running, "hostile/torn")
    found = of(running, "hostile/torn")
    assert {entry["digest"] for entry in found} <= staged
    assert all(entry["digest"] == held(entry["image"]) for entry in found)
    assert bool(found) == (made.last["phase"] == "ready"), made.last


@pytest.fixture
def strict(running: Farm) -> Farm:
    running.install(scan__policy="enforce")
    yield running
    running.install(scan__policy="report")


def test_what_the_rules_refuse_is_refused_whatever_verdict_it_forges(strict: Farm, tmp_path: Path) -> None:
    commit, _ = plant(strict, "hostile/refused", tmp_path)
    made = click(strict, "hostile/refused")
    assert (made.last["phase"], made.last["reason"]) == ("failed", "policy"), made.log
    assert "CVE-2018-18074" in made.last["message"]
    assert of(strict, "hostile/refused") == []
    name = next(
        each["value"]
        for each in strict.release.builds.get("workflow", made.build)["spec"]["arguments"]["parameters"]
        if each["name"] == "image"
    )
    assert name.endswith(f":{commit}")
    assert held(name) == ""
