"""`helm test`: whether this cluster's network keeps strangers' code to what it may reach."""

from __future__ import annotations

from tests.cluster.farm import Farm
from tests.cluster.namespace import Namespace, Object, eventually, namespace

API = "kubernetes.default.svc:443"
"""What every pod of every cluster reaches where nothing forbids it."""

NOTHING: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "nothing"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
}


def test_helm_test_passes_where_the_network_enforces_policies_and_only_there(running: Farm) -> None:
    web = f"argosy-web.{running.release.web.name}.svc:80"
    is_passed, said = running.release.test()
    # That web is there to be reached at all is the first thing; only then does it say something that others do not.
    assert said.startswith(f"{web}: reached\n"), said
    assert is_passed == _is_enforced(running), said
    assert is_passed == ("NOT ENFORCED" not in said), said
    assert is_passed == (said.count(f"{web}: reached\n") == 1), said
    assert "TOO NARROW" not in said


def _is_enforced(running: Farm) -> bool:
    """Whether a pod that may reach nothing reaches nothing."""
    with namespace("network") as place:
        place.create(NOTHING, _pod(running))
        eventually(lambda: _phase(place) in {"Succeeded", "Failed"}, what=lambda: place.get("pod", "looks"))
        assert place.log("looks", "looks") in {"reached\n", "refused\n"}
        return place.log("looks", "looks") == "refused\n"


def _phase(place: Namespace) -> str:
    return str(place.get("pod", "looks")["status"].get("phase"))


def _pod(running: Farm) -> Object:
    host, _, port = API.partition(":")
    look = f"import socket; socket.create_connection(({host!r}, {port}), timeout=5)"
    command = ["sh", "-c", f'python -I -c "{look}" 2>/dev/null && echo reached || echo refused']
    web = running.release.web.get("deployment", "argosy-web")["spec"]["template"]["spec"]["containers"][0]
    container = {"name": "looks", "image": web["image"], "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "looks"},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]},
    }
