"""The chart, installed on the cluster of ``KUBECONFIG`` in namespaces of a test's own."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chart.helm import CHART, helm, tree
from tests.cluster.namespace import Namespace, kubectl
from tests.cluster.site import REGISTRY

NAME = "argosy"
CHECKS = "app.kubernetes.io/component=check"
"""The pods of ``helm test``."""


class Release:
    """One release.

    Args:
        namespace: The release's; those of builds and catalogue are named after it.
    """

    def __init__(self, namespace: str) -> None:
        self.web = Namespace(namespace)
        self.builds = Namespace(f"{namespace}-builds")
        self.catalogue = Namespace(f"{namespace}-images")

    def install(self, *, chart: Path = CHART, values: Path | None = None, seconds: int = 300, **changes: Any) -> str:
        """Install or upgrade; what Helm says.

        Args:
            chart: Its folder.
            values: A file of values; None: the least that there is.
            seconds: Until its hooks must have ended.
            changes: As in `tests.chart.helm.render`.
        """
        files = ["--values", str(values)] if values else []
        given = json.dumps(tree(_least() | changes))
        timeout = f"--timeout={seconds}s"
        return self._helm("upgrade", "--install", NAME, str(chart), timeout, *files, "--values", "-", given=given)

    def test(self) -> tuple[bool, str]:
        """Whether ``helm test`` passes, and what its pods say."""
        done = helm("test", NAME, "--namespace", self.web.name, "--timeout", "2m")
        # Not by `--logs`: Helm looks for every pod in the release's own namespace.
        pods = [(place, pod) for place in (self.web, self.builds) for pod in place.list("pods", CHECKS)]
        said = [place.log(pod["metadata"]["name"], "reach") for place, pod in pods]
        return done.returncode == 0, "".join([*said, done.stderr])

    def templates(self) -> list[str]:
        """Names of the WorkflowTemplates that are named after their content, the oldest first."""
        found = [each["metadata"] for each in self.builds.list("workflowtemplates", "argosy/generation")]
        return [each["name"] for each in sorted(found, key=lambda each: str(each["creationTimestamp"]))]

    def current(self) -> str:
        """The WorkflowTemplate that web's builds refer to."""
        return str(self.web.get("configmap", f"{NAME}-web")["data"]["ARGOSY_WORKFLOW_TEMPLATE"])

    def _helm(self, *arguments: str, given: str = "") -> str:
        done = helm(*arguments, "--namespace", self.web.name, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def release(prefix: str) -> Iterator[Release]:
    """Namespaces for a release; afterwards they go, with all that is in them."""
    made = Release(f"{prefix}-{uuid.uuid4().hex[:8]}")
    kubectl("create", "namespace", made.web.name)
    try:
        yield made
    finally:
        helm("uninstall", NAME, "--namespace", made.web.name, "--no-hooks")
        names = [each.name for each in (made.web, made.builds, made.catalogue)]
        kubectl("delete", "namespace", *names, "--ignore-not-found", "--wait=false")


def _least() -> dict[str, Any]:
    image = f"{REGISTRY}/tests/none:1"
    return {
        "images__web": image,
        "images__steps": image,
        "web__publicUrl": "http://argosy.test",
        "registry__prefix": f"{REGISTRY}/farm/",
        "registry__insecure": True,
        "hub__url": "http://hub.test/",
        "hub__apiUrl": "http://hub.test/hub/api/",
        "hub__token": "0" * 64,
    }
