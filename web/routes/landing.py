"""Where in the server a visitor lands: BinderHub's rules for ``urlpath``, ``labpath`` and ``filepath``.

Source: ../shared/reference/binderhub.md 1.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_ENCODE_URI = ";,/?:@&=+$-_.!~*'()#"
"""What JavaScript's encodeURI leaves as it is, besides letters and digits."""

_URL_SAFE = _ENCODE_URI + "%[]"
"""What may stand in an address: a ``urlpath`` comes encoded already."""


def landing_path(query: Mapping[str, str]) -> str:
    """The path below the server's own address that a launch link asks for, encoded; empty for the server itself.

    ``labpath`` wins over ``filepath`` wins over ``urlpath``. It never leads out of the server: the token goes along.
    """
    if labpath := query.get("labpath", ""):
        path = "doc/tree/" + quote(labpath.rstrip("/"), safe=_ENCODE_URI)
    elif filepath := query.get("filepath", ""):
        path = "tree/" + quote(filepath.rstrip("/"), safe=_ENCODE_URI)
    else:
        path = quote(query.get("urlpath", ""), safe=_URL_SAFE)
    return _inside(path)


def server_url(url: str, path: str, token: str) -> str:
    """The address that opens a visitor's server.

    Args:
        url: The server's own, with a slash at the end.
        path: What `landing_path` said.
        token: Opens it.
    """
    parts = urlsplit(url + path)
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("token", token)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _inside(path: str) -> str:
    """`path` without what a browser would climb up by; joined to the server's address it stays below it."""
    path, mark, rest = re.fullmatch(r"([^?#]*)([?#]?)(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = [part for part in path.lstrip("/").split("/") if unquote(part) not in {".", ".."}]
    return "/".join(parts) + mark + rest
