"""``make run``: starts the whole of Argosy on this machine, says where it is, and ends all of it on Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import psutil

from tools.farm import ROOT, Farm, free_ports, is_free
from tools.processes import Component, Processes
from workflows.build import State
from workflows.engines.local import LocalEngine
from workflows.errors import ArgosyError, ConfigError, Reason
from workflows.image import BuildName
from workflows.settings import PREFIX, Settings, load

_START_SECONDS = 120
"""For each process; the Hub needs two on an idle machine."""

_LOOK_SECONDS = 0.5
_BUILDS_SECONDS = 20
"""For running builds to end, each with all its processes; whatever is left then is found at the next start."""

_BUSY = 1
"""Exit code where another Argosy, or anybody else, has what this one needs."""


class _Busy(Exception):  # noqa: N818  # the person at the terminal is told; nobody catches it but `main`
    """Something is in the way; the message says what."""


def main() -> int:
    """Runs the farm until Ctrl-C or SIGTERM; what ends by itself is started again, unless that happens often.

    Returns:
        The exit code: 0 after Ctrl-C, 1 where something is in the way, otherwise the error's.
    """
    _find_tools()
    try:
        settings = load()
        with _lock(settings):
            return _run(settings)
    except _Busy as error:
        _say(str(error))
        return _BUSY
    except ArgosyError as error:
        _say(f"{error} {error.detail}".strip())
        return error.exit_code


def _run(settings: Settings) -> int:
    # Asked for by the port of web, so that the example's address, and with it its image, stays the same.
    git_port = settings.port + 1 if is_free(settings.port + 1) else free_ports(1)[0]
    farm = Farm(settings, git_port)
    for name, port in farm.public_ports.items():
        _check_port(name, port)
    is_over = _until_signal()
    processes = Processes(farm.logs)
    try:
        farm.prepare()
        _start(farm.hub_side(), processes, is_over)
        _start(farm.web_side(_base_image(settings, is_over)), processes, is_over)
        if not is_over():
            _welcome(settings, farm)
        while not is_over():
            for name in processes.revive():
                _say(f"{name} has ended by itself and is started again.")
            time.sleep(_LOOK_SECONDS)
    finally:
        _say("Stopping.")
        _stop(settings, farm, processes)
    return 0


def _start(components: Iterator[Component], processes: Processes, is_over: Callable[[], bool]) -> None:
    for component in components:
        if is_over():
            return
        _say(f"Starting {component.name} …")
        processes.start(component, timeout_seconds=_START_SECONDS, is_over=is_over)


def _stop(settings: Settings, farm: Farm, processes: Processes) -> None:
    with ExitStack() as steps:
        # From the last to the first, each also when one before it fails: web first, so that nothing new begins; the
        # container engine last.
        steps.callback(farm.unmount)
        steps.callback(processes.stop)
        steps.callback(farm.end_servers)
        steps.callback(processes.stop, "hub")
        steps.callback(_stop_builds, settings)
        steps.callback(processes.stop, "web")


def _stop_builds(settings: Settings) -> None:
    """End the builds that run: their runners are nobody's children, so that a restart of web does not end them."""
    engine = LocalEngine(settings)
    names = [BuildName(folder.name) for folder in settings.builds_folder.glob("build-*")]
    running = [name for name in names if _is_running(engine, name)]
    for name in running:
        _say(f"Stopping {name}.")
        engine.stop(name, Reason.EVICTED)
    deadline = time.monotonic() + _BUILDS_SECONDS
    while any(_is_running(engine, name) for name in running) and time.monotonic() < deadline:
        time.sleep(0.1)


def _is_running(engine: LocalEngine, name: BuildName) -> bool:
    status = engine.status(name)
    return status is not None and status.state is State.RUNNING


def _welcome(settings: Settings, farm: Farm) -> None:
    url = settings.public_url.rstrip("/") or f"http://{settings.host}:{settings.port}"
    _say(f"Argosy is healthy at {url}/")
    _say(f"A first launch: {url}/v2/git/{quote(farm.example_url, safe='')}/HEAD?labpath=index.ipynb")
    _say(f"Logs are in {farm.logs}. Ctrl-C stops everything.")


def _base_image(settings: Settings, is_over: Callable[[], bool]) -> str:
    """The image that builds build on: the operator's, or the one that this machine can have.

    Raises:
        ConfigError: It cannot be made; the message holds the end of what was said.
    """
    if os.environ.get(f"{PREFIX}BASE_IMAGE") or is_over():
        return settings.base_image
    log = settings.state / "log" / "base-image.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _say("Looking for the base image; a machine that has none yet makes one, which takes a minute or two …")
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [str(ROOT / "tools" / "base-image")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        printed = process.communicate()[0].strip()
    if process.returncode != 0 or not printed:
        raise ConfigError(f"There is no base image. The end of {log}:\n{log.read_text(errors='replace')[-2000:]}")
    return printed.splitlines()[-1]


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Hold this state folder alone; the kernel lets go of it however this process ends.

    Raises:
        _Busy: Somebody else holds it.
    """
    path = settings.state / "run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _Busy(f"Argosy runs already on {settings.state}: {file.read().strip()}") from error
        file.truncate(0)
        file.write(
            f"process {os.getpid()}, http://{settings.host}:{settings.port}/ (Ctrl-C there, or kill {os.getpid()})"
        )
        file.flush()
        yield


def _check_port(name: str, port: int) -> None:
    """See that a port is free.

    Raises:
        _Busy: It is not; the message says whose it is.
    """
    if is_free(port):
        return
    listening = psutil.net_connections("tcp")
    pids = {
        each.pid
        for each in listening
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
    }
    whose = ", ".join(f"process {pid} ({psutil.Process(pid).name()})" for pid in sorted(pids)) or "another process"
    raise _Busy(f"Port {port}, on which {name} should listen, is taken by {whose}. End it, or set another port.")


def _until_signal() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM came; neither interrupts what is being done."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        seen.append(number)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return lambda: bool(seen)


def _find_tools() -> None:
    """Put what `tools/install` installed on the PATH, also for the processes that are started."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [str(Path(sys.executable).parent), str(cache / "argosy" / "bin"), os.environ.get("PATH", os.defpath)]
    os.environ["PATH"] = os.pathsep.join(folders)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
