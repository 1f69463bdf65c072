"""The seam: what every kind of host must be able to say about a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from workflows.errors import NotFoundError
from workflows.git import Credentials
from workflows.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecParts:
    """A spec that can be read; nothing is known yet of whether it exists.

    Args:
        spec: As it stood in the URL, percent-encoded, without a slash at its end.
        repo: What names the repository at its host, decoded: ``owner/name``, an address, a DOI.
        ref: What is to be resolved, decoded; empty for a host without refs.
        repo_url: Canonical address for people. Bans, quotas and the allow-list look at it before anybody is asked.
        owner: Whose it is, the same for one host whatever the provider: ``github.com/somebody``.
    """

    spec: str
    repo: str
    ref: str
    repo_url: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What to try instead of a spec that did not resolve.

    Args:
        spec: The spec to resolve instead.
        message: What the visitor reads meanwhile, in a ``waiting`` event.
    """

    spec: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How a form asks for a repository; BinderHub's ``display_config``.

    Args:
        name: For people.
        spec_pattern: Regular expression of whole specs.
        repo_label: What the field asks for.
        repo_placeholder: An example in the empty field.
        detect_pattern: Regular expression that finds the repository in a pasted address, in a group ``repo``;
            JavaScript's syntax.
        encodes_repo: Whether the repository is percent-encoded as one part of the spec.
        default_ref: The ref where none is said; empty for hosts without refs.
    """

    name: str
    spec_pattern: str
    repo_label: str
    repo_placeholder: str
    detect_pattern: str = ""
    encodes_repo: bool = False
    default_ref: str = "HEAD"

    def to_json(self, provider: str) -> dict[str, Any]:
        """The entry of ``/api/repoproviders``, key by key as BinderHub's."""
        # Source: ../shared/reference/binderhub.md 3.2, last line
        detect = {"detect": {"regex": self.detect_pattern}} if self.detect_pattern else {}
        encode = {"urlEncode": True} if self.encodes_repo else {}
        default = {"default": self.default_ref} if self.default_ref else {}
        return {
            "displayName": self.name,
            "id": provider,
            "spec": {"validateRegex": self.spec_pattern},
            **detect,
            "repo": {"label": self.repo_label, "placeholder": self.repo_placeholder, **encode},
            "ref": {"enabled": bool(self.default_ref), **default},
        }


class Provider(Protocol):
    """One kind of host. Every method but `resolve` answers at once, from its arguments and settings alone."""

    @property
    def name(self) -> str:
        """The prefix in URLs, as ``gh``."""
        ...

    @property
    def display(self) -> Display:
        """How a form asks for a repository of this kind."""
        ...

    def parse(self, spec: str) -> SpecParts:
        """The parts of a spec.

        Raises:
            SpecError: It cannot be read; the message says what is wrong, as BinderHub's does.
        """
        ...

    def resolve(self, spec: str) -> Repository:
        """The repository at the commit that the spec's ref stands for at this moment. Asks the host.

        Calls for the same spec at the same time are asked once.

        Raises:
            SpecError: The spec cannot be read.
            NotFoundError: The repository or the ref does not exist, or is private; BinderHub's sentence.
            RateLimitError: The host wants us to wait; the message says how long.
            TransientError: The host does not answer, or has a fault.
        """
        ...

    def fallback(self, spec: str) -> Fallback | None:
        """What to try after `resolve` found nothing; None where there is nothing to try."""
        ...

    def credentials(self) -> Credentials | None:
        """What fetching from this kind of host takes; None: nothing.

        Raises:
            ConfigError: The file that a setting names cannot be read.
        """
        ...


def unresolved(provider: str, spec: str) -> NotFoundError:
    """The error of a ref that does not resolve, in BinderHub's words."""
    return NotFoundError(
        f"Could not resolve ref for {provider}:{spec}. Double check your URL and that your repo is public."
    )


def failing(provider: str, spec: str, sentence: str) -> str:
    """The message of a host that could not be asked, begun in BinderHub's words."""
    return f"Error resolving ref for {provider}:{spec}: {sentence}"
