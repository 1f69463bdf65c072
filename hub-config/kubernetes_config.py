"""The Hub of a cluster: visitors' servers in pods of KubeSpawner, images from the catalogue in Kubernetes.

Zero to JupyterHub loads it out of its ``jupyterhub_config.d`` (values.yaml says how it comes there), after its own
configuration; any other Hub by ``load_subconfig``.

| variable | meaning |
|---|---|
| ``ARGOSY_CATALOGUE_NAMESPACE`` | namespace of the catalogue; the Hub's account may get ConfigMaps there |
| ``HUB_CONFIG_FOLDER`` | folder of the modules beside this file; empty: where this file is |
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Zero to JupyterHub executes this file's text, so `__file__` is another one's there.
sys.path.insert(0, os.environ.get("HUB_CONFIG_FOLDER") or str(Path(__file__).parent))

import visitors
from catalogue import KubernetesCatalogue
from kubespawner import KubeSpawner
from spawner import VisitorSpawnerMixin


class VisitorSpawner(VisitorSpawnerMixin, KubeSpawner):  # type: ignore[misc]  # KubeSpawner has no types
    """A visitor's server in a pod."""


c = get_config()  # type: ignore[name-defined]  # noqa: F821  # the Hub puts it here

visitors.serve(c, KubernetesCatalogue(os.environ["ARGOSY_CATALOGUE_NAMESPACE"]))
c.JupyterHub.spawner_class = VisitorSpawner

# --- pods: strangers' code, as much as the container that builds it ---
c.KubeSpawner.automount_service_account_token = False
c.KubeSpawner.allow_privilege_escalation = False
c.KubeSpawner.privileged = False
# Images are made for this user; its name in the image says nothing about its number.
c.KubeSpawner.uid = 1000
c.KubeSpawner.fs_gid = None
c.KubeSpawner.container_security_context = {
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Nothing of the namespace's services is any business of a notebook.
c.KubeSpawner.extra_pod_config = {"enableServiceLinks": False}
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.volumes = []
c.KubeSpawner.volume_mounts = []
# A digest never changes: a node that has it need not ask.
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.delete_pvc = False
