"""One git command: without a shell, a prompt, hooks, or any configuration but ours; ended whole."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

import psutil

from workflows.errors import DISK_FULL, ConfigError, TransientError, unless_killed
from workflows.events import printable
from workflows.git import Credentials
from workflows.git.spawn import Process, Spawn, popen
from workflows.settings import Settings

LOOK_SECONDS = 0.2
"""Between two looks at what a long command has done: short enough that a limit of size is passed by little."""

_DYING_SECONDS, _DYING_LOOK_SECONDS = 5, 0.01
"""How long git's helpers are waited for once they are killed."""

_COMPLAINT_BYTES = 64 * 1024
"""Of git's messages that are read, from their end; a host can send as many as it likes."""

_INHERITED_NOT = ("GIT_", "SSH_", "XDG_", "GCM_")
"""Variables by which git, ssh and credential managers could be turned to other configuration or keys."""

# The operator's own keys and configuration are not lent to strangers; /etc/ssh/ssh_known_hosts says whom to believe.
_SSH = "ssh -F none -o BatchMode=yes -o IdentityFile=none -o IdentitiesOnly=yes -o ConnectTimeout=10"

_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.bigFileThreshold": "32m",  # larger files are streamed, not held in memory
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",  # fetched by ourselves, under the same limits
    "submodule.recurse": "false",
    "fetch.unpackLimit": "1",  # one pack, whose size says how much was downloaded
    "transfer.bundleURI": "false",  # a host must not send us elsewhere
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}

_MISSING = re.compile(
    r"not found|does not exist|could not read (Username|Password)|Authentication failed|access denied|Permission denied"
    r"|returned error: (401|403|404|410|451)|not our ref|couldn't find remote ref|does not appear to be a git repo"
    r"|not valid: is this a git repository|Host key verification failed|repository not exported|unadvertised object",
    re.IGNORECASE,
)

_FULL = re.compile(r"^(?!remote: ).*: (No space left on device|Disk quota exceeded)$", re.MULTILINE)
"""Of this disk; what the host says of its own comes after ``remote:``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a git command ended.

    Args:
        code: Its exit code.
        output: What it printed on stdout.
        complaint: What it printed on stderr, without anything that drives a terminal.
    """

    code: int
    output: bytes
    complaint: str

    @property
    def missing(self) -> bool:
        """Whether it failed because what it was to get is not there, or not for us."""
        return _MISSING.search(self.complaint) is not None


class Git:
    """Runs git without a shell, a prompt, hooks, or any configuration but ours.

    Args:
        settings: The farm's.
        credentials: What goes to which host. Handed over in the environment: no command line and no file shows it.
        spawn: How it is started, in a session of its own: it starts helpers, which are ended with it.
    """

    def __init__(self, settings: Settings, credentials: Iterable[Credentials] = (), *, spawn: Spawn = popen) -> None:
        self._spawn = spawn
        config = _CONFIG | {f"http.{each.url}.extraHeader": each.header.get_secret_value() for each in credentials}
        self._environment = _inherited() | {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_ALLOW_PROTOCOL": ":".join(settings.git_protocols),
            "GIT_CONFIG_COUNT": str(len(config)),
            # No settings of a home (.netrc among them), and messages in the words that are looked for below.
            "HOME": "/nonexistent",
            "LC_ALL": "C",
        }
        for number, (key, value) in enumerate(config.items()):
            self._environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}

    def run(
        self,
        *arguments: str,
        seconds: float,
        look: Callable[[str], None] | None = None,
        output_bytes: int | None = None,
        memory_bytes: int | None = None,
    ) -> Ended:
        """Run one git command to its end, or end it with all that it started.

        Args:
            *arguments: Of git. What comes from outside stands after ``--`` or was checked before.
            seconds: Until it is ended.
            look: Called every `LOOK_SECONDS` with the end of what git said so far; an error that it raises ends the
                command.
            output_bytes: Greatest size of whatever it writes; None: no limit.
            memory_bytes: Greatest address space; None: no limit.

        Raises:
            TimeoutError: It took longer than `seconds`.
            TransientError: Somebody killed it, or the disk is full.
            ConfigError: There is no git.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
            process = self._start(arguments, output, complaint)
            try:
                _limit(process.pid, resource.RLIMIT_FSIZE, output_bytes)
                _limit(process.pid, resource.RLIMIT_AS, memory_bytes)
                _follow(process, time.monotonic() + seconds, look and (lambda: look(_end_of(complaint))))
            finally:
                _end_group(process)
            output.seek(0)
            code = unless_killed("git", process.wait())
            said = _end_of(complaint)
            if code and _FULL.search(said):
                raise TransientError(DISK_FULL, detail=said)
            return Ended(code=code, output=output.read(), complaint=said)

    def _start(self, arguments: tuple[str, ...], output: IO[bytes], complaint: IO[bytes]) -> Process:
        try:
            command = ["git", *arguments]
            return self._spawn(command, environment=self._environment, output=output, complaint=complaint)
        except FileNotFoundError as error:
            raise ConfigError(detail="git is not installed") from error


def has_lfs() -> bool:
    """Whether this machine has Git LFS."""
    return shutil.which("git-lfs") is not None


def _inherited() -> dict[str, str]:
    # PATH, proxies and certificates stay as the operator set them.
    return {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED_NOT)}


def _follow(process: Process, deadline: float, look: Callable[[], None] | None) -> None:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            process.wait(timeout=min(left, LOOK_SECONDS) if look else left)
        except subprocess.TimeoutExpired:
            if look:
                look()
        else:
            return


def _limit(pid: int, kind: int, limit: int | None) -> None:
    # From outside, because code between fork and exec is not safe beside threads. It may have ended already.
    if limit is not None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (limit, limit))


def _end_group(process: Process) -> None:
    # Also where git itself has ended: its helpers may write for longer, and a group keeps its number while one is left.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # One that is killed holds its files and writes its last for as long as the kernel needs to end it.
    deadline = time.monotonic() + _DYING_SECONDS
    while _is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(_DYING_LOOK_SECONDS)


def _is_alive(group: int) -> bool:
    """Whether a process of a group is left that is more than an entry which nobody has waited for yet."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _end_of(stream: IO[bytes]) -> str:
    # Read by position: git goes on writing at its own.
    size = os.fstat(stream.fileno()).st_size
    data = os.pread(stream.fileno(), _COMPLAINT_BYTES, max(0, size - _COMPLAINT_BYTES))
    return printable(data.decode(errors="replace").replace("\r", "\n"))
