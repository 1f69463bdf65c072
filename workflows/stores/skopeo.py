"""The one place that runs skopeo: copies of images between layouts, container storages and registries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from workflows.clock import SYSTEM, Clock
from workflows.errors import (
    DISK_FULL,
    ArgosyError,
    BuildError,
    ConfigError,
    InternalError,
    TransientError,
    unless_killed,
)
from workflows.settings import Settings
from workflows.stores.containers import Containers

_REFUSED = re.compile(
    r"unauthorized|authentication required|access.*denied|requested access|\b40[13]\b|Forbidden|invalid username",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"connection (refused|reset)|timeout|timed out|no such host|unexpected EOF|: EOF|TLS handshake"
    r"|network is unreachable|too ?many ?requests|\b429\b|\b50[0234]\b|deadline exceeded"
    r"|server misbehaving|broken pipe",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_UNTRUSTED = re.compile(r"x509: |server gave HTTP response to HTTPS client|first record does not look like a TLS")
_BROKEN = re.compile(
    r"(digest|size).*(did not match|mismatch|does not match)|invalid tar|unexpected end|gzip: |unsupported (mime|media)"
    r"|Error processing tar|invalid checksum|applying layer|cannot unmarshal|invalid character",
    re.IGNORECASE,
)
_LOGGED = re.compile(r'time="[^"]*" level=\w+ msg=(?P<text>"(?:[^"\\]|\\.)*")')
"""How skopeo prints what it fails by: for machines, where people read the log."""
_TAIL_LINES = 20
_LOOK_SECONDS = 0.5
_STALLED = 10
"""How many times ``registry_timeout_seconds`` a copy may stand still: a registry on an object store moves a layer of
gigabytes before it answers."""
_MURMUR_BYTES = 1024
"""What Go's runtime reads and writes in that time for its own sake, a few bytes for each timer."""


class Skopeo:
    """Copies images.

    Args:
        settings: The farm's.
        clock: By which a copy stands still.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM) -> None:
        self._settings = settings
        self._containers = Containers(settings)
        self._clock = clock

    def copy(self, source: str, destination: str, report: Callable[[str], None]) -> None:
        """Copy one image so that its manifest, and so its digest, stays what it is.

        Args:
            source: As skopeo names it, with the transport.
            destination: The same.
            report: Is handed each line that skopeo prints.

        Raises:
            BuildError: The image at `source` is none.
            ConfigError: The registry refuses our credentials.
            TransientError: Network, registry or disk.
            InternalError: Anything else.
        """
        options = ["--preserve-digests", *self._options("src", source), *self._options("dest", destination)]
        self._call(["copy", *options, source, destination], None, report)

    def export(self, source: str, destination: str, store: Path | None, report: Callable[[str], None]) -> None:
        """Copy one image out of a storage, compressed as the setting ``compression`` says.

        Args:
            source: As skopeo names it, with the transport.
            destination: The same.
            store: The graph root of the storage; None: that of this machine's images.
            report: Is handed each line that skopeo prints.

        Raises:
            ConfigError: There is no skopeo.
            TransientError: The disk does not take it.
            InternalError: Anything else.
        """
        compression = self._settings.compression
        options = ["--format=oci"]
        if compression == "none":
            options.append("--dest-oci-accept-uncompressed-layers")
        else:
            options.append(f"--dest-compress-format={compression}")
        self._call(["copy", *options, source, destination], store, report)

    def digest(self, image: str) -> str:
        """The digest of what an image's name stands for.

        Args:
            image: As skopeo names it, with the transport.

        Raises:
            ConfigError: There is no skopeo.
            TransientError: Registry or disk.
            InternalError: Anything else.
        """
        lines: list[str] = []
        self._call(
            ["inspect", "--no-tags", "--format={{.Digest}}", *self._options("", image), image], None, lines.append
        )
        return lines[-1] if lines else ""

    def _call(self, arguments: list[str], store: Path | None, report: Callable[[str], None]) -> None:
        self._containers.prepare()
        command = ["skopeo", "--policy", str(self._containers.policy), *arguments]
        tail: deque[str] = deque(maxlen=_TAIL_LINES)

        def keep(line: str) -> None:
            tail.append(line)
            report(line)

        is_remote = any("docker://" in argument for argument in arguments)
        patience = _STALLED * self._settings.registry_timeout_seconds if is_remote else float("inf")
        environment = os.environ | self._containers.environment(store)
        code = _run(command, environment, keep, patience, self._clock)
        if code != 0:
            # What a layout on this disk holds is the build's; what a registry holds has passed its own check.
            from_layout = any(argument.startswith("oci:") for argument in arguments[:-1])
            raise _error("\n".join(tail), to_registry=is_remote, is_strangers=from_layout or not is_remote)

    def _options(self, side: str, reference: str) -> list[str]:
        if not reference.startswith("docker://"):
            return []
        file = self._settings.registry_auth_file
        # Without a file: anonymous, whatever the person who started this has logged in to.
        # `copy` has two sides with options of their own, `inspect` one without a name.
        prefix = f"--{side}-" if side else "--"
        options = [f"{prefix}authfile={file}"] if file else [f"{prefix}no-creds"]
        return [*options, f"{prefix}tls-verify={'false' if self._settings.registry_insecure else 'true'}"]


def _run(
    command: list[str],
    environment: dict[str, str],
    report: Callable[[str], None],
    patience_seconds: float,
    clock: Clock,
) -> int:
    stalled = threading.Event()
    try:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            if patience_seconds != float("inf"):
                threading.Thread(target=_watch, args=(process, patience_seconds, stalled, clock), daemon=True).start()
            for line in process.stdout or ():
                report(_readable(line.rstrip("\n")))
    except FileNotFoundError as error:
        raise ConfigError(detail=f"{command[0]} is not installed") from error
    if stalled.is_set():
        raise TransientError(detail=f"{command[0]} moved nothing for {patience_seconds:g} s")
    return unless_killed(command[0], process.returncode)


def _readable(line: str) -> str:
    logged = _LOGGED.fullmatch(line)
    try:
        return str(json.loads(logged["text"])) if logged else line
    except ValueError:
        # Go knows escapes that JSON does not.
        return line


def _watch(process: subprocess.Popen[str], patience_seconds: float, stalled: threading.Event, clock: Clock) -> None:
    """End a process that neither reads nor writes: skopeo itself waits for a registry without end."""
    counted, deadline = -_MURMUR_BYTES, 0.0
    while process.poll() is None:
        try:
            now = _moved_bytes(process.pid)
        except OSError:
            # It has just ended.
            return
        if now - counted >= _MURMUR_BYTES:
            counted, deadline = now, clock.monotonic() + patience_seconds
        elif clock.monotonic() > deadline:
            stalled.set()
            process.kill()
        clock.sleep(min(_LOOK_SECONDS, patience_seconds / 4))


def _moved_bytes(pid: int) -> int:
    """What a process has read and written by now, sockets included; see proc(5)."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines())
    return int(counts["rchar"]) + int(counts["wchar"])


def _error(output: str, *, to_registry: bool, is_strangers: bool = True) -> ArgosyError:
    if to_registry and _UNTRUSTED.search(output):
        return ConfigError(detail=f"the registry's certificate is not trusted: {output}")
    if to_registry and _REFUSED.search(output):
        return ConfigError(detail=f"the registry refuses our credentials: {output}")
    if _FULL.search(output):
        # Most likely this machine's; a registry whose disk it is belongs to this service, too.
        return TransientError(DISK_FULL, detail=output)
    if _PASSING.search(output):
        return TransientError(detail=output)
    if is_strangers and _BROKEN.search(output):
        return BuildError("The build left no image that can be used.", detail=output)
    # A registry fails in more ways than can be listed; on this machine's disk nothing else gets better by itself.
    return TransientError(detail=output) if to_registry else InternalError(detail=output)
