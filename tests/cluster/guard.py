"""A registry that lets each of a farm's accounts do what it is for, and nobody anything else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.message import Message

from tests.cluster.hub import NODE
from tests.registries import Fault, Faulty

_READING = frozenset({"GET", "HEAD"})
_REFUSED = Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="guarded"'})


class Guard(Faulty):
    """Stands before a registry, on an address that pods reach.

    Args:
        registry: Host and port of the real one, which lets everybody do everything.
        passwords: Of the accounts ``read``, ``write`` and ``staging``, whose user names these are.
    """

    def __init__(self, registry: str, passwords: Mapping[str, str]) -> None:
        super().__init__(registry, address=NODE)
        pairs = {name: f"{name}:{password}".encode() for name, password in passwords.items()}
        self._accounts = {f"Basic {base64.b64encode(pair).decode()}": name for name, pair in pairs.items()}

    def fault(self, method: str, path: str, headers: Message) -> Fault | None:
        """Refusal, unless it is the account's to do."""
        # The real one never hears of it.
        account = self._accounts.get(str(headers["Authorization"] or ""), "")
        del headers["Authorization"]
        if account and _may(account, method, path):
            return self.rule(method, path)
        return _REFUSED


def _may(account: str, method: str, path: str) -> bool:
    if account == "write" or method in _READING:
        return True
    # /v2/<namespace>/staging/<build>/...
    return account == "staging" and path.split("/")[3:4] == ["staging"]
