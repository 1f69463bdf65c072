"""A whole farm under test: the one that ``make run`` starts, with a state folder and ports of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import requests

from tests.processes import lives
from tools.farm import free_ports
from workflows.settings import Settings
from workflows.stores.containers import Containers

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 700
"""Long enough to make the base image on a machine that has none yet."""


class Farm:
    """`tools/run.py` as a process of its own.

    Args:
        state: The farm's state folder.
        settings: Further ``ARGOSY_…`` variables.
    """

    def __init__(self, state: Path, **settings: str) -> None:
        self.state = state
        port, hub_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "ARGOSY_STATE": str(state),
            "ARGOSY_PORT": str(port),
            "ARGOSY_HUB_URL": f"http://127.0.0.1:{hub_port}/",
            "ARGOSY_HUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api/",
        } | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is healthy."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "run.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "tools" / "run.py")],
                env=inherited | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the farm did not start:\n{self.log()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=300)

    def processes(self) -> dict[int, psutil.Process]:
        """Everything that lives by this farm, by process id: what names its state folder, and what that has started."""
        mark = str(self.state)
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(mark in word for word in (*process.cmdline(), *process.environ().values())):
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        return {pid: process for pid, process in found.items() if lives(pid)}

    def component(self, name: str) -> psutil.Process | None:
        """The process of `make run` whose command line holds that; None while there is none."""
        if self._process and self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children():
                with suppress(psutil.Error):
                    if any(name in word for word in child.cmdline()):
                        return child
        return None

    @property
    def hub_token(self) -> str:
        """By which web speaks to the Hub: whoever has it may start any server that the Hub would start."""
        return (self.state / "secrets" / "hub-token").read_text(encoding="utf-8").strip()

    def podman(self, *arguments: str) -> str:
        """What podman says of its images and containers."""
        environment = os.environ | Containers(Settings(state=self.state)).environment()
        done = subprocess.run(["podman", *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def users(self) -> set[str]:
        """Whom the Hub knows."""
        headers = {"Authorization": f"token {self.hub_token}"}
        answer = requests.get(f"{self.environment['ARGOSY_HUB_API_URL']}users", headers=headers, timeout=20)
        answer.raise_for_status()
        return {user["name"] for user in answer.json()}

    def servers(self) -> set[str]:
        """Users whose container is there, whether it runs or not."""
        names = self.podman("ps", "--all", "--format", "{{.Names}}").split()
        # `argosy-<farm>-<user>`, in which the Hub has escaped what a container's name may not hold.
        return {name.split("-", 2)[2].replace("-2d", "-") for name in names}

    def kill(self) -> None:
        """``kill -9`` of everything, as when the machine's power fails."""
        while left := self.processes():
            kill(*left.values())
        if self._process:
            self._process.wait(60)

    def log(self) -> str:
        """What its components said, the last of each."""
        files = [self.state / "run.log", *sorted((self.state / "log").glob("*.log"))]
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files if file.exists()
        )

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).status_code == requests.codes.ok
        except requests.RequestException:
            return False


def kill(*processes: psutil.Process) -> None:
    """``kill -9`` of all at the same moment."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(number)
