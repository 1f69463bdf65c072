"""git, against hosts and repositories of strangers: the one room that runs it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What git sends along to one host.

    Args:
        url: Every address that begins with it gets the header, no other does; ends in a slash.
        header: A whole HTTP header.
    """

    url: str
    header: SecretStr
