"""Users' names and passwords for registries, from the file that the setting ``registry_auth_file`` names.

Source: containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path

from workflows.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user's name and password for a registry."""

    user: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The header ``Authorization`` of basic authentication."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


def credentials(file: Path | None, name: str) -> Credentials | None:
    """What an auth file holds for an image's name: the longest path that fits wins, the host fits all.

    Args:
        file: A containers-auth.json; None: there are none.
        name: Without its tag.

    Raises:
        ConfigError: The file cannot be read as one.
    """
    if file is None:
        return None
    try:
        auths = json.loads(file.read_text(encoding="utf-8")).get("auths", {})
        parts = name.split("/")
        keys = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
        encoded = next((auths[key]["auth"] for key in keys if auths.get(key, {}).get("auth")), None)
        if encoded is None:
            return None
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except OSError as error:
        raise ConfigError(detail=f"auth file {file}: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError, KeyError, binascii.Error) as error:
        # Not the error's own words: they may hold what the file holds.
        raise ConfigError(detail=f"auth file {file} is no containers-auth.json") from error
    return Credentials(user=user, password=password)
