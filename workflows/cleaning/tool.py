"""Runs tools from any thread of any server, and deletes trees that nothing else would."""

from __future__ import annotations

import contextlib
import os
import posix
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflows.errors import ConfigError, TransientError

_TIMEOUT_SECONDS = 600
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command printed, errors included, whether it ended well or not: callers look at what it was to do.

    Args:
        command: Is ended after ten minutes, and gives way to everything else on this machine.
        environment: Beside that of this process.

    Raises:
        ConfigError: There is no such command.
        TransientError: No process can be started now.
    """
    if shutil.which(command[0], path=_PATH) is None:
        raise ConfigError(detail=f"{command[0]} is not installed")
    whole = ["timeout", "--kill-after=10", str(_TIMEOUT_SECONDS), "nice", "-n", "10", *command]
    return spawn(whole, os.environ | {"PATH": _PATH, "LC_ALL": "C.UTF-8"} | dict(environment or {}))


def spawn(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a program printed, errors included; returns once it and all that it has started have closed their output.

    ``posix`` and neither ``subprocess`` nor ``os``: gevent replaces those by ones that work in the main thread alone.

    Args:
        command: Found on this process's PATH.
        environment: All of its variables.

    Raises:
        TransientError: No process can be started now.
    """
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    with os.fdopen(reader, "rb") as output:
        try:
            process = posix.posix_spawnp(command[0], [*command], environment, file_actions=actions)
        except OSError as error:
            raise TransientError(detail=f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            os.close(writer)
        printed = output.read()
    # A server that reaps all its children by itself may have been faster.
    with contextlib.suppress(ChildProcessError):
        posix.waitpid(process, 0)
    return printed.decode("utf-8", "replace")


def sizes(paths: Sequence[Path]) -> dict[Path, int]:
    """Bytes of disk below each path; hard links count once. What is not there is left out."""
    found = {}
    if paths:
        for line in run(["du", "-sxB1", "--", *map(str, paths)]).splitlines():
            size, _, path = line.partition("\t")
            if size.isdigit():
                found[Path(path)] = int(size)
    return found


def delete(paths: Sequence[Path]) -> None:
    """Delete trees, and before that whatever is still mounted below them."""
    if not paths:
        return
    for mount in sorted(_mounts_below(paths), reverse=True):
        run(["umount", "--lazy", mount])
    # Not shutil.rmtree, which a stranger's tree of a thousand levels brings down.
    run(["rm", "-rf", "--one-file-system", "--", *map(str, paths)])


def _mounts_below(paths: Sequence[Path]) -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    # The kernel writes a space in a path as \040.
    mounts = [line.split()[1].encode("latin-1", "replace").decode("unicode_escape") for line in lines]
    return [mount for mount in mounts if any(Path(mount).is_relative_to(path) for path in paths)]
