"""A Hub with KubeSpawner as a process of this machine: `tests/cluster/hub.py` starts it."""

from __future__ import annotations

import os
from pathlib import Path

c = get_config()  # noqa: F821  # the Hub puts it here
load_subconfig(os.environ["HUB_KUBERNETES_CONFIG"])  # noqa: F821  # which finds its neighbours, so ours come after it

import visitors  # noqa: E402

folder = Path(os.environ["HUB_STATE"])
visitors.detach(c, folder)
visitors.admit(c, os.environ["HUB_WEB_TOKEN"])
c.JupyterHub.bind_url = os.environ["ARGOSY_HUB_URL"]
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{os.environ['HUB_PORT']}"
c.JupyterHub.cookie_secret_file = str(folder / "cookie")
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['HUB_PROXY_API_PORT']}"
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
c.KubeSpawner.namespace = os.environ["HUB_NAMESPACE"]
# This machine is small, and so are the tests' servers.
c.KubeSpawner.cpu_guarantee = 0.01
c.KubeSpawner.mem_guarantee = "64M"
