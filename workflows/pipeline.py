"""The pipeline as data: both engines execute these steps, and hera renders them.

Source: ../shared/design.md, *The pipeline is data*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from workflows.errors import Reason, reason_of_exit

RUNNER = ("python", "-I", "-m", "workflows.run")
"""How a step is run, here and in a pod. ``-I``: nothing in the current folder can take a module's place."""


class Half(StrEnum):
    """The pipeline's two sides. Ours believes nothing that the strangers' side could have touched."""

    STRANGERS = "strangers"
    OURS = "ours"


class Entry(StrEnum):
    """Where a build begins: the entry points of the WorkflowTemplate."""

    BUILD = "build"  # what web submits: the commit is known
    FROM_SPEC = "from-spec"  # stands on its own: a provider and a spec, resolved first
    OURS = "ours"  # our half alone, for an image that only the registry holds


class Standing(StrEnum):
    """What `resolve` found out of an image."""

    KNOWN = "known"  # catalogue and registry agree: nothing is left to do
    HELD = "held"  # the registry alone has it: our half looks at it
    ABSENT = "absent"  # it is to be built


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """How a secret reaches a step: as a file, to which a setting points.

    Args:
        setting: Field name of `Settings`.
        file: The file's name in a pod, which is the key in the Secret.
        is_machines: Whether on one machine, where a setting names one file for all, that file serves this secret, too.
    """

    setting: str
    file: str
    is_machines: bool = True


SECRET_FILES: Mapping[str, SecretFile] = {
    "provider-token": SecretFile(setting="github_token_file", file="token"),
    # A token that asks for commits is not lent to what fetches them: it might read more than it should.
    "git-credentials": SecretFile(setting="github_token_file", file="token", is_machines=False),
    "registry-read": SecretFile(setting="registry_auth_file", file="auth.json"),
    "registry-write": SecretFile(setting="registry_auth_file", file="auth.json"),
    "staging-write": SecretFile(setting="registry_auth_file", file="auth.json"),
}
"""The secrets that a step may declare and that are files. What else one declares is an account's right in a cluster."""

SECRETS_FOLDER = "/run/secrets/argosy"
"""Where the files of secrets are in a pod, each in a folder called like the secret."""

SECRET_SETTINGS = frozenset({file.setting for file in SECRET_FILES.values()}) | {
    "hub_token_file",
    "ledger_url",
    "archive_url",
}
"""Settings (field names) that are, or lead to, a secret: a step is told of one only where it declares that secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of the pipeline.

    Args:
        name: What the step runner calls it.
        half: Which side it is on.
        parameters: Names from `BuildRequest.parameters`, handed over as ``--name=value``.
        needs: Steps that must have ended well before.
        outputs: Files that it leaves in ``<workspace>/outputs`` for the steps after it, in another pod. None of the
            strangers' half has any but `RESOLVE`, which runs no code of theirs.
        secrets: What is mounted into this step's container and no other's.
        limits: The settings (field names) that limit its time, beside the whole build's clock.
        gates: Whether the image may not be launched before this step has ended well.
    """

    name: str
    half: Half
    parameters: tuple[str, ...]
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    gates: bool = True

    @property
    def argv(self) -> tuple[str, ...]:
        """The command with a ``{parameter}`` wherever a value goes."""
        # One argument each: a value can never be read as an option of its own.
        return (*RUNNER, self.name, *(f"--{name}={{{name}}}" for name in self.parameters))

    def command(self, parameters: Mapping[str, str]) -> list[str]:
        """The arguments after ``python -I -m workflows.run``, with values."""
        return [self.name, *(f"--{name}={parameters[name]}" for name in self.parameters)]


_IDENTITY = ("build", "provider", "spec", "commit", "repo-url", "image")

RESOLVE = Step(
    name="resolve",
    half=Half.STRANGERS,
    parameters=("build", "provider", "spec"),
    outputs=("standing", "request", "spec", "ref", "commit", "repo-url", "clone-url", "image", "held"),
    secrets=("provider-token", "registry-read", "catalogue-read"),
)
FETCH = Step(
    name="fetch",
    half=Half.STRANGERS,
    parameters=("build", "clone-url", "commit", "ref"),
    secrets=("git-credentials", "registry-read"),
    limits=("fetch_timeout_seconds",),
)
BUILD = Step(
    name="build",
    half=Half.STRANGERS,
    parameters=("build", "repo-url", "commit", "image", "options"),
    needs=("fetch",),
)
STAGE = Step(
    name="stage",
    half=Half.STRANGERS,
    parameters=("build",),
    needs=("build",),
    secrets=("staging-write",),
)
PUSH = Step(
    name="push",
    half=Half.OURS,
    parameters=("build", "image", "held"),
    needs=("stage",),
    secrets=("registry-write",),
)
PUBLISH = Step(
    name="publish",
    half=Half.OURS,
    parameters=(*_IDENTITY, "held"),
    needs=("push",),
    secrets=("catalogue-write",),
)
SCAN = Step(
    name="scan",
    half=Half.OURS,
    parameters=("build", "image", "held"),
    needs=("stage",),
    secrets=("registry-read",),
    gates=False,
)
ATTACH = Step(
    name="attach",
    half=Half.OURS,
    parameters=("build", "image"),
    needs=("publish", "scan"),
    secrets=("registry-write",),
    gates=False,
)
WARM = Step(name="warm", half=Half.OURS, parameters=("build",), needs=("publish", "scan"), gates=False)

STEPS = (RESOLVE, FETCH, BUILD, STAGE, PUSH, PUBLISH, SCAN, ATTACH, WARM)
"""Every step there is: what the step runner may be asked for."""


def plan(*, policy: str, attach: bool = False, warm: bool = False, resolve: bool = False) -> tuple[Step, ...]:
    """The steps of one build, in pipeline order: an order in which they could run one by one.

    Args:
        policy: ``report``: push and publish first, then scan, so that no visitor waits for a scanner;
            ``enforce``: scan first, and nothing is pushed that it refuses; ``off``: no scan.
        attach: Whether the SBOM is attached to the image, which only a registry can hold.
        warm: Whether the wheels that the image's SBOM names are kept for the next build.
        resolve: Whether the commit is still unknown, as in a build that was not asked for by web.

    `ours_of` gives the steps of one whose image is there already.

    Raises:
        ValueError: There is no such policy.
    """
    ours: tuple[Step, ...]
    match policy:
        case "off":
            ours = (PUSH, PUBLISH)
        case "report":
            # Not beside them: Argo ends all containers of a pod as soon as one fails, and a scan that fails must not
            # keep an image from being published.
            ours = (PUSH, PUBLISH, replace(SCAN, needs=(PUBLISH.name,)))
        case "enforce":
            ours = (replace(SCAN, gates=True), replace(PUSH, needs=(SCAN.name,)), PUBLISH)
        case _:
            raise ValueError(f"no such policy: {policy!r}")
    if policy != "off":
        # Nobody waits for what needs the SBOM.
        ours += ((ATTACH,) if attach else ()) + ((WARM,) if warm else ())
    fetch = (RESOLVE, replace(FETCH, needs=(RESOLVE.name,))) if resolve else (FETCH,)
    return (*fetch, BUILD, STAGE, *ours)


def ours_of(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Our half of a plan alone, for an image that only the registry holds: it is scanned and published, not built."""
    ours = tuple(step for step in steps if step.half is Half.OURS)
    names = {step.name for step in ours}
    return tuple(replace(step, needs=tuple(need for need in step.needs if need in names)) for step in ours)


def withheld(step: Step) -> frozenset[str]:
    """The settings (field names) of which `step` is not told on one machine: what leads to a secret not its own."""
    files = [SECRET_FILES[name] for name in step.secrets if name in SECRET_FILES]
    return SECRET_SETTINGS - {file.setting for file in files if file.is_machines}


def reason_of(exit_codes: Mapping[str, int], steps: tuple[Step, ...]) -> Reason | None:
    """Why a build failed: the reason of the first step, in pipeline order, whose code is neither 0 nor 64.

    A step that does not gate (a scan under policy `report`) cannot fail a build: its image is launchable already.
    """
    codes = (exit_codes[step.name] for step in steps if step.gates and step.name in exit_codes)
    return next((reason for reason in map(reason_of_exit, codes) if reason), None)
