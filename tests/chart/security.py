"""The restricted Pod Security level, as far as a pod's specification can break it.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def faults(pod: dict[str, Any], *, but: frozenset[str] = frozenset()) -> list[str]:
    """What keeps a pod's specification from the restricted level; containers named in `but` are left out."""
    found = [f"pod: {each}" for each in _pod_faults(pod)]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        if container["name"] not in but:
            found += [f"{container['name']}: {each}" for each in _container_faults(pod, container)]
    return found


def _pod_faults(pod: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']}: {kinds}"


def _container_faults(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext", {}) | container.get("securityContext", {})
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "root"
    if context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
