"""What goes on beside the start of `make run`, and what the terminal shows of it."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.integration.farm import eventually
from tools.background import ROOT, WHAT, ScannerInstallation
from tools.terminal import Terminal
from workflows.errors import ConfigError


class Screen:
    """A terminal, or a file, and what is on it."""

    def __init__(self, *, moves: bool) -> None:
        self._file = io.StringIO()
        self.terminal = Terminal(Console(file=self._file, force_terminal=moves, width=120, highlight=False))

    @property
    def text(self) -> str:
        return self._file.getvalue()


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen(moves=False)
    with made.terminal:
        yield made


def install(screen: Screen, tmp_path: Path, script: str) -> ScannerInstallation:
    return ScannerInstallation(screen.terminal, tmp_path / "log" / "scanner.log", ("sh", "-c", script))


def test_each_thing_is_one_line_with_a_tick_and_its_time(screen: Screen) -> None:
    with screen.terminal.doing("podman"):
        assert screen.text == ""
    assert re.fullmatch(r"✔ podman +0 s\n", screen.text)


def test_what_fails_is_one_line_without_a_tick(screen: Screen) -> None:
    with pytest.raises(ConfigError), screen.terminal.doing("the [bold]hub"):
        raise ConfigError
    assert re.fullmatch(r"✘ the \[bold\]hub +0 s\n", screen.text)


def test_an_address_is_never_broken(screen: Screen) -> None:
    address = f"http://127.0.0.1/{'x' * 300}"
    screen.terminal.say(address)
    assert screen.text == f"{address}\n"


def test_the_scanner_comes_in_the_background_and_its_progress_is_shown(tmp_path: Path) -> None:
    screen = Screen(moves=True)
    script = f"echo packages 4; echo go: downloading x; echo a; echo b; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    with screen.terminal:
        installation = install(screen, tmp_path, script)
        eventually(lambda: "50 %" in screen.text)
        assert "✔" not in screen.text
        (tmp_path / "go").touch()
        installation.wait()
        assert f"✔ {WHAT}" in screen.text
    assert (tmp_path / "log" / "scanner.log").read_text().splitlines()[-1] == "b"


def test_a_scanner_that_cannot_be_installed_says_what_to_do_and_ends_nothing(screen: Screen, tmp_path: Path) -> None:
    install(screen, tmp_path, "echo 'dial tcp: lookup somewhere: no such host'; exit 1").wait()
    assert f"✘ {WHAT}" in screen.text
    assert "not scanned yet" in screen.text
    assert "The network does not answer." in screen.text


def test_the_end_of_everything_ends_the_installation_with_all_that_it_started(screen: Screen, tmp_path: Path) -> None:
    installation = install(screen, tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    child = eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    installation.wait(lambda: True)
    installation.stop()
    eventually(lambda: not Path(f"/proc/{child}").exists())
    assert screen.text == "", "that it was not done is nobody's fault"


def test_whoever_has_the_id_of_an_installation_that_is_over_is_left_alone(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = install(screen, tmp_path, "true")
    installation.wait()
    killed: list[int] = []
    monkeypatch.setattr("os.killpg", lambda group, _: killed.append(group))
    installation.stop()
    assert killed == []


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("E: Failed to fetch http://deb.test/x.deb  Temporary failure resolving 'deb.test'", "The network"),
        ("error: Failed to fetch: `https://index.test/simple/uv/`\n  Caused by: dns error", "The network"),
        ("npm ERR! code EAI_AGAIN", "The network"),
        ("go: dial tcp: lookup proxy.test: no such host", "The network"),
        ("tar: ./usr/lib/x.so: Cannot write: No space left on device", "The disk is full."),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)", "Another program"),
        ("Segmentation fault", "Its own words"),
    ],
)
def test_a_failures_line_says_what_to_do(tmp_path: Path, said: str, advice: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"Reading package lists...\n{said}\n")
    done = subprocess.run([ROOT / "tools/install", "advice", log], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(advice)
    assert len(done.stdout.splitlines()) == 1
