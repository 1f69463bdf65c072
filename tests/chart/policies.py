"""What rendered network policies allow, by the rules of Kubernetes: for clusters whose network enforces none.

Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]
Port = tuple[str, int]
"""Protocol and number."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somebody on the network: a pod, or an address outside.

    Args:
        ip: Its address.
        namespace: Of a pod; empty: no pod.
        labels: Of a pod.
    """

    ip: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def allows(policies: list[Policy], source: Place, target: Place, port: int, *, protocol: str = "TCP") -> bool:
    """Whether a connection goes through: out of where it begins and into where it ends."""
    out = _passes(policies, "Egress", source, target, (protocol, port))
    return out and _passes(policies, "Ingress", target, source, (protocol, port))


def _passes(policies: list[Policy], direction: str, pod: Place, peer: Place, port: Port) -> bool:
    selecting = [each for each in policies if pod.namespace and _selects(each, direction, pod)]
    if not selecting:
        return True  # whom no policy selects is free
    return any(
        _rule_allows(rule.get("to" if direction == "Egress" else "from"), rule.get("ports"), pod, peer, port)
        for rule in _rules(selecting, direction)
    )


def _selects(policy: Policy, direction: str, pod: Place) -> bool:
    spec = policy["spec"]
    return (
        policy["metadata"].get("namespace", "argosy") == pod.namespace
        and direction in spec["policyTypes"]
        and _matches(spec["podSelector"], pod.labels)
    )


def _rules(policies: list[Policy], direction: str) -> Iterator[Mapping[str, Any]]:
    for policy in policies:
        yield from policy["spec"].get(direction.lower(), ())


def _rule_allows(peers: list[Policy] | None, ports: list[Policy] | None, pod: Place, peer: Place, port: Port) -> bool:
    # A list that is missing or empty allows everybody; so does one of ports.
    peers_allow = not peers or any(_is_peer(each, pod, peer) for each in peers)
    ports_allow = not ports or any((each.get("protocol", "TCP"), each.get("port", port[1])) == port for each in ports)
    return peers_allow and ports_allow


def _is_peer(each: Mapping[str, Any], pod: Place, peer: Place) -> bool:
    if block := each.get("ipBlock"):
        address = ipaddress.ip_address(peer.ip)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(other) for other in block.get("except", ()))
    if not peer.namespace:
        return False
    in_namespace = (
        _matches(each["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
        if "namespaceSelector" in each
        else peer.namespace == pod.namespace
    )
    return in_namespace and _matches(each.get("podSelector", {}), peer.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "expressions are not simulated"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
