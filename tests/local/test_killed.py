"""A tool of a step that somebody kills, as the kernel does where memory is short, is nobody's fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.githost import SilentHost
from tests.images import DEBIAN, write_layout
from tests.local.building import Building
from tests.local.test_build import processes, repository
from workflows.errors import TransientError
from workflows.git.command import Git
from workflows.image import ImageDigest
from workflows.scan.scanner import Scanner
from workflows.settings import Settings
from workflows.stores.skopeo import Skopeo

_LOOK_SECONDS = 0.005
_PASSED_ON_SECONDS = 2
"""What a line has printed before is in the build's log by then."""


@contextmanager
def killing(name: str, line: bytes = b"") -> Iterator[list[int]]:
    """Kills the first descendant of this process whose program is called so; gives its id.

    Args:
        name: Of the program.
        line: A command line; until `_PASSED_ON_SECONDS` after such a process was seen, nothing is killed.
    """
    over, killed = threading.Event(), list[int]()

    def watch() -> None:
        while line and not over.is_set() and line not in processes():
            time.sleep(_LOOK_SECONDS)
        over.wait(_PASSED_ON_SECONDS if line else 0)
        while not over.is_set() and not killed:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.name() == name:
                        process.kill()
                        killed.append(process.pid)
                        break
            time.sleep(_LOOK_SECONDS)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def git(settings: Settings, host: SilentHost, folder: Path) -> None:
    Git(settings).run("ls-remote", f"{host.url}/o/r", seconds=20)


def skopeo(settings: Settings, host: SilentHost, folder: Path) -> None:
    place = host.url.removeprefix("http://")
    Skopeo(settings.model_copy(update={"registry_insecure": True})).digest(f"docker://{place}/x:1")


def syft(settings: Settings, host: SilentHost, folder: Path) -> None:
    write_layout(folder / "layout", DEBIAN)
    Scanner(settings, folder).sbom(folder / "layout", folder / "sbom.json")


def grype(settings: Settings, host: SilentHost, folder: Path) -> None:
    (folder / "sbom.json").write_text('{"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []}')
    Scanner(settings, folder).verdict(ImageDigest("sha256:0"), folder / "sbom.json")


@pytest.mark.parametrize("use", [git, skopeo, syft, grype])
def test_a_tool_that_is_killed_is_worth_another_try(
    machine: Settings,
    silent_host: SilentHost,
    tmp_path: Path,
    grype_db: Path,
    use: Callable[[Settings, SilentHost, Path], None],
) -> None:
    settings = machine.model_copy(update={"grype_db": grype_db})
    with killing(use.__name__) as killed, pytest.raises(TransientError, match="again"):
        use(settings, silent_host, tmp_path)
    assert killed


@pytest.mark.parametrize("name", ["buildah", "sh"])
def test_a_build_whose_tool_or_line_is_killed_is_tried_again(building: Building, name: str) -> None:
    source = repository(building, {"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo begins; sleep 10.71; echo ends\n"})
    with killing(name, b"sleep\x0010.71") as killed:
        built = building.build(source, f"killed-{name}")
    assert killed
    assert built.code == 0, built.log
    assert [line for line in built.messages.splitlines() if line in {"begins", "ends"}] == ["begins", "begins", "ends"]
