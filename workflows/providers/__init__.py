"""Providers: one module for each kind of host, from spec to commit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from workflows.errors import SpecError
from workflows.git import Credentials
from workflows.git.spawn import Spawn, popen
from workflows.providers.git import GitProvider
from workflows.providers.github import GitHubProvider
from workflows.providers.provider import Display, Fallback, Provider, SpecParts
from workflows.settings import Settings

__all__ = ["Credentials", "Display", "Fallback", "Provider", "SpecParts", "create", "credentials", "find"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


def create(settings: Settings, spawn: Spawn = popen) -> Mapping[str, Provider]:
    """The farm's providers by their prefix, in the order in which a form offers them.

    Args:
        settings: The farm's.
        spawn: How one that asks by a program starts it.
    """
    providers: tuple[Provider, ...] = (GitHubProvider(settings), GitProvider(settings, spawn))
    return {provider.name: provider for provider in providers}


def find(providers: Mapping[str, Provider], name: str) -> Provider:
    """The provider of a prefix.

    Raises:
        SpecError: There is none; BinderHub's sentence.
    """
    if name in providers:
        return providers[name]
    # A message repeats nothing that could be more than a name.
    shown = name if _NAME.fullmatch(name) else "in this link"
    raise SpecError(f"No provider found for prefix {shown}")


def credentials(providers: Iterable[Provider]) -> tuple[Credentials, ...]:
    """What fetching may take, submodules included: git sends each to the addresses that begin with its own alone.

    Raises:
        ConfigError: A file that a setting names cannot be read.
    """
    return tuple(each for each in (provider.credentials() for provider in providers) if each)
