"""What a spec turns into, a repository at one commit; and what may stand in specs, refs and addresses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from workflows.errors import SpecError
from workflows.image import CommitSHA

MAX_SPEC_LENGTH = 2048
"""Characters of a spec: longer than every real URL, far below what a header, a label or a log line may hold."""

_SHOWN = 200
"""Characters of a refused address that a message repeats."""

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_REF_SIGNS = frozenset("!#$%&'()+,-./;=@_")
_NO_REF = re.compile(r"^[-/]|[/.]$|//|\.\.|@\{|^@$|(^|/)\.|\.lock($|/)")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PATH = r"[A-Za-z0-9!$%&'()*+,./:;=@_~-]+"
_URL = re.compile(rf"[a-z][a-z0-9+.-]*://(?:(?P<user>[^/@]*)@)?{_HOST}(?::[0-9]{{1,5}})?/(?P<path>{_PATH})")
_SCP = re.compile(rf"(?P<user>{_USER})@(?P<host>{_HOST}):(?P<path>(?!//){_PATH})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository at one commit.

    Args:
        provider: The provider's prefix, as ``gh``.
        spec: What the visitor asked for, as it stood in the URL.
        ref: The part of the spec that was resolved, as ``main``.
        commit: The resolved ref.
        repo_url: Canonical address for people, as BinderHub gives it in ``repo_url``.
        clone_url: What `fetch` fetches from; holds no credentials.
        ref_url: Address of the repository at this commit, ``binder_ref_url``.
        resolved_spec: The spec with the commit in the ref's place.
        slug: What the image is named after (BinderHub's build slug).
        owner: Whose repository it is, for the queue: builds of one owner take turns with other owners'.
    """

    provider: str
    spec: str
    ref: str
    commit: CommitSHA
    repo_url: str
    clone_url: str
    ref_url: str
    resolved_spec: str
    slug: str
    owner: str

    @property
    def title(self) -> str:
        """``owner/repo @ 1a2b3c4``, for people."""
        path = urlsplit(self.repo_url).path.strip("/").removesuffix(".git")
        return f"{path or self.repo_url} @ {self.commit[:7]}"


def check_spec(spec: str) -> str:
    """`spec` itself, once nothing in it can hurt a log, a header, a path or a command line.

    Raises:
        SpecError: It is empty, too long, or holds characters that no repository's address needs, written out or
            percent-encoded.
    """
    if not spec.strip("/"):
        raise SpecError("The link names no repository. Check the link.")
    if len(spec) > MAX_SPEC_LENGTH:
        raise SpecError(f"The link's repository is longer than {MAX_SPEC_LENGTH} characters. Check the link.")
    if not spec.isascii():
        # Look-alikes of other scripts; a real address writes them percent-encoded or in punycode.
        raise SpecError("The link holds letters outside ASCII. Write them percent-encoded, or check the link.")
    if any(character <= " " or character in '\x7f"<>\\^`{|}' for character in spec):
        raise SpecError("The link holds a space or a character that no repository's address needs. Check the link.")
    if _BROKEN_ESCAPE.search(spec):
        raise SpecError("The link holds a % that stands for no character. Check the link.")
    return spec


def decode(text: str) -> str:
    """A part of a checked spec without its percent-encoding.

    Decoded once and never again: what is still encoded then is meant as it stands.

    Raises:
        SpecError: It decodes to something that is not text, or to control characters, even when decoded again and
            again: some program further on might do that.
    """
    try:
        decoded = deeper = unquote(text, errors="strict")
        while not _CONTROLS.search(deeper) and (again := unquote(deeper, errors="strict")) != deeper:
            deeper = again
    except UnicodeDecodeError as error:
        raise SpecError("The link holds characters that are not UTF-8. Check the link.") from error
    if _CONTROLS.search(deeper):
        raise SpecError("The link holds control characters. Check the link.")
    return decoded


def check_ref(ref: str) -> str:
    """`ref` itself, once it can be the name of a branch, a tag or a commit.

    Letters and digits of every script are fine, in their plain form; look-alikes of ASCII's signs are not.

    Raises:
        SpecError: It cannot.

    Source: https://git-scm.com/docs/git-check-ref-format
    """
    plain = all(character.isalnum() or character in _REF_SIGNS for character in ref)
    if not ref or not plain or unicodedata.normalize("NFKC", ref) != ref or _NO_REF.search(ref):
        raise SpecError("The link's last part can be no branch, tag or commit. Check the link.")
    return ref


def check_url(url: str, protocols: Collection[str]) -> str:
    """The address of a git repository, as ``protocol://…``; ``user@host:path`` becomes ``ssh://user@host/path``.

    Args:
        url: The address, decoded.
        protocols: Those that are allowed.

    Raises:
        SpecError: It is none, uses another protocol, holds a password, or could be read as anything but an address.
    """
    if short := _SCP.fullmatch(url):
        url = f"ssh://{short['user']}@{short['host']}/{short['path'].lstrip('/')}"
    protocol, separator, _ = url.partition("://")
    if separator and _PROTOCOL.fullmatch(protocol) and protocol not in protocols:
        # What may hold a password is not repeated.
        shown = "" if "@" in url else f" {url[:_SHOWN]}"
        allowed = ", ".join(protocols)
        raise SpecError(f"Unsupported git url{shown}, protocol {protocol[:_SHOWN]} not in {allowed}")
    match = _URL.fullmatch(url)
    if match and match["user"] is not None and not (protocol == "ssh" and re.fullmatch(_USER, match["user"])):
        raise SpecError("The repository's address holds a name or a password. Leave it out: links are public.")
    if not match or _BROKEN_ESCAPE.search(url) or ".." in unquote(match["path"]).split("/"):
        raise SpecError("The link holds no address of a git repository. Check the link.")
    return url


def host_of(url: str) -> str:
    """The host of a checked address, with its port if it has one, in lower case."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def owner_of(url: str) -> str:
    """Whose repository a checked address names: its host and the first part of its path."""
    return f"{host_of(url)}/{urlsplit(url).path.strip('/').partition('/')[0].lower()}"
