"""``git``: any git repository by its address, resolved by ``git ls-remote``."""

from __future__ import annotations

import re

from workflows.errors import NotFoundError, SpecError, TransientError
from workflows.git import Credentials
from workflows.git.command import Git
from workflows.git.spawn import Spawn, popen
from workflows.image import CommitSHA
from workflows.providers.flight import Flights
from workflows.providers.provider import Display, Fallback, SpecParts, failing, unresolved
from workflows.repo import Repository, check_ref, check_spec, check_url, decode, host_of, owner_of
from workflows.settings import MIB, Settings

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_ANSWER = re.compile(rb"([0-9a-f]{40})\t(\S+)")
_OUTPUT_BYTES = MIB
_MEMORY_BYTES = 1024 * MIB
"""A host may answer with refs without end; git keeps them in memory."""


class GitProvider:
    """Resolves specs of the form ``<address, percent-encoded>/<ref>``.

    Args:
        settings: The farm's.
        spawn: How git is started.
    """

    name = "git"
    display = Display(
        name="Git repository",
        spec_pattern=r"[^/]+/.+",
        repo_label="Arbitrary git repository URL (http://git.example.com/repo)",
        repo_placeholder="example: http://git.example.com/repo",
        encodes_repo=True,
    )

    def __init__(self, settings: Settings, spawn: Spawn = popen) -> None:
        self._settings = settings
        self._git = Git(settings, spawn=spawn)
        self._flights: Flights[CommitSHA] = Flights()

    def parse(self, spec: str) -> SpecParts:
        """The parts of a spec.

        Raises:
            SpecError: It cannot be read.
        """
        checked = check_spec(spec).rstrip("/")
        encoded, _, ref = checked.partition("/")
        if not ref or encoded.endswith(":"):
            raise _misshapen(checked, encoded)
        url = check_url(decode(encoded), self._settings.git_protocols)
        return SpecParts(spec=checked, repo=url, ref=check_ref(decode(ref)), repo_url=url, owner=owner_of(url))

    def resolve(self, spec: str) -> Repository:
        """The repository at its commit.

        Raises:
            SpecError: The spec cannot be read.
            NotFoundError: The repository or the ref does not exist, or is private.
            TransientError: The host does not answer, or has a fault.
        """
        parts = self.parse(spec)
        if _COMMIT.fullmatch(parts.ref):
            # Used as it is: whether it exists, `fetch` finds out.
            commit = CommitSHA(parts.ref.lower())
        else:
            commit = self._flights.run((parts.repo, parts.ref), lambda: self._ask(parts))
        return Repository(
            provider=self.name,
            spec=parts.spec,
            ref=parts.ref,
            commit=commit,
            repo_url=parts.repo_url,
            clone_url=parts.repo,
            ref_url=parts.repo_url,
            resolved_spec=f"{parts.spec.partition('/')[0]}/{commit}",
            slug=parts.repo_url,
            owner=parts.owner,
        )

    def fallback(self, spec: str) -> Fallback | None:  # noqa: ARG002  # the Protocol's form
        """Nothing: the default branch is asked for by ``HEAD``."""
        return None

    def credentials(self) -> Credentials | None:
        """Nothing: addresses of every host are served alike, without a name."""
        return None

    def _ask(self, parts: SpecParts) -> CommitSHA:
        seconds = self._settings.resolve_timeout_seconds
        host = host_of(parts.repo)
        try:
            # `ref^{}` is the commit that an annotated tag stands for.
            ended = self._git.run(
                "ls-remote",
                "--",
                parts.repo,
                parts.ref,
                f"{parts.ref}^{{}}",
                seconds=seconds,
                output_bytes=_OUTPUT_BYTES,
                memory_bytes=_MEMORY_BYTES,
            )
        except TimeoutError as error:
            sentence = f"{host} did not answer within {seconds:g} seconds. Try again later."
            raise TransientError(failing(self.name, parts.spec, sentence)) from error
        if ended.code and not ended.missing:
            sentence = f"{host} cannot be reached, or has a fault. Check the link, or try again later."
            raise TransientError(failing(self.name, parts.spec, sentence), detail=f"ls-remote: {ended.complaint}")
        commit = pick(ended.output, parts.ref) if ended.code == 0 else None
        if commit is None:
            raise NotFoundError(str(unresolved(self.name, parts.spec)), detail=f"ls-remote: {ended.complaint}")
        return commit


def _misshapen(spec: str, encoded: str) -> SpecError:
    # What may hold a password is not repeated.
    provided = "" if "@" in decode(spec) else f', provided: "{spec}"'
    if encoded.endswith(":"):
        return SpecError(f'Spec is not of the form "url/ref"{provided}. Percent-encode the url, with every / in it.')
    return SpecError(
        f'Spec is not of the form "url/ref"{provided}. The url is percent-encoded as one part, the ref is a branch, '
        "a tag, a commit, or HEAD."
    )


def pick(answer: bytes, ref: str) -> CommitSHA | None:
    """The commit that `ref` names in the lines of ``git ls-remote``; None where it names none.

    git answers with every ref that *ends* in ``/ref``: ``main`` finds ``refs/heads/old/main`` too.
    """
    known = {name.decode(errors="replace"): sha.decode() for sha, name in _ANSWER.findall(answer)}
    exact = [f"{ref}^{{}}", ref]
    branches_and_tags = [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"]
    others = [f"refs/{ref}^{{}}", f"refs/{ref}"]  # pull/12/head, tags/v1
    candidates = [*exact, *branches_and_tags] if ref == "HEAD" else [*branches_and_tags, *exact, *others]
    return next((CommitSHA(known[name]) for name in candidates if name in known), None)
