"""A whole farm on the cluster: the chart with our own images, a git host and a real Hub beside it.

with farm("mine", folder) as made:
    Visitor(made.url).click(git_spec(f"{made.githost.url}/owner/name"))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from tests.cluster import images
from tests.cluster.hub import NODE, Hub
from tests.cluster.namespace import Object, eventually, kubectl
from tests.cluster.release import NAME, Release, release
from tests.cluster.site import REGISTRY
from tests.cluster.volumes import claim, volume
from tests.githost import GitHost

READY_SECONDS = 240
"""With the pull of web's image by a node that has none of it."""

ARCHIVE, DATABASE = "archive", "grype-db"
"""Claims for the archive of several replicas, and for the scanner's database."""

MIB = 1024**2


class Farm:
    """One farm.

    Args:
        release: The chart's.
        hub: Its Hub.
        githost: Its git host, on an address that pods reach.
        values: Of the chart, as in `Release.install`.
    """

    def __init__(self, release: Release, hub: Hub, githost: GitHost, values: Mapping[str, Any]) -> None:
        self.release = release
        self.hub = hub
        self.githost = githost
        self._values = dict(values)

    @property
    def url(self) -> str:
        """Web's address, over all replicas."""
        spec = self.release.web.get("service", f"{NAME}-web")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    @property
    def replicas(self) -> dict[str, str]:
        """The address of each replica of web that is ready, by its pod's name."""
        pods = self.release.web.list("pods", "app.kubernetes.io/component=web")
        return {pod["metadata"]["name"]: f"http://{pod['status']['podIP']}:8585" for pod in pods if _is_ready(pod)}

    @property
    def prefix(self) -> str:
        """What stands before every image's name."""
        return str(self.value("registry__prefix"))

    def value(self, name: str) -> Any:
        """One of the chart's values, as it was given."""
        return self._values[name]

    def install(self, **changes: Any) -> None:
        """Install or upgrade, and wait until web answers.

        Args:
            changes: Of the values, from now on.
        """
        self._values |= changes
        self.release.install(**self._values)
        self.wait()

    def wait(self) -> None:
        """Wait until all replicas of web are ready, and none of an earlier revision is left."""
        eventually(self._is_rolled_out, seconds=READY_SECONDS, what=lambda: f"web does not get ready:\n{self.logs()}")
        # A node learns of a Service's pods a little later.
        eventually(self._answers, seconds=READY_SECONDS)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/versions", timeout=5).ok
        except requests.RequestException:
            return False

    def logs(self) -> str:
        """What web and the Hub said last, and how web's pods stand."""
        place = self.release.web.name
        look = ["--namespace", place, "--selector", "app.kubernetes.io/component=web"]
        said = kubectl("logs", *look, "--tail=60", "--prefix", "--ignore-errors")
        pods = kubectl("describe", "pods", *look)
        return f"{pods[-3000:]}\n{said}\n{self.hub.logs()}"

    def _is_rolled_out(self) -> bool:
        found = self.release.web.get("deployment", f"{NAME}-web")
        status, wanted = found["status"], found["spec"]["replicas"]
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        # One that is told to end still has streams, which break.
        counts.add(len(self.release.web.list("pods", "app.kubernetes.io/component=web")))
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == {wanted}


@contextlib.contextmanager
def farm(
    prefix: str,
    folder: Path,
    *,
    ledger_url: str = "",
    vulnerabilities: Path | None = None,
    registry: str = REGISTRY,
    **changes: Any,
) -> Iterator[Farm]:
    """A farm that is installed and ready; all of it goes afterwards.

    Args:
        prefix: Of its namespaces.
        folder: For what runs on this machine.
        ledger_url: PostgreSQL's; empty: SQLite. With it there may be several replicas (``web__replicas=2``).
        vulnerabilities: The scanner's database; None: there is none, and each scan says so.
        registry: Host and port of what the farm writes to: `REGISTRY`, or what stands before it.
        changes: Of the chart's values.
    """
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(release(prefix))
        githost = GitHost(folder / "githost", address=NODE).start()
        stack.callback(githost.stop)
        hub = Hub(made, folder / "hub")
        hub.start()
        stack.callback(hub.stop)
        values = _images(registry) | _values(made, hub, githost, registry)
        if ledger_url:
            stack.enter_context(volume(made.web, ARCHIVE, mode="ReadWriteMany"))
            made.web.create(claim(ARCHIVE, "ReadWriteMany"), secret("database", url=ledger_url))
            values |= {"ledger__secret": "database", "archive__claim": ARCHIVE}
        else:
            stack.enter_context(volume(made.web, f"{NAME}-web"))
        if vulnerabilities:
            stack.enter_context(volume(made.builds, DATABASE, mode="ReadOnlyMany", source=vulnerabilities))
            values |= {"scan__database__claim": DATABASE}
        running = Farm(made, hub, githost, values | changes)
        running.install()
        if vulnerabilities:
            made.builds.create(claim(DATABASE, "ReadOnlyMany"))
        yield running


def _images(registry: str) -> dict[str, Any]:
    made = images.real()
    return {
        "images__web": made["web"],
        "images__steps": made["steps"],
        "images__builder": made["builder"],
        "images__foundation": made["foundation"].rpartition(":")[0].replace(REGISTRY, registry),
    }


def _values(made: Release, hub: Hub, githost: GitHost, registry: str) -> dict[str, Any]:
    git_port = int(githost.url.rpartition(":")[2])
    registry_port = int(registry.rpartition(":")[2])
    return {
        "registry__prefix": f"{registry}/{made.web.name}/",
        "hub__token": hub.token,
        "hub__url": hub.url,
        "hub__apiUrl": f"{hub.url}hub/api/",
        "networkPolicy__buildsReach": [{"cidr": f"{NODE}/32", "ports": [git_port, registry_port]}],
        # A small machine: what pods ask for is less than what they may use.
        "web__resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "builds__requests": {"cpu": "100m", "memory": "256Mi", "stepCpu": "10m", "stepMemory": "64Mi"},
        "limits__builds": 2,
        "limits__source": "20Mi",
        "settings": {"resolve_timeout_seconds": 5},
    }


def secret(name: str, **content: str) -> Object:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}


def _is_ready(pod: Object) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"
