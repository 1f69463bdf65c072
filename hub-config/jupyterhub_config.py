"""The Hub of one machine: visitors without accounts, servers in containers of podman or Docker.

``make run`` starts it (``tools/run.py``) with the variables that README.md lists. It keeps everything below
``ARGOSY_STATE`` and listens on 127.0.0.1 only: visitors' servers never call the Hub, so no container needs to reach it.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from pathlib import Path
from urllib.parse import urlsplit

# The Hub loads this file from its path; its neighbours are found beside it.
sys.path.insert(0, str(Path(__file__).parent))

import docker.errors
import visitors
from catalogue import FolderCatalogue
from dockerspawner import DockerSpawner
from spawner import VisitorSpawnerMixin

state = Path(os.environ["ARGOSY_STATE"]).absolute()
secrets = state / "secrets"
folder = state / "hub"
folder.mkdir(parents=True, exist_ok=True, mode=0o700)
mark = hashlib.sha256(str(state).encode()).hexdigest()[:8]
"""Tells this farm's containers from those of another farm on the same machine."""


def _secret(name: str) -> str:
    return (secrets / name).read_text(encoding="utf-8").strip()


def _limit(kind: int, wanted: int) -> int:
    # Without CAP_SYS_RESOURCE no process can give another more than it has.
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


class VisitorSpawner(VisitorSpawnerMixin, DockerSpawner):  # type: ignore[misc]  # DockerSpawner has no types
    """A visitor's server in a container of this machine."""

    async def pull_image(self, image: str) -> None:
        """Pull an image that is not here yet; DockerSpawner would cut its name in the middle of the digest."""
        try:
            await self.docker("inspect_image", image)
        except docker.errors.NotFound:
            if self.pull_policy == "never":
                raise
            await self.docker("pull", image)


def _log_in(auth_file: str) -> None:
    """Let the container engine's client send what a containers-auth.json holds: Docker's own file has the same form."""
    place = folder / "docker" / "config.json"
    place.parent.mkdir(exist_ok=True, mode=0o700)
    place.unlink(missing_ok=True)
    place.symlink_to(Path(auth_file).absolute())
    os.environ["DOCKER_CONFIG"] = str(place.parent)


c = get_config()  # type: ignore[name-defined]  # noqa: F821  # the Hub puts it here

# --- addresses and state ---
public = urlsplit(os.environ.get("ARGOSY_HUB_URL") or "http://127.0.0.1:8000/")
c.JupyterHub.bind_url = f"http://{public.netloc}{public.path}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{os.environ['HUB_PORT']}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['HUB_PROXY_API_PORT']}"
c.ConfigurableHTTPProxy.auth_token = _secret("proxy-token")
c.JupyterHub.cookie_secret_file = str(secrets / "hub-cookie")
visitors.detach(c, folder)  # `tools/run.py` ends the servers

# --- who may do what, and visitors' servers ---
visitors.admit(c, _secret("hub-token"))
visitors.serve(c, FolderCatalogue(state / "catalogue"))
c.JupyterHub.spawner_class = VisitorSpawner

# --- containers ---
limits = {
    # The processes of all visitors count together against this limit of their shared user, so it is as high as podman
    # can give it; each server's own limit is `pids_limit`.
    "nproc": _limit(resource.RLIMIT_NPROC, int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))),
    "nofile": _limit(resource.RLIMIT_NOFILE, 65536),
}
c.DockerSpawner.client_kwargs = {"base_url": f"unix://{os.environ['HUB_CONTAINER_SOCKET']}", "timeout": 120}
c.DockerSpawner.name_template = f"argosy-{mark}-{{username}}"
c.DockerSpawner.network_name = os.environ.get("HUB_NETWORK") or "podman"
# The proxy reaches a server at its own address on the bridge: no port of this machine is opened.
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.pull_policy = "never"
if os.environ.get("ARGOSY_IMAGE_STORE") == "registry":
    c.DockerSpawner.pull_policy = "ifnotpresent"
    if auth_file := os.environ.get("ARGOSY_REGISTRY_AUTH_FILE"):
        _log_in(auth_file)
c.DockerSpawner.volumes = {}
c.DockerSpawner.notebook_dir = ""
c.DockerSpawner.extra_create_kwargs = {"labels": {"argosy.farm": mark}}
c.DockerSpawner.extra_host_config = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 1024,
    "memswap_limit": c.Spawner.mem_limit,
    "ulimits": [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in limits.items()],
}
