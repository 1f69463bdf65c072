"""Starts a runner as a process of nobody's, from any thread of any server."""

from __future__ import annotations

import contextlib
import os
import posix
import sys
from typing import Literal

from workflows.engines.attempt.folder import BuildFolder
from workflows.errors import TransientError

LOCK = 9
"""The descriptor by which a runner inherits the lock that says that it lives. It holds it and never uses it."""

# The first process ends at once, so that the runner is no child of a web server that never waits for it.
_DETACH = "import os; os.fork() and os._exit(0); os.set_inheritable({lock}, False); "
_PROGRAM = _DETACH.format(lock=LOCK) + "from workflows.engines.attempt.runner import main; main()"


def start_runner(folder: BuildFolder, mode: Literal["run", "bury"], lock: int, environment: dict[str, str]) -> None:
    """Start the runner of an attempt, and give the attempt's lock to it.

    ``posix`` and neither ``subprocess`` nor ``os``: gevent replaces those by ones that work in the main thread alone.

    Args:
        folder: The attempt.
        mode: ``run`` executes it, ``bury`` ends what a dead runner left.
        lock: From `BuildFolder.take_runner_lock`; closed here, whatever happens.
        environment: The runner's.

    Raises:
        TransientError: No process can be started now.
    """
    command = [sys.executable, "-I", "-c", _PROGRAM, mode, str(folder.builds), folder.name]
    log = (str(folder.operator_log), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, *log),
        (os.POSIX_SPAWN_OPEN, 2, *log),
        (os.POSIX_SPAWN_DUP2, lock, LOCK),
    ]
    try:
        # A session of its own: a terminal's Ctrl-C is for the server, not for the builds.
        process = posix.posix_spawn(sys.executable, command, environment, file_actions=actions, setsid=True)
        # A server that reaps all its children by itself may have been faster.
        with contextlib.suppress(ChildProcessError):
            posix.waitpid(process, 0)
    except OSError as error:
        raise TransientError(detail=f"cannot start a runner: {error.strerror}") from error
    finally:
        os.close(lock)
