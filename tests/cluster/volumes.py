"""Volumes for claims, on a cluster that makes none by itself: folders of this machine, which then is its only node."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.namespace import Namespace, Object, kubectl

FOLDER = Path("/var/tmp/argosy-test-volumes")  # of the tests alone, and they clear it

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


@contextlib.contextmanager
def volume(place: Namespace, claim: str, *, mode: str = "ReadWriteOnce", source: Path | None = None) -> Iterator[None]:
    """A volume that waits for one claim; nothing where the cluster makes volumes for claims.

    Args:
        place: The claim's namespace.
        claim: Its name.
        mode: How it is accessed.
        source: What is in it at first; None: nothing.
    """
    if source is None and _makes_volumes():
        yield
        return
    name = f"argosy-test-{uuid.uuid4().hex[:12]}"
    folder = FOLDER / name
    if source:
        shutil.copytree(source, folder)
    else:
        folder.mkdir(parents=True)
    for path in (folder, *folder.rglob("*")):
        # No kubelet changes the owner of such a folder.
        path.chmod(0o777 if path.is_dir() else 0o666)
    kubectl("create", "--filename", "-", document=_volume(name, folder, place.name, claim, mode))
    try:
        yield
    finally:
        kubectl("delete", "persistentvolume", name, "--wait=false")
        shutil.rmtree(folder, ignore_errors=True)


def claim(name: str, mode: str) -> Object:
    """A claim that any volume made above for it satisfies."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": [mode], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
    }


def _makes_volumes() -> bool:
    classes = json.loads(kubectl("get", "storageclasses", "--output", "json"))["items"]
    return any(each["metadata"].get("annotations", {}).get(_DEFAULT) == "true" for each in classes)


def _volume(name: str, folder: Path, namespace: str, claim: str, mode: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Ti"},
            "accessModes": [mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }
