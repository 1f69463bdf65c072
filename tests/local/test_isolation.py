"""Test 5 of issue 3: a RUN line tries the machine, and reaches nothing of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.local.building import Building
from workflows.builder.buildah import Buildah
from workflows.builder.isolation import Sandbox
from workflows.builder.machine import network
from workflows.builder.store import build_store
from workflows.errors import ConfigError
from workflows.settings import Settings

PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-o", program, source], check=True)
    return program


@pytest.fixture
def targets(tmp_path: Path, building: Building, secret: str) -> Iterator[str]:
    """What there is to find: files, listening services on all addresses, a process that holds a secret."""
    planted = tmp_path / "planted"
    planted.write_text(secret)
    planted.chmod(0o644)
    in_state = building.state / "secrets" / "hub-token"
    in_state.parent.mkdir(exist_ok=True)
    in_state.write_text(secret)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(socket.create_server(("0.0.0.0", 0))).getsockname()[1]
        loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        other = [sys.executable, "-c", "import sys; sys.stdin.read()", secret]
        process = subprocess.Popen(other, stdin=subprocess.PIPE, env={"PLANTED_SECRET": secret})
        stack.enter_context(process)
        stack.callback(process.kill)
        addresses = ["127.0.0.1", "127.0.0.2", "gateway", *machine_addresses(), "169.254.169.254"]
        lines = [f"port {address} {number}" for address in addresses for number in (port, loopback)]
        paths = [planted, in_state, Path(__file__), building.state, Path("/root/.cache"), Path("/etc/shadow")]
        lines += [f"file {path}" for path in paths]
        lines += [f"secret {secret}", "mark PLANTED_VARIABLE"]
        yield "\n".join(lines) + "\n"


@pytest.fixture
def secret() -> str:
    return f"planted-{secrets.token_hex(8)}"


@pytest.mark.smoke
def test_a_line_of_a_dockerfile_reaches_nothing_of_the_machine(
    building: Building, probe: Path, targets: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = building.case("walls")
    source = building.checkout(Path(__file__).parents[1] / "cases" / "walls" / "repository")
    (source / "probe").write_bytes(probe.read_bytes())
    (source / "probe").chmod(0o755)
    (source / "targets").write_text(targets)
    planted = {"PLANTED_VARIABLE": secret, "AWS_SECRET_ACCESS_KEY": secret, "GITHUB_TOKEN": secret}
    environment = building.environment(source, hub_token_file=str(building.state / "secrets/hub-token")) | planted

    done = subprocess.run(building.command("walls"), env=environment, capture_output=True, text=True, check=False)

    messages = "".join(json.loads(line)["message"] for line in done.stdout.splitlines() if line.startswith("{"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(text in messages for text in case.contains)
    assert [line for line in messages.splitlines() if line.startswith("FOUND")] == []
    assert secret not in done.stdout


def test_the_probe_itself_finds_what_is_there_when_nothing_is_in_its_way(
    probe: Path, targets: str, secret: str, tmp_path: Path
) -> None:
    (tmp_path / "targets").write_text(targets)
    command = [probe, tmp_path / "targets", "harmless"]
    done = subprocess.run(command, env={"PLANTED_VARIABLE": secret}, capture_output=True, text=True, check=True)
    for kind in ("FOUND file", "FOUND port 127.0.0.1", "FOUND secret in /proc", "other processes", "FOUND variable"):
        assert kind in done.stdout
    for address in machine_addresses():
        assert f"FOUND port {address}" in done.stdout


def test_a_line_of_the_uv_buildpack_is_behind_the_same_walls(building: Building, probe: Path, targets: str) -> None:
    folder = building.state.parent / "walled"
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text("six==1.16.0\n")
    (folder / "targets").write_text(targets)
    (folder / "postBuild").write_text(
        "#!/bin/sh\n./probe targets | grep -v 'other processes\\|can be traced'\nrm probe\n"
    )
    source = building.checkout(folder)
    (source / "probe").write_bytes(probe.read_bytes())
    (source / "probe").chmod(0o755)
    built = building.build(source, "walled")
    assert built.code == 0, built.log
    assert "the probe is done" in built.messages
    # The image's own /etc/shadow is there, and is not this machine's.
    found = [line for line in built.messages.splitlines() if line.startswith("FOUND") and "/etc/shadow" not in line]
    assert found == []


def test_a_build_reaches_package_registries(building: Building) -> None:
    # What is installed in other tests comes from there; this one says so in its name and proves DNS and TLS too.
    built = building.build_case(building.case("post-build-fails"))
    assert "+ six==1.16.0" in built.messages or "Using cache" in built.messages


def test_the_rules_can_be_laid_twice_and_taken_away() -> None:
    with network.cable() as first, network.cable() as second:
        assert first.slot != second.slot
        assert first.address != second.address
    rules = rules_of_this_machine()
    assert rules.count("ARGOSY-BUILDS-IN") == len([line for line in rules.splitlines() if "ARGOSY-BUILDS-IN" in line])
    with network.cable():
        assert rules_of_this_machine() == rules, "laying them again changes nothing"
    network.remove()
    assert "ARGOSY" not in rules_of_this_machine()
    assert "agb" not in rules_of_this_machine()
    with network.cable():
        assert rules_of_this_machine() == rules


def test_whatever_the_walls_are_made_with_is_killed_whenever_nobody_is_at_fault(building: Building) -> None:
    settings = Settings(state=building.state)
    ended = Counter[int]()
    # Further on where this machine is so slow that nothing was made by then.
    for milliseconds in itertools.chain(range(40, 280, 6), range(300, 3000, 100)):
        if milliseconds >= 300 and len(ended) > 1:
            break
        with (
            Sandbox("build-struck-1234567-00000000", settings) as sandbox,
            sandbox.start(["sleep", "0.5"], PATH) as walls,
        ):
            time.sleep(milliseconds / 1000)
            with contextlib.suppress(psutil.NoSuchProcess):
                if below := psutil.Process(walls.pid).children(recursive=True):
                    random.choice(below).kill()
            said = walls.communicate(timeout=30)[0]
        assert said == b"", f"after {milliseconds} ms: {said.decode()}"
        ended[walls.returncode] += 1
    # One that had done its work already was not missed.
    assert ended.keys() == {0, 256 - signal.SIGKILL}, ended


def test_walls_that_cannot_be_made_are_the_operators(building: Building, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state=building.state)
    too_long = network.Cable(slot=0, link="agb-with-too-long-a-name", host_address="10.0.0.1/30", address="10.0.0.2/30")
    monkeypatch.setattr(network, "cable", lambda: contextlib.nullcontext(too_long))
    with build_store(settings, "walls") as store, pytest.raises(ConfigError) as caught:
        list(Buildah("build-unmade-1234567-00000000", settings, store).run("version"))
    assert too_long.link in caught.value.detail


def rules_of_this_machine() -> str:
    # Counters and comments change by themselves.
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return "\n".join(
        sorted(line for line in saved.splitlines() if "agb" in line or ("ARGOSY" in line and line[0] != ":"))
    )


def machine_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=True).stdout
    found = [info["local"] for link in json.loads(shown) for info in link["addr_info"] if link["operstate"] != "DOWN"]
    return [address for address in found if not address.startswith("127.")]


assert os.geteuid() == 0, "tests of kind `local` need root"
