"""``make run``: starts the whole of Argosy on this machine, says where it is, and ends all of it on Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from urllib.parse import quote

import psutil

from tools.background import BaseImage, ScannerInstallation
from tools.farm import Farm, free_ports, hub_port, is_free
from tools.processes import Component, Processes
from tools.terminal import Terminal
from workflows.build import State
from workflows.engines.local import LocalEngine
from workflows.errors import ArgosyError, Reason
from workflows.image import BuildName
from workflows.scan.scanner import is_installed
from workflows.settings import GIB, PREFIX, Settings, load
from workflows.stores.disk import missing_bytes

_START_SECONDS = 120
"""For each process; the Hub needs two on an idle machine."""

_LOOK_SECONDS = 0.5
_BUILDS_SECONDS = 20
"""For running builds to end, each with all its processes; whatever is left then is found at the next start."""

_PORT_SETTINGS = {"web": f"{PREFIX}PORT", "the Hub": f"{PREFIX}HUB_URL and {PREFIX}HUB_API_URL"}

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
    with Terminal() as terminal:
        try:
            _check_root()
            settings = load()
            with _lock(settings):
                return _run(settings, terminal)
        except _Busy as error:
            terminal.say(str(error))
            return _BUSY
        except ArgosyError as error:
            terminal.say(f"{error} {error.detail}".strip())
            return error.exit_code


def _run(settings: Settings, terminal: Terminal) -> int:
    farm = Farm(settings, _git_port(settings))
    for name, port in farm.public_ports.items():
        _check_port(name, port)
    is_over = _until_signal()
    processes = Processes(farm.logs)
    with ExitStack() as steps:
        steps.callback(_stop, settings, farm, processes, terminal)
        with terminal.doing("folders, secrets, the example"):
            farm.prepare()
        # Beside the Hub: where there is none yet, it takes a minute or two.
        base = steps.enter_context(BaseImage(settings, terminal))
        _start(farm.hub_side(), processes, is_over, terminal)
        _start(farm.web_side(base.name(is_over)), processes, is_over, terminal)
        scanner = _scanner(settings, farm, terminal, steps)
        if scanner and settings.scan_policy == "enforce":
            terminal.say("No image passes the policy `enforce` before the scanner is there.")
            scanner.wait(is_over)
        elif scanner:
            terminal.say("The scanner is installed in the background; images are scanned once it is there.")
        if not is_over():
            _welcome(settings, farm, terminal)
        while not is_over():
            for name in processes.revive():
                terminal.say(f"{name} has ended by itself and is started again.")
            time.sleep(_LOOK_SECONDS)
    return 0


def _git_port(settings: Settings) -> int:
    # Asked for by the port of web, so that the example's address, and with it its image, stays the same.
    port = settings.port + 1
    return port if port != hub_port(settings) and is_free(port) else free_ports(1)[0]


def _scanner(settings: Settings, farm: Farm, terminal: Terminal, steps: ExitStack) -> ScannerInstallation | None:
    """The installation of the scanner, which goes on in the background; None where it is there, or not wanted."""
    if settings.scan_policy == "off" or is_installed():
        return None
    installation = ScannerInstallation(terminal, farm.logs / "scanner.log")
    steps.callback(installation.stop)
    return installation


def _start(
    components: Iterator[Component], processes: Processes, is_over: Callable[[], bool], terminal: Terminal
) -> None:
    for component in components:
        if is_over():
            return
        with terminal.doing(component.name):
            processes.start(component, timeout_seconds=_START_SECONDS, is_over=is_over)


def _stop(settings: Settings, farm: Farm, processes: Processes, terminal: Terminal) -> None:
    with terminal.doing("stopping everything"), ExitStack() as steps:
        # From the last to the first, each also when one before it fails: web first, so that nothing new begins; the
        # container engine last.
        steps.callback(farm.unmount)
        steps.callback(processes.stop)
        steps.callback(farm.end_servers)
        steps.callback(processes.stop, "hub")
        steps.callback(_stop_builds, settings, terminal)
        steps.callback(processes.stop, "web")


def _stop_builds(settings: Settings, terminal: Terminal) -> None:
    """End the builds that run: their runners are nobody's children, so that a restart of web does not end them."""
    engine = LocalEngine(settings)
    names = [BuildName(folder.name) for folder in settings.builds_folder.glob("build-*")]
    running = [name for name in names if _is_running(engine, name)]
    for name in running:
        terminal.say(f"Stopping {name}.")
        engine.stop(name, Reason.EVICTED)
    deadline = time.monotonic() + _BUILDS_SECONDS
    while any(_is_running(engine, name) for name in running) and time.monotonic() < deadline:
        time.sleep(0.1)


def _is_running(engine: LocalEngine, name: BuildName) -> bool:
    status = engine.status(name)
    return status is not None and status.state is State.RUNNING


def _welcome(settings: Settings, farm: Farm, terminal: Terminal) -> None:
    url = settings.public_url.rstrip("/") or f"http://{settings.host}:{settings.port}"
    launch = f"{url}/v2/git/{quote(farm.example_url, safe='')}/HEAD?labpath=index.ipynb"
    if missing := missing_bytes(settings):
        terminal.say(f"No build begins until {missing / GIB:.1f} GiB more are free on the disk of {settings.state}.")
    terminal.say(f"Logs are in {farm.logs}. Ctrl-C stops everything.")
    terminal.say(f"A first launch: {launch}")
    terminal.say(f"Argosy is healthy at {url}/")
    if os.environ.get("OPEN", "") not in {"", "0"}:
        # Some browsers are waited for until they end.
        Thread(target=_open, args=(launch, terminal), daemon=True).start()


def _open(address: str, terminal: Terminal) -> None:
    if not webbrowser.open(address):
        terminal.say("No browser can be opened on this machine: open one of these addresses yourself.")


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


def _check_root() -> None:
    """See that builds can be made here.

    Raises:
        _Busy: They cannot.
    """
    if os.geteuid() != 0:
        raise _Busy("Builds run behind walls that only root can make: sudo make run")


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
    taken = f"Port {port}, on which {name} should listen, is taken by {whose}."
    raise _Busy(f"{taken} End it, or set another {_PORT_SETTINGS[name]}.")


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


if __name__ == "__main__":
    sys.exit(main())
