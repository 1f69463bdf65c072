"""A network for builds: out to the world, and to nothing of this machine or beside it.

Each build has a network namespace of its own, tied to this machine by a pair of virtual interfaces; the near end is
called ``agb<slot>``. What may pass is decided in the ``mangle`` table: it is asked after addresses were translated and
before any rule of ``filter``, so no other program's rule can let through what is refused here.

- to this machine itself, whatever the address: nothing, but its name server where it is one;
- to link-local addresses (metadata services), other builds, or out by anything but the default route's interface
  (visitors' networks, other containers): nothing;
- to a build from anywhere: nothing but answers;
- from a build in any name but its own: nothing;
- IPv6: nothing.

The firewall drops in silence. So that nobody waits, a build's own routes prohibit the same places, and it is told so at
once; a build that changes its routes meets the firewall.

`remove` takes all of it away.

Source: iptables(8), iptables-extensions(8), veth(4).
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workflows.errors import ConfigError, TransientError, unless_killed

_PREFIX = "agb"
_RUN = Path("/run/argosy")
_SLOTS = 256
_CANDIDATES = ("10.213.0.0/22", "172.29.212.0/22", "192.168.212.0/22")
"""The first that overlaps no network of this machine is taken; a /30 for each slot."""
_IN, _OUT = "ARGOSY-BUILDS-IN", "ARGOSY-BUILDS-OUT"
_LINK_LOCAL = "169.254.0.0/16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """One build's connection.

    Args:
        slot: Its number; two builds at the same time never have the same.
        link: The near end's name.
        host_address: The near end's address with prefix length.
        address: The build's.
    """

    slot: int
    link: str
    host_address: str
    address: str


@contextmanager
def cable() -> Iterator[Cable]:
    """A connection that no other build of this machine has, behind the firewall.

    Raises:
        ConfigError: iptables or ip is missing, or not allowed here.
        TransientError: All of them are taken.
    """
    _RUN.mkdir(parents=True, exist_ok=True)
    network = _subnet()
    _firewall(network)
    with _slot() as slot:
        link = f"{_PREFIX}{slot}"
        host, build = list(list(network.subnets(new_prefix=30))[slot].hosts())
        try:
            yield Cable(slot=slot, link=link, host_address=f"{host}/30", address=f"{build}/30")
        finally:
            # It goes with the build's namespace; unless the build was killed before it had it.
            _run(["ip", "link", "delete", link], check=False)


def connect(process: int, link: str, host_address: str, address: str) -> None:
    """Lay the cable into the network namespace of a process.

    Raises:
        ConfigError: The kernel refuses.
        TransientError: Somebody killed the tool.
    """
    _run(["ip", "link", "delete", link], check=False)
    _run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process)])
    # Before it is up: what comes from any but the build's own address is dropped.
    Path(f"/proc/sys/net/ipv4/conf/{link}/rp_filter").write_text("1", encoding="ascii")
    _batch([], [f"address add {host_address} dev {link}", f"link set {link} up"])
    gateway = host_address.partition("/")[0]
    inside = ["link set lo up", f"address add {address} dev eth0", "link set eth0 up"]
    inside += [f"route add {place} via {gateway}" for place in ("default", *name_servers())]
    inside += [f"route add prohibit {place}" for place in _refused()]
    _batch(["nsenter", f"--net=/proc/{process}/ns/net"], inside)


def name_servers() -> list[str]:
    """The addresses of name servers that a build can ask: not those that listen on this machine's loopback."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        words = [line.split() for line in lines]
        found = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
        usable = [server for server in found if _is_reachable(server)]
        if usable:
            return usable
    return []


def remove() -> None:
    """Take away rules and interfaces; builds that run lose their network."""
    for table, chain, rule in _hooks(_subnet()):
        _run(["iptables", "-w", "-t", table, "-D", chain, *rule], check=False)
    for chain in (_IN, _OUT):
        for verb in ("-F", "-X"):
            _run(["iptables", "-w", "-t", "mangle", verb, chain], check=False)
    for chain in ("INPUT", "FORWARD"):
        _run(["ip6tables", "-w", "-t", "mangle", "-D", chain, "-i", f"{_PREFIX}+", "-j", "DROP"], check=False)
    for slot in range(_SLOTS):
        if Path(f"/sys/class/net/{_PREFIX}{slot}").exists():
            _run(["ip", "link", "delete", f"{_PREFIX}{slot}"], check=False)


@contextmanager
def _slot() -> Iterator[int]:
    for slot in range(_SLOTS):
        with (_RUN / f"{_PREFIX}{slot}.lock").open("w", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield slot
            return
    raise TransientError(detail=f"{_SLOTS} builds have a network already")


def _firewall(network: ipaddress.IPv4Network) -> None:
    servers = [server for server in name_servers() if _is_local(server)]
    rules = ["*mangle", f":{_IN} - [0:0]", f":{_OUT} - [0:0]"]
    for server in servers:
        rules += [f"-A {_IN} -d {server} -p {kind} --dport 53 -j RETURN" for kind in ("udp", "tcp")]
    rules += [f"-A {_IN} -j DROP", f"-A {_OUT} -d {_LINK_LOCAL} -j DROP", f"-A {_OUT} -d {network} -j DROP"]
    rules += [f"-A {_OUT} -o {device} -j RETURN" for device in _uplinks()]
    rules += [f"-A {_OUT} -j DROP", "COMMIT", ""]
    with (_RUN / "network.lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        # Both chains are replaced at once; there is no moment without rules.
        _run(["iptables-restore", "-w", "--noflush"], text="\n".join(rules))
        for table, chain, rule in _hooks(network):
            _ensure("iptables", table, chain, rule)
        if Path("/proc/net/if_inet6").exists():
            for chain in ("INPUT", "FORWARD"):
                _ensure("ip6tables", "mangle", chain, ["-i", f"{_PREFIX}+", "-j", "DROP"])


def _refused() -> list[str]:
    """Where no packet of a build arrives, as far as its own routes can say so."""
    uplinks = _uplinks()
    places = {str(_subnet()), _LINK_LOCAL}
    for route in _routes():
        own = route.get("type") == "local"
        inward = route.get("dev") not in uplinks and not str(route.get("dev", "")).startswith(_PREFIX)
        if own or inward:
            places.add(route["dst"])
    # Its loopback is its own; of a name server one port is open.
    open_to_it = {"default", *name_servers()}
    return sorted(place for place in places - open_to_it if not place.startswith("127."))


def _hooks(network: ipaddress.IPv4Network) -> list[tuple[str, str, list[str]]]:
    near = f"{_PREFIX}+"
    answers = ["-o", near, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"]
    return [
        ("mangle", "INPUT", ["-i", near, "-j", _IN]),
        ("mangle", "FORWARD", ["-i", near, "-j", _OUT]),
        ("mangle", "FORWARD", ["-o", near, "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"]),
        ("nat", "POSTROUTING", ["-s", str(network), "!", "-d", str(network), "-j", "MASQUERADE"]),
        # Where Docker is installed, FORWARD drops what nobody asked for.
        ("filter", "FORWARD", ["-i", near, "-j", "ACCEPT"]),
        ("filter", "FORWARD", answers),
    ]


def _ensure(tool: str, table: str, chain: str, rule: list[str]) -> None:
    if _run([tool, "-w", "-t", table, "-C", chain, *rule], check=False) != 0:
        _run([tool, "-w", "-t", table, "-I", chain, *rule])


def _subnet() -> ipaddress.IPv4Network:
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in _routes()
        if route["dst"] != "default" and not str(route.get("dev", "")).startswith(_PREFIX)
    ]
    for candidate in map(ipaddress.IPv4Network, _CANDIDATES):
        if not any(isinstance(other, ipaddress.IPv4Network) and candidate.overlaps(other) for other in taken):
            return candidate
    raise ConfigError(detail=f"all of {', '.join(_CANDIDATES)} are in use on this machine")


def _routes() -> list[dict[str, str]]:
    """All of this machine's, those to itself among them (of the type ``local``)."""
    routes: list[dict[str, str]] = json.loads(_output(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    return routes


def _uplinks() -> list[str]:
    routes = json.loads(_output(["ip", "-j", "-4", "route", "show", "default"]) or "[]")
    return sorted({route["dev"] for route in routes if "dev" in route})


def _is_reachable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback  # noqa: PLR2004  # IPv4: builds have no other


def _is_local(server: str) -> bool:
    addresses = json.loads(_output(["ip", "-j", "-4", "address"]) or "[]")
    return server in {info.get("local") for link in addresses for info in link.get("addr_info", ())}


def _batch(prefix: list[str], lines: list[str]) -> None:
    _run([*prefix, "ip", "-batch", "-"], text="\n".join(lines) + "\n")


def _run(command: list[str], *, text: str | None = None, check: bool = True) -> int:
    result = _call(command, text)
    if check and unless_killed(command[0], result.returncode) != 0:
        raise ConfigError(detail=f"{' '.join(command)}: {result.stderr.strip()}")
    return result.returncode


def _output(command: list[str]) -> str:
    return _call(command, None).stdout


def _call(command: list[str], text: str | None) -> subprocess.CompletedProcess[str]:
    # They live in sbin, which is not on everybody's PATH.
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError as error:
        raise ConfigError(detail=f"{command[0]} is not installed") from error
