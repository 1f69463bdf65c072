"""What every Hub of a farm has in common, on one machine and in a cluster: nobody logs in, web starts servers.

Both configurations hand their `c` over. Numbers come from the farm's own settings, by their variables.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from catalogue import Catalogue
from spawner import SERVER_COMMAND

GIB = 1024**3

_HTTP_SECONDS = 30
"""Until a server that takes connections must answer. A Hub that was killed while a server was on its way does not know
its address; until this time is over, the next one looks for it at a wrong one and lets nobody end it."""

ROLES = {
    # The least that a launch needs: to make, see and remove users and their servers.
    "argosy": ["admin:users", "servers"],
    "idle-culler": ["list:users", "read:users:activity", "read:servers", "delete:servers", "admin:users"],
}
"""The scopes of each service, which is called like its role."""


def number(name: str, default: float) -> float:
    """A setting that is a number."""
    return float(os.environ.get(name) or default)


def serve(c: Any, catalogue: Catalogue) -> None:
    """How the Hub starts visitors' servers.

    Args:
        c: The Hub's configuration.
        catalogue: The images that may start.
    """
    idle_seconds = _idle_seconds()
    c.JupyterHub.authenticator_class = "null"
    c.JupyterHub.allow_named_servers = False
    c.JupyterHub.concurrent_spawn_limit = 64
    # How often activity is read from the proxy: a server's idle time is known no better than this.
    c.JupyterHub.last_activity_interval = max(5, min(60, idle_seconds // 4))
    # A refusal comes within milliseconds and is then the answer to the request itself; a start takes seconds and is
    # followed by its progress.
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.25}
    # Servers that were told to end, and their users, are no evidence against the Hub.
    c.Spawner.consecutive_failure_limit = 0
    c.VisitorSpawnerMixin.catalogue = catalogue
    c.Spawner.start_timeout = int(number("ARGOSY_LAUNCH_TIMEOUT_SECONDS", 600))
    c.Spawner.http_timeout = _HTTP_SECONDS
    c.Spawner.poll_interval = 30
    c.Spawner.mem_limit = int(number("ARGOSY_VISITOR_MEMORY_BYTES", 2 * GIB))
    c.Spawner.cpu_limit = number("ARGOSY_VISITOR_CPUS", 1)
    c.Spawner.cmd = SERVER_COMMAND
    c.Spawner.default_url = ""


def admit(c: Any, token: str) -> None:
    """Who may do what: web has a token, and a service ends what nobody uses. Zero to JupyterHub does both by values.

    Args:
        c: The Hub's configuration.
        token: Web's.
    """
    idle_seconds = _idle_seconds()
    culler = {
        "timeout": idle_seconds,
        "max-age": int(number("ARGOSY_VISITOR_MAX_AGE_SECONDS", 6 * 3600)),
        "cull-every": max(5, min(60, idle_seconds // 4)),
        "cull-users": True,
    }
    options = [f"--{name}={value}" for name, value in culler.items()]
    c.JupyterHub.services = [
        {"name": "argosy", "api_token": token},
        {"name": "idle-culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", *options]},
    ]
    c.JupyterHub.load_roles = [{"name": name, "services": [name], "scopes": scopes} for name, scopes in ROLES.items()]
    c.JupyterHub.active_server_limit = int(number("ARGOSY_VISITOR_LIMIT", 50))


def detach(c: Any, folder: Path) -> None:
    """The proxy is a process of its own, and neither it nor visitors' servers end with the Hub, which finds them again.

    Args:
        c: The Hub's configuration.
        folder: Keeps the Hub's state.
    """
    c.ConfigurableHTTPProxy.should_start = False
    c.JupyterHub.cleanup_proxy = c.JupyterHub.cleanup_servers = False
    c.ConfigurableHTTPProxy.pid_file = str(folder / "proxy.pid")
    c.JupyterHub.db_url = f"sqlite:///{folder / 'jupyterhub.sqlite'}"


def _idle_seconds() -> int:
    return int(number("ARGOSY_VISITOR_IDLE_SECONDS", 600))
