"""Limits in builds for real: each of them is met by a line of a Dockerfile, and ends in its reason."""

from __future__ import annotations

import re
import resource
import subprocess
from pathlib import Path

import pytest

from tests.githost import GitHost
from tests.local.building import Building, Built
from tests.local.test_build import assert_nothing_is_left, eventually_gone, processes, repository
from tests.local.whole import whole
from workflows.build import State
from workflows.errors import EXIT_CODES, Reason
from workflows.settings import MIB

HEAD = "ARG BASE\nFROM ${BASE}\n"


def run(building: Building, lines: str, **settings: str) -> Built:
    """How a Dockerfile with these lines on the base image ends."""
    name = re.sub(r"[^a-z]", "", lines.lower())[:20]
    return building.build(repository(building, {"Dockerfile": HEAD + lines}), name, **settings)


def ended(built: Built, reason: Reason) -> str:
    """The visitor's sentence, once the build is seen to have ended for that reason and to have left nothing."""
    assert built.code == EXIT_CODES[reason], built.log[-2000:] + built.operator[-2000:]
    assert not (built.workspace / "layout").exists()
    return built.log.splitlines()[-1]


# --- time and silence ---


def test_a_build_over_its_time_is_ended_whole(building: Building, tmp_path: Path) -> None:
    dockerfile = HEAD + "RUN while :; do echo still here; sleep 0.7123; done\n"
    with whole(building, tmp_path, build_timeout_seconds=45) as farm:
        status = farm.build("limits/time", {"Dockerfile": dockerfile})
        assert status.reason is Reason.TIMEOUT, status
        assert "still here" in farm.log(status.name)
    eventually_gone(b"sleep\x000.7123")
    assert_nothing_is_left(building)


def test_a_silent_build_is_ended_whole(building: Building) -> None:
    built = run(building, "RUN echo the last word && exec sleep 6003\n", silent_seconds="20")
    ended(built, Reason.SILENT)
    assert "the last word" in built.messages
    eventually_gone(b"sleep\x006003")
    assert_nothing_is_left(building)


# --- room ---


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("RUN head -c 6G /dev/zero > /var/filling", marks=pytest.mark.smoke),
        "RUN head -c 6G /dev/zero > /tmp/filling",
        "RUN --mount=type=cache,target=/kept head -c 6G /dev/zero > /kept/filling",
        # It takes up nothing here, and its whole length in a layer.
        "RUN truncate -s 6G /var/filling",
    ],
)
def test_a_line_that_fills_the_disk_is_ended_at_the_limit(building: Building, line: str) -> None:
    state = building.state / "cache" / "repositories"
    built = run(building, f"{line}\n", max_image_bytes=str(600 * MIB))
    assert "larger than the 600 MiB" in ended(built, Reason.TOO_LARGE)
    assert used(state) < 4 * 1024 * MIB, "it was ended long before the whole was written"
    assert_nothing_is_left(building)
    subprocess.run(["rm", "-rf", state], check=True)


def test_layers_that_are_small_one_by_one_count_together(building: Building) -> None:
    lines = "".join(f"RUN head -c 150M /dev/urandom > /part-{number}\n" for number in range(8))
    built = run(building, lines, max_image_bytes=str(600 * MIB))
    ended(built, Reason.TOO_LARGE)
    assert "part-0" in built.messages
    assert "part-7" not in built.messages


def test_what_a_build_stands_on_is_not_what_it_writes(building: Building) -> None:
    # The base image alone has thousands of files.
    built = run(building, "RUN touch /one\n", max_image_files="100")
    assert built.code == 0, built.log + built.operator


def test_a_line_that_takes_all_inodes_is_ended_at_the_limit(building: Building) -> None:
    line = "RUN mkdir /many && cd /many && seq 1 5000000 | xargs touch\n"
    assert "more than the 20000 files" in ended(run(building, line, max_image_files="20000"), Reason.TOO_LARGE)


def test_a_repository_of_a_hundred_thousand_files_becomes_an_image(building: Building, tmp_path: Path) -> None:
    with whole(building, tmp_path) as farm:
        commit = crowd(farm.host, "limits/crowd")
        status = farm.until_ended(farm.engine.submit(farm.request("limits/crowd", commit)).name)
        assert status.state is State.SUCCEEDED, farm.log(status.name)
        assert "Fetched 100001 files" in farm.log(status.name)
    subprocess.run(["rm", "-rf", building.state / "cache" / "repositories"], check=True)


def crowd(host: GitHost, name: str) -> str:
    """A commit of a hundred thousand files, in a few objects."""
    host.create(name, {"Dockerfile": "FROM scratch\nCOPY . /\n"})
    blob, dockerfile = host._blob(name, "x"), host._git(name, "rev-parse", "main:Dockerfile")
    files = "".join(f"100644 blob {blob}\tfile-{number}\n" for number in range(1000))
    tree = host._git(name, "mktree", feed=files.encode())
    folders = "".join(f"040000 tree {tree}\tfolder-{number}\n" for number in range(100))
    root = host._git(name, "mktree", feed=f"{folders}100644 blob {dockerfile}\tDockerfile\n".encode())
    commit = host._git(name, "commit-tree", "-m", "A crowd", root)
    host._git(name, "update-ref", "refs/heads/main", commit)
    return commit


def test_memory_that_looks_like_a_disk_is_bounded_and_no_disk(building: Building) -> None:
    built = run(building, "RUN mkdir -p /dev/shm && head -c 600M /dev/zero > /dev/shm/filling\n")
    assert "No space left on device" in built.messages
    # The line's own fault, whatever it printed: this machine's disk is not full.
    assert "This line of the build" in ended(built, Reason.BUILD)


# --- processes and open files ---


def test_a_fork_bomb_stays_within_its_processes_and_ends(building: Building, tmp_path: Path) -> None:
    bomb = HEAD + "RUN bomb() { bomb | bomb & sleep 6004; }; bomb; wait\n"
    most = 0
    with whole(building, tmp_path, build_pids=200, build_timeout_seconds=45) as farm:
        name = farm.begin("limits/bomb", {"Dockerfile": bomb})
        while not (status := farm.tick(name)).state.ended:
            most = max(most, processes().count(b"bomb() {"))
        assert status.reason in {Reason.TIMEOUT, Reason.BUILD}, farm.log(name)
        assert 50 < most < 328, farm.log(name)
    eventually_gone(b"bomb() {")
    assert_nothing_is_left(building)


CHILDREN = """
import os, time
count = 0
try:
    while count < 3000:
        count += 1
        os.fork() or time.sleep(9) or os._exit(0)
except OSError:
    pass
print("reached", count, flush=True)
"""


def test_a_line_has_no_more_processes_than_the_setting_says(building: Building) -> None:
    built = run_script(building, CHILDREN, build_pids="100")
    # 128 more are for our own tools, of which a handful run.
    assert 90 < reached(built) < 230


FILES = """
import os
count = 0
try:
    while count < 99999:
        os.open("/etc/hostname", 0)
        count += 1
except OSError:
    pass
print("reached", count)
"""


def test_a_line_has_no_more_open_files_than_a_machine_gives_everybody(building: Building) -> None:
    assert 900 < reached(run_script(building, FILES)) < 1024


def run_script(building: Building, script: str, **settings: str) -> Built:
    """How a Dockerfile that runs a Python script ends."""
    files = {"Dockerfile": f"{HEAD}COPY script.py /\nRUN python3 /script.py\n", "script.py": script}
    return building.build(repository(building, files), "script", **settings)


def reached(built: Built) -> int:
    return int(re.findall(r"^reached (\d+)", built.messages, re.MULTILINE)[0])


# --- output ---


def test_a_million_lines_keep_their_head_and_tail(building: Building) -> None:
    built = run(building, "RUN seq -f 'line %.0f of a million' 1000000\n", max_log_bytes=str(MIB))
    assert built.code == 0, built.log[-2000:]
    assert MIB // 2 < len(built.log) < 1.1 * MIB
    assert "line 1 of a million" in built.messages
    assert "line 1000000 of a million" in built.messages
    assert "line 500000 of a million" not in built.messages
    assert re.search(r"^\[\d+ bytes in \d+ lines are left out here\]$", built.log, re.MULTILINE)


def test_a_line_of_100_megabytes_keeps_its_head_and_tail_in_bounded_memory(building: Building) -> None:
    line = "RUN echo head; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo tail\n"
    source = repository(building, {"Dockerfile": HEAD + line})

    def limited() -> None:
        # Of the step itself, which is not behind the walls: as a whole this line would not fit several times over.
        resource.setrlimit(resource.RLIMIT_DATA, (250 * MIB, 250 * MIB))

    done = subprocess.run(
        building.command("long"),
        env=building.environment(source, max_log_bytes=str(MIB)),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
    )
    built = Built(code=done.returncode, log=done.stdout, operator=done.stderr, workspace=source.parent)
    assert built.code == 0, built.log[-2000:] + built.operator[-2000:]
    assert MIB // 2 < len(built.log) < 1.1 * MIB
    assert "head\n" in built.messages
    assert "x" * 100_000 in built.messages
    assert "tail\n" in built.messages
    assert re.search(r"^\[\d+ bytes in \d+ lines are left out here\]$", built.log, re.MULTILINE)


def used(folder: Path) -> int:
    return int(subprocess.run(["du", "-sB1", folder], capture_output=True, text=True, check=True).stdout.split()[0])
