"""What a farm on one machine is made of: its secrets, its ports and its processes, in the order of their start."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import docker.errors
import requests

from tools.processes import Component
from workflows.errors import ConfigError
from workflows.settings import Settings, environment_of
from workflows.stores.containers import Containers
from workflows.stores.files import write_whole

ROOT = Path(__file__).parent.parent
SECRETS = ("hub-token", "proxy-token")
_SECRET_BYTES = 32
_HUB_PORT = 8000
_ASK_SECONDS = 5
_PORTS = range(10_000, 30_000)
"""Below those that Linux gives to outgoing connections (from 32,768 on) and Kubernetes to services (from 30,000 on)."""


class Farm:
    """One state folder's processes.

    Args:
        settings: The farm's.
        git_port: On which the example repository is served; part of its address, and so of its image's name.
    """

    def __init__(self, settings: Settings, git_port: int) -> None:
        self._settings = settings
        self._containers = Containers(settings)
        self._git_port = git_port
        # Nobody outside knows these two, so any will do.
        self._hub_port, self._proxy_api_port = free_ports(2)

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self._settings.state / "log"

    @property
    def example_url(self) -> str:
        """The address of the example repository."""
        return f"git://127.0.0.1:{self._git_port}/example"

    @property
    def public_ports(self) -> dict[str, int]:
        """The ports that must be free, by the name of what listens there."""
        return {"web": self._settings.port, "the Hub": hub_port(self._settings)}

    def prepare(self) -> None:
        """Make what the processes need, and clear away what a farm that was killed has left.

        Raises:
            ConfigError: A tool is missing, or does not work here.
            TransientError: The disk does not take it.
        """
        self._settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._settings.secrets_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in SECRETS:
            if not (path := self._settings.secrets_folder / name).exists():
                write_whole(path, secrets.token_hex(_SECRET_BYTES) + "\n", mode=0o600)
        for folder in ("run", "hub", "git"):
            (self._settings.state / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._containers.prepare()
        self.end_servers()
        self.unmount()
        # The Hub's database knows servers that are gone now.
        for leftover in (self._settings.state / "hub").glob("jupyterhub.sqlite*"):
            leftover.unlink()
        self._settings.container_socket.unlink(missing_ok=True)
        self._make_example()

    def end_servers(self) -> None:
        """End the containers of this farm's visitors; nothing else runs in that storage."""
        command = ["podman", "rm", "--all", "--force", "--time=0"]
        try:
            self._run(command, self._containers.environment())
        except ConfigError:
            # Of a container whose processes were killed podman believes that it runs, until it has tried to end it.
            self._run(command, self._containers.environment())

    def unmount(self) -> None:
        """Let go of what the container tools have mounted below the state folder and leave there."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        for mount in reversed(mounts):
            # The kernel writes spaces and the like as octal numbers.
            path = Path(mount.encode().decode("unicode_escape"))
            if path.is_relative_to(self._settings.state):
                self._run(["umount", "--lazy", str(path)], {})

    def hub_side(self) -> Iterator[Component]:
        """What visitors' servers need: the container engine, the proxy, the Hub."""
        yield self._podman()
        yield self._proxy()
        yield self._hub()

    def web_side(self, base_image: str) -> Iterator[Component]:
        """The example's git host, and web.

        Args:
            base_image: What builds build on.
        """
        yield self._githost()
        yield self._web(base_image)

    def _podman(self) -> Component:
        path = f"unix://{self._settings.container_socket}"
        return Component(
            name="podman",
            command=["podman", "system", "service", "--time=0", path],
            environment=self._containers.environment(),
            is_ready=lambda: self._settings.container_socket.exists() and _answers_docker(path),
        )

    def _proxy(self) -> Component:
        hub = f"http://127.0.0.1:{self._hub_port}"
        token = (self._settings.secrets_folder / "proxy-token").read_text(encoding="utf-8").strip()
        options = {
            "ip": self._settings.host,
            "port": self.public_ports["the Hub"],
            "api-ip": "127.0.0.1",
            "api-port": self._proxy_api_port,
            "default-target": hub,
            "error-target": f"{hub}{self._hub_path}hub/error",
            "log-level": "warn",
        }
        return Component(
            name="proxy",
            command=[
                _program("configurable-http-proxy"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            # The proxy takes its token from nowhere else.
            environment={"CONFIGPROXY_AUTH_TOKEN": token},
            is_ready=lambda: _listens(self._proxy_api_port),
        )

    def _hub(self) -> Component:
        port = self.public_ports["the Hub"]
        return Component(
            name="hub",
            command=[
                *(sys.executable, "-m", "jupyterhub"),
                *("-f", str(ROOT / "hub-config" / "jupyterhub_config.py")),
            ],
            environment=environment_of(self._settings)
            | {
                "HUB_PORT": str(self._hub_port),
                "HUB_PROXY_API_PORT": str(self._proxy_api_port),
                "HUB_CONTAINER_SOCKET": str(self._settings.container_socket),
            },
            folder=self._settings.state / "hub",
            is_ready=lambda: _is_ok(f"http://127.0.0.1:{port}{self._hub_path}hub/health"),
        )

    def _githost(self) -> Component:
        # git-daemon itself: `git daemon` would be a process between it and us.
        folder = self._run(["git", "--exec-path"], {}).strip()
        return Component(
            name="githost",
            command=[
                str(Path(folder) / "git-daemon"),
                *("--listen=127.0.0.1", f"--port={self._git_port}", "--export-all", "--reuseaddr"),
                f"--base-path={self._settings.state / 'git'}",
                str(self._settings.state / "git"),
            ],
            is_ready=lambda: _listens(self._git_port),
        )

    def _web(self, base_image: str) -> Component:
        settings = self._settings.model_copy(update={"base_image": base_image})
        host = "127.0.0.1" if self._settings.host in {"0.0.0.0", "::"} else self._settings.host  # noqa: S104  # compared, not bound
        return Component(
            name="web",
            command=[sys.executable, "-m", "web.server"],
            environment=environment_of(settings),
            is_ready=lambda: _is_ok(f"http://{host}:{self._settings.port}/health"),
        )

    @property
    def _hub_path(self) -> str:
        return urlsplit(self._settings.hub_url).path

    def _make_example(self) -> None:
        """A repository of the files in ``example/``; with the same files the same commit, and so the same image."""
        folder = self._settings.state / "git" / "example"
        shutil.rmtree(folder, ignore_errors=True)
        person = {"NAME": "Argosy", "EMAIL": "argosy@example.org", "DATE": "2026-11-23T12:00:00Z"}
        environment = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in person.items()}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT / 'tools' / 'example'}"]
        self._run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], environment)
        self._run([*git, "add", "--all"], environment)
        self._run([*git, "commit", "--quiet", "--message=A notebook"], environment)
        # Builds fetch one commit by its name.
        self._run([*git, "config", "uploadpack.allowAnySHA1InWant", "true"], environment)

    @staticmethod
    def _run(command: list[str], environment: dict[str, str]) -> str:
        try:
            done = subprocess.run(
                command, env=os.environ | environment, capture_output=True, text=True, errors="replace", check=False
            )
        except FileNotFoundError as error:
            raise ConfigError(f"{command[0]} is not installed: make install") from error
        if done.returncode != 0:
            raise ConfigError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
        return done.stdout


def hub_port(settings: Settings) -> int:
    """The port on which visitors reach the Hub."""
    return urlsplit(settings.hub_url).port or _HUB_PORT


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, and that the kernel gives to nobody in the next moment."""
    found: set[int] = set()
    while len(found) < count:
        # No seed decides: workers of one test run share theirs, and would all take the same port.
        port = secrets.choice(_PORTS)
        if is_free(port):
            found.add(port)
    return list(found)


def is_free(port: int) -> bool:
    """Whether nobody listens on that port of 127.0.0.1, or of all addresses."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not installed: make install")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(_ASK_SECONDS)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _is_ok(url: str) -> bool:
    try:
        with requests.Session() as session:
            # A proxy of the environment is not asked about this machine.
            session.trust_env = False
            return session.get(url, timeout=_ASK_SECONDS, allow_redirects=False).status_code == requests.codes.ok
    except requests.RequestException:
        return False


def _answers_docker(url: str) -> bool:
    try:
        client = docker.APIClient(base_url=url, version="1.40", timeout=_ASK_SECONDS)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException):
        return False
