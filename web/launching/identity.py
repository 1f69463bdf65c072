"""Names and tokens of visitors, derived from a nonce: nobody has to remember them.

Source: ../shared/reference/binderhub.md 5.2 (names), RFC 2104 (HMAC).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import string
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from workflows.errors import ConfigError

_KEY_BYTES = 32
_TOKEN_BYTES = 16
"""128 bits, 22 characters: as long as BinderHub's."""

_ALPHABET = string.ascii_lowercase + string.digits
_SUFFIX_LENGTH = 8
_READABLE_LENGTH = 32
_HALF_LENGTH = 15


class Identity:
    """Whom a nonce stands for.

    Args:
        key_file: Holds the farm's key; made where it is missing. Every process of the farm must have the same.
    """

    def __init__(self, key_file: Path) -> None:
        self._key = _key(key_file)

    def token(self, nonce: str) -> str:
        """The token that opens this visitor's server, whichever attempt it was."""
        return base64.urlsafe_b64encode(self._derive(f"token\n{nonce}")[:_TOKEN_BYTES]).decode().rstrip("=")

    def user_name(self, repo_url: str, nonce: str, attempt: int) -> str:
        """The user of one attempt: readable as BinderHub's names are, another for each attempt, at most 40 long."""
        path = urlsplit(repo_url).path.strip("/").lower().removesuffix(".git")
        readable = re.sub(r"[^a-z0-9]+", "-", path).strip("-") or "repository"
        if len(readable) > _READABLE_LENGTH:
            readable = f"{readable[:_HALF_LENGTH]}-{readable[-_HALF_LENGTH:]}"
        number = int.from_bytes(self._derive(f"user\n{attempt}\n{nonce}"))
        suffix = ""
        for _ in range(_SUFFIX_LENGTH):
            number, digit = divmod(number, len(_ALPHABET))
            suffix += _ALPHABET[digit]
        return f"{readable}-{suffix}"

    def _derive(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), hashlib.sha256)


def _key(path: Path) -> bytes:
    """The key in `path`, which is made by whichever process comes first and never seen half written.

    Raises:
        ConfigError: It cannot be read or made, or is no key.
    """
    try:
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(detail=f"launch key {path}: {error}") from error
    if len(key) < _KEY_BYTES:
        raise ConfigError(detail=f"launch key {path} is shorter than {_KEY_BYTES} bytes")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp gives mode 0600 before anything is in it.
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".launch-key-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        # A link, unlike a rename, never replaces the key of a process that was faster.
        os.link(beside, path)
    except FileExistsError:
        return
    finally:
        Path(beside).unlink()
