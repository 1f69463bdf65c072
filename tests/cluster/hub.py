"""A real JupyterHub with KubeSpawner for a release: Hub and proxy are processes on an address that pods reach.

The Hub comes to the API server as the account that the chart lets read the catalogue, and with no other rights there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from pathlib import Path

import psutil
import requests
import yaml

from tests.cluster.namespace import Namespace, kubectl
from tests.cluster.release import Release
from tools.farm import free_ports
from tools.processes import Component, Processes

ROOT = Path(__file__).resolve().parents[2]
NODE = os.environ.get("ARGOSY_TEST_NODE_IP", "127.0.0.1")
"""An address of this machine that pods reach."""

START_SECONDS = 60
ACCOUNT = "hub"

_SPAWNER = [
    # As zero-to-jupyterhub gives its Hub.
    {
        "apiGroups": [""],
        "resources": ["pods", "persistentvolumeclaims", "secrets", "services"],
        "verbs": ["get", "watch", "list", "create", "delete"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "watch", "list"]},
]


class Hub:
    """The Hub of one release.

    Args:
        release: Whose catalogue it reads; its account is made in the release's namespace.
        folder: For its state and logs.
    """

    def __init__(self, release: Release, folder: Path) -> None:
        self.visitors = Namespace(f"{release.web.name}-visitors")
        self.token = secrets.token_hex(32)
        self._release = release
        self._folder = folder
        port, self._port, self._api_port = free_ports(3)
        self.url = f"http://{NODE}:{port}/"
        self._processes = Processes(folder / "log")

    def start(self) -> None:
        """Make its account and the visitors' namespace, and start proxy and Hub."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_account()
        for component in (self._proxy(), self._hub()):
            self._processes.start(component, timeout_seconds=START_SECONDS, is_over=lambda: False)

    def stop(self) -> None:
        """End both; the visitors' namespace goes with all servers."""
        self._processes.stop()
        # The Hub asks them by SIGINT, which nothing hears that was started in a shell's background.
        for process in self._services():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        kubectl("delete", "namespace", self.visitors.name, "--ignore-not-found", "--wait=false")

    def logs(self) -> str:
        """What both said last."""
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in (self._folder / "log").glob("*.log"))

    def _make_account(self) -> None:
        # Visitors' servers meet the restricted level; the namespace takes no others.
        label = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._release.web.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.visitors.name, "labels": label}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
        )
        home = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self._release.web.name}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": ACCOUNT}}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
        self.visitors.create(
            role | {"kind": "Role", "rules": _SPAWNER},
            role | {"kind": "RoleBinding", "roleRef": reference, "subjects": [home]},
        )

    def _kubeconfig(self) -> Path:
        """The cluster of ``KUBECONFIG``, as the Hub's account."""
        given = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
        token = kubectl("create", "token", ACCOUNT, "--namespace", self._release.web.name, "--duration=24h").strip()
        given["users"] = [{"name": given["users"][0]["name"], "user": {"token": token}}]
        path = self._folder / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(given))
        return path

    def _proxy(self) -> Component:
        options = {
            "ip": NODE,
            "port": self.url.rpartition(":")[2].strip("/"),
            "api-ip": "127.0.0.1",
            "api-port": self._api_port,
            "default-target": f"http://127.0.0.1:{self._port}",
            "log-level": "warn",
        }
        return Component(
            name="proxy",
            command=["configurable-http-proxy", *(f"--{name}={value}" for name, value in options.items())],
            environment={"CONFIGPROXY_AUTH_TOKEN": self.token, "PATH": _path()},
            is_ready=lambda: _answers(f"http://127.0.0.1:{self._api_port}/api/routes"),
        )

    def _hub(self) -> Component:
        return Component(
            name="hub",
            command=[sys.executable, "-m", "jupyterhub", "-f", str(Path(__file__).parent / "hub_config.py")],
            environment={
                "ARGOSY_HUB_URL": self.url,
                "ARGOSY_CATALOGUE_NAMESPACE": self._release.catalogue.name,
                "ARGOSY_VISITOR_MEMORY_BYTES": str(512 * 1024**2),
                "CONFIGPROXY_AUTH_TOKEN": self.token,
                "HUB_KUBERNETES_CONFIG": str(ROOT / "hub-config" / "kubernetes_config.py"),
                "HUB_NAMESPACE": self.visitors.name,
                "HUB_PORT": str(self._port),
                "HUB_PROXY_API_PORT": str(self._api_port),
                "HUB_STATE": str(self._folder),
                "HUB_WEB_TOKEN": self.token,
                "KUBECONFIG": str(self._kubeconfig()),
                "PATH": _path(),
            },
            folder=self._folder,
            is_ready=lambda: _answers(f"{self.url}hub/health"),
        )

    def _services(self) -> list[psutil.Process]:
        """What the Hub has started beside servers: each has a session of its own."""
        hub = f":{self._port}/"
        found = psutil.process_iter(["environ"])
        return [each for each in found if hub in (each.info["environ"] or {}).get("JUPYTERHUB_API_URL", "")]


def _path() -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.pathsep.join((str(cache / "argosy" / "bin"), os.environ["PATH"]))


def _answers(url: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=5).status_code < requests.codes.server_error
    except requests.RequestException:
        return False
