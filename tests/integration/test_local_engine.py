"""The local engine with real processes and scripted steps."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import lives
from workflows.build import BuildRequest, BuildStatus, Lane, LogEnd, State, only_lines
from workflows.engines.admission import Admission
from workflows.engines.local import LocalEngine
from workflows.errors import Reason
from workflows.image import BuildName, CommitSHA, ImageName
from workflows.pipeline import BUILD, FETCH, PUBLISH, PUSH, SCAN, STAGE
from workflows.settings import Settings

STEPS = (FETCH, BUILD, STAGE, PUSH, PUBLISH, SCAN)

SCRIPT = """
import json, os, subprocess, sys, time
step, options = sys.argv[1], dict(option[2:].split("=", 1) for option in sys.argv[2:])
folder = {folder!r}
with open(f"{{folder}}/ran", "a") as ran:
    ran.write(f"{{step}} {{options['build']}}\\n")
def daemon():
    # A grandchild in a session of its own that ignores SIGTERM.
    code = "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN)"
    code += "; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code, f"{{folder}}/pid"], start_new_session=True)
    while not os.path.exists(f"{{folder}}/pid") or not open(f"{{folder}}/pid").read(): time.sleep(0.01)
def wait(name):
    while not os.path.exists(f"{{folder}}/{{name}}"): time.sleep(0.01)
print(f"{{step}} begins", flush=True)
{body}
"""


def wish(number: int = 1, **changes: object) -> BuildRequest:
    commit = CommitSHA(f"{number:040x}")
    request = BuildRequest(
        image=ImageName(f"localhost/argosy/example:{commit}"),
        provider="git",
        spec="https%3A%2F%2Fexample.org%2Frepo/main",
        ref="main",
        commit=commit,
        repo_url="https://example.org/repo",
        clone_url="https://example.org/repo",
        slug="example",
        owner=f"owner{number}",
    )
    return dataclasses.replace(request, **changes)


def until(condition: Callable[[], object], seconds: float = 45) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


class Farm:
    """An engine whose steps are a script of the test's, and whoever admits."""

    def __init__(self, folder: Path, body: str = "", **settings: object) -> None:
        self.folder = folder
        self.settings = Settings(state=folder / "state", **settings)
        script = folder / "script.py"
        script.write_text(SCRIPT.format(folder=str(folder), body=textwrap.dedent(body)), encoding="utf-8")
        self.command = (sys.executable, "-I", str(script))
        self.engine = LocalEngine(self.settings, steps=STEPS, command=self.command)
        self.admission = Admission(self.engine, self.settings)

    def status(self, name: BuildName) -> BuildStatus:
        status = self.engine.status(name)
        assert status
        return status

    def until_ended(self, *names: BuildName) -> BuildStatus:
        def ended() -> bool:
            self.admission.tick()
            return all(self.status(name).state.ended for name in names)

        until(ended)
        return self.status(names[0])

    def build(self, request: BuildRequest | None = None) -> BuildStatus:
        return self.until_ended(self.engine.submit(request or wish()).name)

    def path(self, name: BuildName) -> Path:
        return self.settings.builds_folder / name

    def ran(self) -> list[str]:
        path = self.folder / "ran"
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def go(self, name: str = "go") -> None:
        (self.folder / name).touch()

    def close(self) -> None:
        for folder in self.settings.builds_folder.iterdir():
            if folder.name.startswith("build-"):
                self.engine.stop(BuildName(folder.name), Reason.CANCELLED)
                until(lambda folder=folder: self.status(BuildName(folder.name)).state.ended)
        self.admission.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    farms: list[Farm] = []

    def make(body: str = "", **settings: object) -> Farm:
        farms.append(Farm(tmp_path, body, **settings))
        return farms[-1]

    yield make
    for each in farms:
        each.close()


def lines(farm: Farm, name: BuildName) -> list[str]:
    return [line.text for line in only_lines(farm.engine.logs(name))]


# --- the graph ---


def test_a_build_runs_its_steps_and_is_published(farm):
    built = farm()
    status = built.build()
    assert (status.state, status.reason, status.message) == (State.SUCCEEDED, None, "")
    assert built.ran()[:4] == ["fetch", "build", "stage", *built.ran()[3:4]]
    assert sorted(built.ran()) == sorted(step.name for step in STEPS)
    assert [step.exit_code for step in status.steps] == [0] * 6
    assert status.created <= status.started <= status.published <= status.ended
    assert status.steps[0].started < status.steps[0].ended <= status.steps[1].started
    assert (built.path(status.name) / "operator.log").read_text(encoding="utf-8") == ""


def test_a_log_says_where_each_step_ends_also_one_that_was_left_out(farm):
    built = farm('if step == "build": raise BuildError("It does not build.")')
    status = built.build()
    said = [(each.step, isinstance(each, LogEnd)) for each in built.engine.logs(status.name)]
    assert [step for step, is_end in said if is_end] == [step.name for step in STEPS]
    assert said[:4] == [("fetch", False), ("fetch", True), ("build", False), ("build", True)]
    assert {is_end for _, is_end in said[4:]} == {True}


def test_an_image_is_published_while_the_scan_goes_on(farm):
    built = farm('if step == "scan": wait("go")')
    name = built.engine.submit(wish()).name
    built.admission.tick()
    until(lambda: built.status(name).published)
    assert built.status(name).state is State.RUNNING
    built.go()
    assert built.until_ended(name).state is State.SUCCEEDED


def test_a_failed_step_ends_the_build_with_its_reason_and_its_last_line(farm):
    status = farm('if step == "build": print("It does not build."); sys.exit(10)').build()
    assert (status.state, status.reason, status.message) == (State.FAILED, Reason.BUILD, "It does not build.")
    assert [step.exit_code for step in status.steps] == [0, 10, 64, 64, 64, 64]
    assert not status.published


def test_a_failed_scan_does_not_fail_a_build(farm):
    status = farm('if step == "scan": sys.exit(78)').build()
    assert (status.state, status.steps[-1].exit_code) == (State.SUCCEEDED, 78)


def test_a_failed_push_does_not_wait_for_the_scan(farm):
    built = farm('if step == "scan": wait("never")\nif step == "push": sys.exit(75)')
    assert built.build().reason is Reason.TRANSIENT


def test_the_real_step_runner_is_what_runs_by_default(tmp_path: Path):
    settings = Settings(state=tmp_path / "state")
    engine = LocalEngine(settings)
    name = engine.submit(wish(clone_url="file:///nowhere")).name
    engine.admit(name)
    until(lambda: engine.status(name).state.ended)
    status = engine.status(name)
    # What fetch itself says of such an address.
    assert (status.state, status.reason) == (State.FAILED, Reason.NOT_FOUND)
    assert (status.steps[0].name, status.steps[0].exit_code) == ("fetch", 66)
    assert [line.text for line in only_lines(engine.logs(name))][-1] == status.message


# --- submitting and the queue ---


def test_submits_from_several_processes_give_one_run(farm, tmp_path: Path):
    built = farm()
    code = f"""
import sys
from pathlib import Path
from workflows.build import BuildRequest
from workflows.engines.local import LocalEngine
from workflows.pipeline import *
from workflows.settings import Settings
steps = (FETCH, BUILD, STAGE, PUSH, PUBLISH, SCAN)
engine = LocalEngine(Settings(state=sys.argv[1]), steps=steps, command={built.command!r})
sys.stdin.readline()
for _ in range(20):
    engine.admit(engine.submit(BuildRequest.from_json(Path(sys.argv[2]).read_text())).name)
"""
    (tmp_path / "request").write_text(wish().to_json(), encoding="utf-8")
    arguments = [sys.executable, "-c", code, str(built.settings.state), str(tmp_path / "request")]
    processes = [subprocess.Popen(arguments, stdin=subprocess.PIPE) for _ in range(4)]
    time.sleep(1)
    for process in processes:
        process.communicate(b"\n", timeout=20)
        assert process.returncode == 0
    assert built.until_ended(wish().name).state is State.SUCCEEDED
    assert sorted(built.ran()) == sorted(step.name for step in STEPS)


def test_joining_a_build_returns_what_is_known_of_it(farm):
    built = farm()
    done = built.build()
    assert built.engine.submit(wish()) == done
    assert len(built.ran()) == 6


def test_no_more_builds_run_than_the_farm_allows(farm):
    built = farm('wait("go")', parallel_builds=2)
    names = [built.engine.submit(wish(number)).name for number in range(5)]
    for _ in range(5):
        built.admission.tick()
    assert [built.status(name).state for name in names] == [State.RUNNING] * 2 + [State.QUEUED] * 3
    assert [built.status(name).queue_position for name in names] == [0, 0, 1, 2, 3]
    built.go()
    built.until_ended(*names)
    assert {built.status(name).state for name in names} == {State.SUCCEEDED}
    assert {built.status(name).queue_position for name in names} == {0}


def test_a_click_goes_before_a_prebuild(farm):
    built = farm('wait("go")', parallel_builds=1)
    first = built.engine.submit(wish(1)).name
    built.admission.tick()
    prebuild = built.engine.submit(wish(2, lane=Lane.PREBUILD)).name
    click = built.engine.submit(wish(3)).name
    built.admission.tick()
    assert (built.status(click).queue_position, built.status(prebuild).queue_position) == (1, 2)
    built.go()
    built.until_ended(first, prebuild, click)
    assert built.status(click).started < built.status(prebuild).started


def test_only_one_process_admits_at_a_time(farm):
    built = farm('wait("go")')
    built.admission.tick()
    second = Admission(LocalEngine(built.settings, steps=STEPS), built.settings)
    name = built.engine.submit(wish()).name
    second.tick()
    assert built.status(name).state is State.QUEUED
    built.admission.close()
    second.tick()
    second.close()
    assert built.status(name).state is State.RUNNING


def test_a_build_that_waits_too_long_is_given_up(farm):
    built = farm('wait("never")', parallel_builds=1, queue_timeout_seconds=0.3)
    built.engine.submit(wish(1))
    built.admission.tick()
    late = built.engine.submit(wish(2)).name
    time.sleep(0.4)
    built.admission.tick()
    assert built.status(late).reason is Reason.QUEUE_TIMEOUT


# --- ends ---


def test_a_queued_build_is_stopped_at_once(farm):
    built = farm()
    name = built.engine.submit(wish()).name
    built.engine.stop(name, Reason.SUPERSEDED)
    status = built.status(name)
    assert (status.state, status.reason) == (State.FAILED, Reason.SUPERSEDED)
    built.engine.admit(name)
    built.admission.tick()
    assert built.ran() == []
    assert lines(built, name) == []


def test_a_running_build_is_stopped_whole(farm):
    built = farm('if step == "build": daemon(); wait("never")')
    name = built.engine.submit(wish()).name
    built.admission.tick()
    until((built.folder / "pid").exists)
    built.engine.stop(name, Reason.CANCELLED)
    built.engine.stop(name, Reason.SUPERSEDED)
    status = built.until_ended(name)
    assert (status.state, status.reason) == (State.FAILED, Reason.CANCELLED)
    assert status.message == "The build was cancelled."
    assert not lives(int((built.folder / "pid").read_text()))
    assert not (built.path(name) / "strangers").exists()


def test_stopping_an_ended_build_changes_nothing(farm):
    built = farm()
    status = built.build()
    built.engine.stop(status.name, Reason.CANCELLED)
    built.engine.admit(status.name)
    assert built.status(status.name) == status


def test_a_whole_build_has_its_time(farm):
    built = farm('if step == "build": daemon(); wait("never")', build_timeout_seconds=5)
    status = built.build()
    assert (status.reason, status.message) == (Reason.TIMEOUT, "The build took longer than this service allows.")
    assert not lives(int((built.folder / "pid").read_text()))


def test_what_a_step_leaves_behind_ends_with_the_build(farm):
    built = farm('if step == "build": daemon()')
    assert built.build().state is State.SUCCEEDED
    assert not lives(int((built.folder / "pid").read_text()))


def test_a_build_whose_runner_is_killed_ends_as_transient(farm):
    built = farm('if step == "build": daemon(); wait("never")')
    name = built.engine.submit(wish()).name
    built.admission.tick()
    until((built.folder / "pid").exists)
    os.kill(runner_of(built, name), signal.SIGKILL)
    status = built.until_ended(name)
    assert (status.state, status.reason) == (State.FAILED, Reason.TRANSIENT)
    assert [step.exit_code for step in status.steps] == [0, 75, 64, 64, 64, 64]
    assert not lives(int((built.folder / "pid").read_text()))
    assert not (built.path(name) / "strangers").exists()
    assert lines(built, name) == ["fetch begins", "build begins"]


def test_a_runner_that_is_told_to_end_ends_its_build_as_transient(farm):
    built = farm('if step == "build": daemon(); wait("never")')
    name = built.engine.submit(wish()).name
    built.admission.tick()
    until((built.folder / "pid").exists)
    os.kill(runner_of(built, name), signal.SIGTERM)
    assert built.until_ended(name).reason is Reason.TRANSIENT
    assert not lives(int((built.folder / "pid").read_text()))


def test_a_step_that_is_killed_is_transient(farm):
    assert farm('if step == "build": os.kill(os.getpid(), 9)').build().reason is Reason.TRANSIENT


def test_a_build_outlives_the_process_that_admitted_it(farm, tmp_path: Path):
    built = farm('if step == "build": wait("go")')
    code = f"""
import os
from workflows.build import BuildRequest
from workflows.engines.local import LocalEngine
from workflows.pipeline import *
from workflows.settings import Settings
settings = Settings(state={str(built.settings.state)!r})
engine = LocalEngine(settings, steps=(FETCH, BUILD), command={built.command!r})
engine.admit(engine.submit(BuildRequest.from_json({wish().to_json()!r})).name)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    until(lambda: built.ran() == ["fetch", "build"])
    built.admission.tick()
    assert built.status(wish().name).state is State.RUNNING
    built.go()
    assert built.until_ended(wish().name).state is State.SUCCEEDED


def test_a_server_that_gevent_has_patched_admits_from_a_native_thread(farm):
    built = farm()
    code = f"""
from gevent import monkey
monkey.patch_all()
import time, gevent
from web import native
from workflows.build import BuildRequest, only_lines
from workflows.engines.admission import Admission
from workflows.engines.local import LocalEngine
from workflows.pipeline import *
from workflows.settings import Settings
settings = Settings(state={str(built.settings.state)!r})
engine = LocalEngine(settings, steps=(FETCH, BUILD), command={built.command!r}, sleep=native.sleep)
lines = []
def build():
    name = engine.submit(BuildRequest.from_json({wish().to_json()!r})).name
    Admission(engine, settings).tick()
    lines.extend(line.text for line in only_lines(engine.logs(name)))
native.start(build, "build")
with gevent.Timeout(20):
    while len(lines) < 2:
        gevent.sleep(0.01)
print(lines)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['fetch begins', 'build begins']\n", "")


def runner_of(built: Farm, name: BuildName) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name.encode() in command and str(built.settings.builds_folder).encode() in command:
                return int(entry.name)
    raise AssertionError("no runner")


# --- what remains ---


def test_outputs_and_logs_stay_until_the_build_is_forgotten(farm):
    built = farm('open("sbom.cdx.json", "w").write("{}") if step == "scan" else open("left", "w").close()')
    name = built.build().name
    assert built.engine.outputs(name) == {"sbom.cdx.json": b"{}"}
    assert not (built.path(name) / "strangers").exists()
    built.engine.forget(name)
    assert built.engine.status(name) is None
    assert built.engine.outputs(name) == {}
    assert lines(built, name) == []
    assert [path.name for path in built.settings.builds_folder.iterdir() if path.name.startswith((".new", "b"))] == []


def test_a_build_that_goes_on_is_not_forgotten(farm):
    built = farm('wait("go")')
    name = built.engine.submit(wish()).name
    built.engine.forget(name)
    assert built.status(name).state is State.QUEUED


def test_a_deep_tree_of_a_strangers_is_removed(farm):
    built = farm("""
        if step == "fetch":
            for _ in range(3000):
                os.mkdir("d"); os.chdir("d")
    """)
    name = built.build().name
    assert not (built.path(name) / "strangers").exists()


def test_an_image_that_is_held_goes_through_our_half_alone(farm):
    built = farm()
    status = built.build(wish(held="sha256:" + "a" * 64))
    assert status.state is State.SUCCEEDED
    assert [step.name for step in status.steps] == ["push", "publish", "scan"]
    assert sorted(built.ran()) == ["publish", "push", "scan"]
    assert not (built.path(status.name) / "strangers").exists()


def test_steps_see_no_secret_of_the_server_and_a_home_of_their_own(farm, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    built = farm(
        'open(f"{folder}/env-{step}", "w").write(json.dumps(dict(os.environ)))',
        github_token_file=tmp_path / "token",
        registry_auth_file=tmp_path / "auth",
        hub_token_file=tmp_path / "hub",
        ledger_url="postgresql://user:planted@db/",
        archive_url="s3://key:planted@bucket",
    )
    name = built.build().name
    seen = {step.name: json.loads((tmp_path / f"env-{step.name}").read_text()) for step in STEPS}
    assert not any("planted" in value for environment in seen.values() for value in environment.values())
    assert not any("ARGOSY_HUB_TOKEN_FILE" in environment for environment in seen.values())
    assert [step for step in seen if "ARGOSY_REGISTRY_AUTH_FILE" in seen[step]] == ["fetch", "stage", "push", "scan"]
    assert [step for step in seen if "ARGOSY_GITHUB_TOKEN_FILE" in seen[step]] == []
    for step in ("fetch", "build", "stage"):
        assert seen[step]["HOME"] == seen[step]["ARGOSY_WORKSPACE"] == str(built.path(name) / "strangers")
    assert seen["push"]["ARGOSY_WORKSPACE"] == str(built.path(name) / "ours")


# --- watching and following ---


def test_a_watch_tells_what_is_known_and_then_every_change_at_once(farm):
    built = farm('wait("go")')
    old = built.engine.submit(wish(1)).name
    seen: list[tuple[float, BuildStatus]] = []

    def watch() -> None:
        for status in built.engine.watch():
            seen.append((time.time(), status))
            if status.state is State.SUCCEEDED:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    until(lambda: seen)
    assert seen[0][1].name == old
    name = built.engine.submit(wish(2)).name
    until(lambda: any(status.name == name for _, status in seen))
    late, status = next((at, status) for at, status in seen if status.name == name)
    assert late - status.created < 15  # it looks at everything anyway every 30
    built.go()
    built.until_ended(name)
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_follower_sees_every_line_in_pipeline_order_however_late_it_comes(farm):
    built = farm("""
        for number in range(200):
            print(f"{step} {number}", flush=True)
            if number % 50 == 0: time.sleep(0.02)
        sys.stdout.write("no newline at the end")
    """)
    name = built.engine.submit(wish()).name
    following: list[str] = []
    thread = threading.Thread(target=lambda: following.extend(lines(built, name)))
    thread.start()
    built.until_ended(name)
    thread.join(timeout=30)
    expected = [
        line
        for step in STEPS
        for line in (f"{step.name} begins", *(f"{step.name} {n}" for n in range(200)), "no newline at the end")
    ]
    assert following == expected
    assert lines(built, name) == expected
    numbers = [line.number for line in only_lines(built.engine.logs(name)) if line.step == "build"]
    assert numbers == list(range(1, 203))


def test_a_line_reaches_its_follower_soon(farm):
    built = farm('if step == "build": print(time.time(), flush=True); wait("go")')
    name = built.engine.submit(wish()).name
    built.admission.tick()
    for line in only_lines(built.engine.logs(name)):
        if line.step == "build" and line.number == 2:
            assert time.time() - float(line.text) < 15
            break
    assert built.status(name).state is State.RUNNING


def test_nothing_is_known_of_what_never_was(farm):
    built = farm()
    for name in ("build-a-1234567-12345678", "../../etc", "build-a-1234567-12345678/.."):
        assert built.engine.status(BuildName(name)) is None
