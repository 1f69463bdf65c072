"""Names: of images, as BinderHub makes them, and of builds, which are ours.

Source: ../shared/reference/binderhub.md 3.4 (images), ../shared/design.md *Names and identity* (builds).
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from dataclasses import dataclass
from typing import NewType

import escapism

CommitSHA = NewType("CommitSHA", str)
"""A commit, 40 hexadecimal digits; for a host without commits whatever names one state of the content."""

ImageName = NewType("ImageName", str)
"""Name and tag, as ``registry/project/slug:commit``."""

ImageDigest = NewType("ImageDigest", str)
"""``sha256:`` and 64 hexadecimal digits."""

BuildName = NewType("BuildName", str)
"""Name of one attempt of one build, a DNS label of at most 63 characters."""

_MAX_IMAGE_NAME = 255
_MAX_DNS_LABEL = 63
_BUILD_NAME = re.compile(r"build-[a-z0-9-]{1,40}-[0-9a-z]{1,7}-[0-9a-f]{8}(-[2-9]|-[1-9][0-9]{1,5})?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def safe_slug(slug: str, *, limit: int, hash_length: int = 6) -> str:
    """BinderHub's slug: readable, unambiguous, and no longer than `limit`.

    Args:
        slug: Any text.
        limit: Greatest length of the result, in characters.
        hash_length: Digits of the text's own digest at the end.
    """
    digest = hashlib.sha256(slug.encode()).hexdigest()[:hash_length]
    safe = frozenset(string.ascii_letters + string.digits)
    escaped = str(escapism.escape(slug, safe=safe, escape_char="-"))
    return f"{escaped[: limit - hash_length - 1]}-{digest}".lower()


def image_name(prefix: str, slug: str, ref: str) -> ImageName:
    """The image's name and tag, letter by letter as BinderHub names it, so that a registry keeps its worth."""
    safe = safe_slug(slug, limit=_MAX_IMAGE_NAME - len(prefix))
    return ImageName(f"{prefix}{safe}:{ref}".replace("_", "-").lower())


def split_tag(image: str) -> tuple[str, str]:
    """Name and tag of an image; the tag is ``latest`` where none is said and a port is never taken for one."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def pinned(image: ImageName, digest: ImageDigest) -> str:
    """``name:tag@digest``: what a launch asks the Hub for. Tag and digest together find the catalogue's entry."""
    return f"{image}@{digest}"


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 digest as OCI writes it."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildIdentity:
    """What makes two wishes the same build: image, commit and options.

    Args:
        image: Name and tag.
        commit: The resolved ref.
        options: The build's options in canonical form, empty for the farm's defaults.
        environment: A place kept for a digest of the environment files alone; empty today.
    """

    image: ImageName
    commit: CommitSHA
    options: str = ""
    environment: str = ""

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for this identity in the build's name."""
        fields = [self.image, self.commit, self.options, self.environment]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]


def build_name(slug: str, identity: BuildIdentity, attempt: int = 1) -> BuildName:
    """``build-<slug>-<commit, 7>-<identity, 8>``, from the second attempt on with ``-<attempt>``."""
    readable = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[-32:].strip("-") or "repository"
    commit = re.sub(r"[^a-z0-9]", "", identity.commit.lower())[:7] or "0"
    suffix = f"-{attempt}" if attempt > 1 else ""
    return BuildName(f"build-{readable}-{commit}-{identity.digest()}{suffix}")


def attempt_of(name: BuildName) -> int:
    """Which attempt a build's name stands for, from 1."""
    match = _BUILD_NAME.fullmatch(name)
    return int(match.group(1)[1:]) if match and match.group(1) else 1


def with_attempt(name: BuildName, attempt: int) -> BuildName:
    """The name of another attempt of the same build."""
    first = name.removesuffix(f"-{attempt_of(name)}") if attempt_of(name) > 1 else name
    return BuildName(f"{first}-{attempt}" if attempt > 1 else first)


def is_build_name(text: str) -> bool:
    """Whether `text` can be a build's name; asked before it reaches a path.

    Every DNS label can: a Workflow that somebody submitted by hand has the name that they, or Argo, gave it.
    """
    return len(text) <= _MAX_DNS_LABEL and _DNS_LABEL.fullmatch(text) is not None
