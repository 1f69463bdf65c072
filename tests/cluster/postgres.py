"""A real PostgreSQL of a test's own, as a process on an address that pods reach: Debian's package."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.cluster.hub import NODE
from tools.farm import free_ports
from tools.processes import Component, Processes

START_SECONDS = 30


class Postgres:
    """A server with one database; to be used as a context, with whose end it and its files go.

    Args:
        folder: For its log.
    """

    def __init__(self, folder: Path) -> None:
        # Not in pytest's folders: each session of pytest closes those to other users, also while another one runs.
        self._files = tempfile.TemporaryDirectory(prefix="argosy-postgres-")
        (self._port,) = free_ports(1)
        self._password = secrets.token_hex(16)
        self._processes = Processes(folder / "log")
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert found, "PostgreSQL is not installed: apt-get install postgresql"
        self._bin = found[-1]

    @property
    def url(self) -> str:
        """The ledger's URL."""
        return f"postgresql+psycopg://postgres:{self._password}@{NODE}:{self._port}/postgres?connect_timeout=5"

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and remove its files."""
        self.stop()
        self._files.cleanup()

    def start(self) -> None:
        """Start it, with its files as they were left."""
        data = self._data
        if not data.exists():
            self._initialise(data)
        component = Component(
            name="postgres",
            command=self._as_postgres(
                *(str(self._bin / "postgres"), "-D", str(data), "-h", NODE, "-p", str(self._port), "-k", "")
            ),
            is_ready=lambda: self._run("pg_isready", "-h", NODE, "-p", str(self._port)) == 0,
        )
        self._processes.start(component, timeout_seconds=START_SECONDS, is_over=lambda: False)

    def stop(self) -> None:
        """End it, and with it every connection; its files stay."""
        command = self._as_postgres(str(self._bin / "pg_ctl"), "stop", "-D", str(self._data), "-m", "fast", "-w")
        subprocess.run(command, check=False, capture_output=True)
        self._processes.stop()

    @property
    def _data(self) -> Path:
        return Path(self._files.name) / "data"

    def _initialise(self, data: Path) -> None:
        # `postgres` alone may run it.
        data.parent.chmod(0o711)
        data.mkdir()
        shutil.chown(data, "postgres", "postgres")
        password = data.with_name("password")
        password.write_text(self._password)
        shutil.chown(password, "postgres")
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            self._as_postgres(str(self._bin / "initdb"), "-D", str(data), *options), check=True, capture_output=True
        )
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def _run(self, program: str, *arguments: str) -> int:
        return subprocess.run([str(self._bin / program), *arguments], capture_output=True, check=False).returncode

    @staticmethod
    def _as_postgres(*command: str) -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
