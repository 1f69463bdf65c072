"""The web process: ``python -m web.server`` serves the application by gunicorn with one gevent worker.

gunicorn's worker lets gevent patch the process before it loads the application, and this module imports nothing of it
before that. One worker: all who follow a build then share one reader and one ring; more processes are replicas.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from workflows.errors import ConfigError
from workflows.settings import Settings, load

if TYPE_CHECKING:
    from flask import Flask

_logger = logging.getLogger(__name__)

CONNECTIONS = 10_000
"""Open streams that one process may hold, where the limit of files allows it."""

_FILES_BESIDE_CONNECTIONS = 200
"""Logs that are read, the ledger, calls of the Hub and of git hosts."""

_FEWEST_CONNECTIONS = 256

_GRACE_SECONDS = 2
"""A stream does not end by itself in any time that one would wait; its client comes back with its last event's id."""


def main() -> int:
    """Serves until it is told to end.

    Returns:
        The exit code: 78 where the farm is set up wrongly.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What plug-ins a migration tool has is nobody's news.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    try:
        settings = load()
        Server(settings, connections(), _application).run()
    except ConfigError as error:
        print(f"{error} {error.detail}", file=sys.stderr)  # noqa: T201  # for the person at the terminal
        return error.exit_code
    return 0


def connections() -> int:
    """How many connections this process may hold, after the limit of open files was raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _FILES_BESIDE_CONNECTIONS
    limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft == resource.RLIM_INFINITY or soft > limit:
        limit = soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    possible = min(CONNECTIONS, limit - _FILES_BESIDE_CONNECTIONS)
    if possible < CONNECTIONS:
        _logger.warning("the limit of open files allows %d connections; `ulimit -Hn` says more", possible)
    return max(_FEWEST_CONNECTIONS, possible)


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with our configuration; neither its command line nor its environment changes it.

    Args:
        settings: The farm's.
        connection_limit: Open connections at most.
        make: Makes the application, in the worker once gevent has patched it.
    """

    def __init__(self, settings: Settings, connection_limit: int, make: Callable[[Settings], Flask]) -> None:
        self._settings = settings
        self._make = make
        self._connection_limit = connection_limit
        super().__init__()

    def load_config(self) -> None:
        """Sets what differs from gunicorn's defaults."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        chosen: dict[str, Any] = {
            "bind": f"{host}:{self._settings.port}",
            "worker_class": "gevent",
            "workers": 1,
            "worker_connections": self._connection_limit,
            "graceful_timeout": _GRACE_SECONDS,
            "limit_request_line": 8190,  # a spec may be long; what is too long gets our own answer, not gunicorn's
            "keepalive": 75,  # longer than any proxy's, so that none writes into a connection that is just closed
            "control_socket_disable": True,  # nobody commands the server but by signals
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application."""
        return self._make(self._settings)


def _application(settings: Settings) -> Flask:
    from web.wiring import start  # noqa: PLC0415  # requests and threading must not be loaded before gevent's patch

    return start(settings)


if __name__ == "__main__":
    sys.exit(main())
