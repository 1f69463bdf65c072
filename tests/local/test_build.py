"""The step `build`, with real repo2docker, buildah and runc: what builds, what does not, and what is then said."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.local.building import CASES, COMMIT, Building, Built
from tests.storages import forget
from workflows.errors import EXIT_CODES, Reason
from workflows.settings import Settings
from workflows.stores.containers import Containers

NAMES = sorted(path.parent.name for path in CASES.glob("*/case.toml") if path.parent.name != "walls")


@pytest.mark.parametrize("name", NAMES)
def test_a_case_ends_as_it_must(building: Building, name: str) -> None:
    case = building.case(name)
    built = building.build_case(case)
    assert built.code == (EXIT_CODES[Reason(case.reason)] if case.reason else 0), built.log + built.operator
    for text in case.contains:
        assert text in built.messages + built.log
    if case.reason:
        assert not (built.workspace / "layout").exists()
        last = built.log.splitlines()[-1]
        assert not last.startswith("{"), "the last line is a sentence for the visitor"
        assert str(built.workspace) not in last
    else:
        assert_is_an_image(built, name)
    if case.run:
        assert case.prints in run_image(building, built, case.run)
    assert_nothing_is_left(building)


def test_an_image_has_what_a_spawner_needs(building: Building) -> None:
    source = building.checkout(CASES / "binder-folder" / "repository")
    built = building.build(source, "spawn")
    assert built.code == 0, built.log
    configuration = configuration_of(built)
    assert configuration["User"] == "jovyan"
    assert configuration["WorkingDir"] == "/home/jovyan"
    assert configuration["Entrypoint"] == ["/usr/local/bin/repo2docker-entrypoint"]
    assert configuration["Labels"]["repo2docker.repo"] == "http://example.test/spawn"
    assert configuration["Labels"]["repo2docker.ref"] == COMMIT
    for command in ("jupyter-lab", "jupyterhub-singleuser", "jupyter-notebook"):
        assert run_image(building, built, [command, "--version"]).strip()
    # The pins are complete, but for what takes longest to import and is never used.
    assert "compatible" in run_image(building, built, ["sh", "-c", "uv pip check --python $NB_PYTHON_PREFIX 2>&1"])
    loaded = run_image(building, built, ["python", "-c", "import sys, jupyterlab.labapp; print(*sys.modules)"]).split()
    assert "jsonschema._format" in loaded
    assert "rfc3987_syntax" not in loaded


def test_every_line_on_stdout_before_the_verdict_is_repo2dockers_json(building: Building) -> None:
    built = building.build_case(building.case("no-such-requirement"))
    lines = built.log.splitlines()
    assert all({"message"} <= json.loads(line).keys() for line in lines[:-1])
    assert any("unsatisfiable" in json.loads(line)["message"] for line in lines[:-1])


def test_a_changed_notebook_installs_nothing_again(building: Building) -> None:
    source = building.checkout(CASES / "post-build-fails" / "repository")
    (source / "postBuild").unlink()
    first = building.build(source, "layers")
    (source / "index.ipynb").write_text("{}")
    second = building.build(source, "layers")
    other = building.build(source, "layers-of-another")
    assert "+ six==1.16.0" in first.messages
    assert "+ six==1.16.0" not in second.messages
    assert "Using cache" in second.messages
    assert "+ six==1.16.0" in other.messages, "what one repository built is nothing to another"


def test_two_builds_of_one_repository_at_once_both_build(building: Building) -> None:
    files = {"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN sleep 2 && date > /made\n"}
    sources = [repository(building, files) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda source: building.build(source, "twice"), sources))
    assert [built.code for built in ended] == [0, 0], ended
    assert_nothing_is_left(building)


@pytest.mark.smoke
def test_a_killed_build_leaves_no_process_no_mount_and_no_network(building: Building) -> None:
    source = repository(building, {"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo started && sleep 6001\n"})
    with subprocess.Popen(
        building.command("killed"), env=building.environment(source), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert any("started" in line and "sleep" not in line for line in process.stdout)
        eventually(lambda: b"sleep\x006001" in processes(), "the build's command does not run")
        os.kill(process.pid, signal.SIGKILL)
    eventually_gone(b"sleep\x006001")
    # Nobody is left to tidy its workspace; the engine removes that as a whole.
    shutil.rmtree(source.parent)

    again = repository(building, {"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo fine\n"})
    assert building.build(again, "killed").code == 0, "the storage of a killed build can be used again"
    assert_nothing_is_left(building)


def test_an_image_over_the_limit_is_too_large(building: Building) -> None:
    source = repository(building, {"Dockerfile": "FROM scratch\nCOPY data /\n", "data": "x" * 2_000_000})
    built = building.build(source, max_image_bytes="1000000")
    assert built.code == EXIT_CODES[Reason.TOO_LARGE], built.log
    assert not (built.workspace / "layout").exists()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_layers_are_compressed_as_the_setting_says(building: Building, compression: str) -> None:
    source = repository(building, {"Dockerfile": "FROM scratch\nCOPY data /\n", "data": "x" * 100_000})
    built = building.build(source, compression=compression)
    assert built.code == 0, built.log
    (layer,) = manifest_of(built)["layers"]
    assert layer["mediaType"].endswith(f"+{compression}")
    assert layer["size"] < 10_000


def test_a_python_that_cannot_be_had_is_told_in_words(building: Building) -> None:
    built = building.build(repository(building, {"requirements.txt": "six\n", "runtime.txt": "python-3.7"}))
    assert built.code == EXIT_CODES[Reason.BUILD]
    assert "Python 3.7" in built.log.splitlines()[-1]


def test_a_request_cannot_bring_arguments_that_reach_the_machine(building: Building) -> None:
    source = repository(building, {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    for argument in ("--volume=/etc:/etc", "--engine=docker", "--config=/etc/passwd", "--Repo2Docker.push=True"):
        built = building.build(source, options={"repo2docker_args": [argument]})
        assert built.code == EXIT_CODES[Reason.POLICY], built.log
    outside = building.build(source, options={"repo2docker_args": ["--subdir=../../.."]})
    assert outside.code == EXIT_CODES[Reason.BUILD]
    assert "outside" in outside.log


def test_the_repository_cannot_configure_repo2docker(building: Building) -> None:
    planted = "c = get_config()\nc.Repo2Docker.appendix = 'RUN planted'\nraise SystemExit(3)\n"
    files = {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n", "repo2docker_config.py": planted}
    built = building.build(repository(building, files))
    assert built.code == 0, built.log
    assert "planted" not in built.log


def test_appendix_build_arguments_and_base_image_arrive(building: Building) -> None:
    files = {"Dockerfile": "ARG BASE\nFROM ${BASE}\nARG WORD\nRUN echo the word is ${WORD}\n"}
    options = {"build_args": [["BASE", building.base], ["WORD", "argosy"]]}
    built = building.build(repository(building, files), options=options)
    assert "the word is argosy" in built.messages
    fast = repository(building, {"requirements.txt": "six==1.16.0\n"})
    appended = building.build(fast, options={"base_image": building.base, "appendix": "RUN echo appended as $(id -un)"})
    assert "appended as jovyan" in appended.messages


def test_a_stock_buildpack_is_used_where_fast_python_is_off(building: Building) -> None:
    # conda's hosts may be out of reach: what counts is who was asked.
    source = repository(building, {"requirements.txt": "six==1.16.0\n"})
    built = building.build(source, fast_python="false", build_memory_bytes=str(2 * 1024**3))
    assert "Using PythonBuildPack builder" in built.messages


def test_an_environment_builds_where_no_wheels_are_kept(building: Building) -> None:
    built = building.build(
        repository(building, {"requirements.txt": "six==1.16.0\n"}), "no-wheels", wheel_cache="false"
    )
    assert built.code == 0, built.log
    assert "+ six==1.16.0" in built.messages


def test_wheels_are_kept_for_the_next_repository(building: Building, tmp_path: Path) -> None:
    warm(building, tmp_path, {"purl": "pkg:pypi/pyyaml@6.0.2"}, {"purl": "pkg:pypi/../x@1"}, {"purl": "pkg:npm/a@1"})
    warm(building, tmp_path, {"purl": "pkg:pypi/six@1.16.0"})
    wheels = building.state / "cache" / "wheels"
    layers = [wheels / number for number in (wheels / "newest").read_text().split()]
    assert len(layers) == 2, "the second is much smaller than the first"

    source = repository(building, {"requirements.txt": "pyyaml==6.0.2\nsix==1.16.0\n", "postBuild": POST_BUILD})
    built = building.build(source, "warm")
    assert built.code == 0, built.log
    assert "+ pyyaml==6.0.2" in built.messages
    assert "+ six==1.16.0" in built.messages
    assert "wheels were there" in built.messages
    assert not any((layer / "planted").exists() for layer in layers), "a build can write nothing that another reads"
    assert all((layer / "wheels-v8").exists() for layer in layers), "nor take anything away"


def warm(building: Building, folder: Path, *components: dict[str, str]) -> None:
    """Keep the wheels of an image with these packages, of which one is a wheel's."""
    sbom = {"components": components, "where": "/srv/venv/lib/python3.11/site-packages/PyYAML"}
    (folder / "sbom.cdx.json").write_text(json.dumps(sbom))
    command = [*building.command("x")[:4], "warm", "--build=build-x-1234567-00000000"]
    environment = building.environment(folder / "source")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "1 of 1" in done.stdout


POST_BUILD = """#!/bin/bash
there() { find /var/cache/uv -iname "$1*" | grep -q .; }
there pyyaml && there six && echo wheels were there
touch /var/cache/uv/planted && rm -rf /var/cache/uv/*
"""


def repository(building: Building, files: dict[str, str]) -> Path:
    folder = building.state.parent / "made" / str(time.monotonic_ns())
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return building.checkout(folder)


def manifest_of(built: Built) -> dict[str, list[dict[str, object]]]:
    layout = built.workspace / "layout"
    (named,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert named["annotations"]["org.opencontainers.image.ref.name"] == "image"
    found = json.loads((layout / "blobs" / "sha256" / named["digest"].removeprefix("sha256:")).read_text())
    assert isinstance(found, dict)
    return found


def configuration_of(built: Built) -> dict[str, object]:
    digest = manifest_of(built)["config"]["digest"].removeprefix("sha256:")
    return json.loads((built.workspace / "layout" / "blobs" / "sha256" / digest).read_text())["config"]


def assert_is_an_image(built: Built, name: str) -> None:
    assert configuration_of(built)["Labels"]["repo2docker.repo"] == f"http://example.test/{name}"
    blobs = {path.name for path in (built.workspace / "layout" / "blobs" / "sha256").iterdir()}
    manifest = manifest_of(built)
    assert {layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]} < blobs
    assert len(blobs) == len({layer["digest"] for layer in manifest["layers"]}) + 2


def run_image(building: Building, built: Built, command: list[str]) -> str:
    """What a command prints in a container of the image, started as a spawner would."""
    containers = Containers(Settings(state=building.state))
    containers.prepare()
    environment = os.environ | containers.environment()
    policy = ["--policy", str(containers.policy)]
    try:
        copy = ["skopeo", *policy, "copy", "--quiet", f"oci:{built.workspace}/layout:image"]
        subprocess.run([*copy, "containers-storage:localhost/argosy/run:test"], env=environment, check=True)
        run = ["podman", "run", "--rm", "--network=none", "localhost/argosy/run:test", *command]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    finally:
        forget(containers)


def processes() -> bytes:
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


def eventually(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def eventually_gone(mark: bytes) -> None:
    eventually(lambda: mark not in processes(), f"a build's command still runs: {mark!r}")


def assert_nothing_is_left(building: Building) -> None:
    assert str(building.state) not in Path("/proc/mounts").read_text()
    workspaces = building.state.parent.glob("workspace-*/*")
    assert {path.name for path in workspaces} <= {"source", "layout"}
    # Groups of others come and go meanwhile, which `os.walk` passes over.
    for group, _, _ in os.walk("/sys/fs/cgroup"):
        if re.search(r"/argosy/build-[^/]*-1234567-[^/]*$", group):
            with suppress(FileNotFoundError):
                assert not Path(group, "cgroup.procs").read_text(), f"{group} still has processes"
