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

from tests.cluster.conftest import PASSWORDS, SECRETS
from tests.cluster.farm import Farm
from tests.cluster.namespace import Object, eventually
from tests.images import DEBIAN, python_package, write_layout
from tests.visitor import Click, Visitor, git_spec

HOSTILE = Path(__file__).parent / "hostile"
PUSHES = 3
"""How often `hostile.py` tries to push."""
VULNERABLE = ("requests", "2.19.0")
"""What `tests/vulndb` knows something against, and its fix."""


def plant(guarded: Farm, name: str, folder: Path, *, is_torn: bool = False) -> tuple[str, set[str]]:
    """The repository; its commit, and the digests of the images that it may have staged."""
    images = {
        each: write_layout(folder / each, DEBIAN | python_package(*VULNERABLE) | {f"{each}.txt": each})
        for each in ("one", "two")
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for each in images:
            archive.add(folder / each, each)
    wanted = {
        "secrets": [text[::-1] for text in said()],
        "prefix": guarded.prefix,
        "victim": f"{guarded.prefix}victim:1",
        "is_torn": is_torn,
    }
    files = {path.name: path.read_bytes() for path in HOSTILE.iterdir() if path.is_file()}
    files |= {"forged.tar": packed.getvalue(), "wanted.json": json.dumps(wanted).encode()}
    return guarded.githost.create(name, files), set(images.values())


def said() -> list[str]:
    """Each secret of the farm as it may be read: as it is, and as a registry's file has it."""
    pairs = [f"{account}:{password}" for account, password in PASSWORDS.items()]
    return SECRETS + [base64.b64encode(pair.encode()).decode() for pair in pairs]


def click(guarded: Farm, name: str) -> Click:
    made = Visitor(guarded.url).click(git_spec(f"{guarded.githost.url}/{name}"), build_only=True)
    assert "OUT of the RUN line" in made.log, f"{made.log}\n{guarded.logs()}"
    assert "LOOKED into" in made.log
    assert "FOUND" not in made.log, made.log
    # It reaches the registry, as every build may, and gets nothing there.
    assert made.log.count("REFUSED 401") == PUSHES, made.log
    assert "PUSHED" not in made.log, made.log
    return made


def entries(guarded: Farm) -> list[Object]:
    found = guarded.release.catalogue.list("configmaps", "argosy/image")
    return [json.loads(each["data"]["entry"]) for each in found]


def of(guarded: Farm, name: str) -> list[Object]:
    assert not [each for each in entries(guarded) if "victim" in json.dumps(each)]
    return [each for each in entries(guarded) if each["repo_url"].endswith(f"/{name}")]


def held(image: str) -> str:
    """The digest of what the registry holds under a name; empty where there is nothing."""
    account = f"--creds=read:{PASSWORDS['read']}"
    options = ["--no-tags", "--tls-verify=false", account, "--format={{.Digest}}"]
    command = ["skopeo", "inspect", *options, f"docker://{image}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def asked(guarded: Farm, build: str, file: str) -> Any:
    answer = requests.get(f"{guarded.url}/builds/{build}/{file}", timeout=60)
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.smoke
def test_what_is_published_is_what_was_staged_scanned_by_us_and_under_its_own_name(
    guarded: Farm, tmp_path: Path
) -> None:
    commit, staged = plant(guarded, "hostile/forger", tmp_path)
    made = click(guarded, "hostile/forger")
    build = made.build
    assert made.last["phase"] == "ready", f"{made.last}\n{made.log}"
    (entry,) = of(guarded, "hostile/forger")
    assert entry["digest"] in staged
    assert entry["digest"] == held(entry["image"])
    assert (entry["commit"], entry["build"]) == (commit, build)
    assert entry["image"].endswith(f":{commit}")
    sbom = eventually(lambda: asked(guarded, build, "sbom"), seconds=180, what=guarded.logs)
    names = {part.get("purl") or part.get("name") for part in sbom["components"]}
    assert "pkg:pypi/requests@2.19.0" in names
    assert "forged-by-hostile" not in json.dumps(sbom)
    findings = eventually(lambda: asked(guarded, build, "findings"), seconds=180, what=guarded.logs)
    assert (findings["verdict"], findings["digest"]) == ("findings", entry["digest"])
    log = requests.get(f"{guarded.url}/builds/{build}/log", timeout=60).text
    assert "HOSTILE RAN" not in log


def test_one_that_tears_blobs_while_they_are_read_gets_a_whole_image_or_none(guarded: Farm, tmp_path: Path) -> None:
    _, staged = plant(guarded, "hostile/torn", tmp_path, is_torn=True)
    made = click(guarded, "hostile/torn")
    found = of(guarded, "hostile/torn")
    assert {entry["digest"] for entry in found} <= staged
    assert all(entry["digest"] == held(entry["image"]) for entry in found)
    assert bool(found) == (made.last["phase"] == "ready"), made.last


@pytest.fixture
def strict(guarded: Farm) -> Farm:
    guarded.install(scan__policy="enforce")
    yield guarded
    guarded.install(scan__policy="report")


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
