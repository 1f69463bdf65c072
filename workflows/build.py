"""What an engine is asked for, and what it says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlsplit

from workflows.errors import Reason
from workflows.image import BuildIdentity, BuildName, CommitSHA, ImageDigest, ImageName, build_name, image_name
from workflows.repo import Repository


class Lane(StrEnum):
    """Who waits for whom, first to last."""

    LAUNCH = "launch"
    API = "api"
    PREBUILD = "prebuild"


class State(StrEnum):
    """Where an attempt stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in {State.SUCCEEDED, State.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What may differ from the farm's defaults; each difference suffixes the image's tag.

    Args:
        base_image: Image to build on.
        appendix: Dockerfile lines after everything else.
        build_args: Build arguments, name and value.
        repo2docker_args: Further arguments of repo2docker.
    """

    base_image: str = ""
    appendix: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    repo2docker_args: tuple[str, ...] = ()

    def canonical(self) -> str:
        """JSON with sorted keys, without what is at its default: empty for the farm's defaults."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value}
        return json.dumps(given, sort_keys=True) if given else ""

    @classmethod
    def parse(cls, text: str) -> BuildOptions:
        """The options that `canonical` wrote."""
        given: dict[str, Any] = json.loads(text) if text else {}
        return cls(
            base_image=given.get("base_image", ""),
            appendix=given.get("appendix", ""),
            build_args=tuple((name, value) for name, value in given.get("build_args", ())),
            repo2docker_args=tuple(given.get("repo2docker_args", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One wish for one image.

    Args:
        image: Name and tag.
        provider: The provider's prefix.
        spec: What was asked for.
        ref: The ref that was resolved.
        commit: The resolved ref.
        repo_url: Canonical address, for people.
        clone_url: What `fetch` fetches from.
        slug: What the image is named after.
        owner: Whose repository it is.
        options: What differs from the farm's defaults.
        lane: Who waits for whom.
        network: Client network of the first requester, as ``192.0.2.0/24``; empty where there is none.
        attempt: From 1.
        again: Whether it tries again what was lost, by nobody's wish. Such an attempt is not tried again in its turn.
        held: Digest of the image that name and tag stand for already, without being in the catalogue: it is scanned and
            published, not built. Empty: it is built.
        named: The attempt's name where somebody else gave it, as that of a Workflow submitted by hand; empty: it
            follows from image, commit and options.
    """

    image: ImageName
    provider: str
    spec: str
    ref: str
    commit: CommitSHA
    repo_url: str
    clone_url: str
    slug: str
    owner: str
    options: BuildOptions = field(default_factory=BuildOptions)
    lane: Lane = Lane.LAUNCH
    network: str = ""
    attempt: int = 1
    again: bool = False
    held: ImageDigest | Literal[""] = ""
    named: str = ""

    @classmethod
    def of(cls, repository: Repository, image_prefix: str, **more: Any) -> BuildRequest:
        """The wish for a repository's image under the farm's defaults.

        Args:
            repository: What is built.
            image_prefix: The setting of that name.
            **more: Further fields.
        """
        return cls(
            image=image_name(image_prefix, repository.slug, repository.commit),
            provider=repository.provider,
            spec=repository.spec,
            ref=repository.ref,
            commit=repository.commit,
            repo_url=repository.repo_url,
            clone_url=repository.clone_url,
            slug=repository.slug,
            owner=repository.owner,
            **more,
        )

    @property
    def name(self) -> BuildName:
        """The attempt's name."""
        if self.named:
            return BuildName(self.named)
        identity = BuildIdentity(image=self.image, commit=self.commit, options=self.options.canonical())
        return build_name(self.slug, identity, self.attempt)

    @property
    def title(self) -> str:
        """``owner/repo @ 1a2b3c4 (launch)``, for people."""
        path = urlsplit(self.repo_url).path.strip("/").removesuffix(".git")
        return f"{path or self.repo_url or self.spec} @ {self.commit[:7]} ({self.lane.value})"

    def parameters(self) -> dict[str, str]:
        """What the pipeline's command lines are filled with: subprocess arguments here, parameters on Argo."""
        return {
            "build": self.name,
            "provider": self.provider,
            "spec": self.spec,
            "ref": self.ref,
            "commit": self.commit,
            "repo-url": self.repo_url,
            "clone-url": self.clone_url,
            "image": self.image,
            # Argo would take a double brace for a place to fill in. Braces are doubled inside JSON's strings alone.
            "options": self.options.canonical().replace("{{", r"\u007b\u007b"),
            "held": self.held,
        }

    def to_json(self) -> str:
        """This request as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self) | {"options": self.options.canonical()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        """The request that `to_json` wrote."""
        given: dict[str, Any] = json.loads(text)
        given["options"] = BuildOptions.parse(given["options"])
        given["lane"] = Lane(given["lane"])
        return cls(**_known(cls, given))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One step of an attempt.

    Args:
        name: The step.
        started: Seconds since the epoch; 0 before it started.
        ended: Seconds since the epoch; 0 while it runs.
        exit_code: None while it runs; 64 where an earlier failure left it out.
    """

    name: str
    started: float = 0
    ended: float = 0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStatus:
    """What an engine knows of one attempt, at one moment.

    Args:
        request: What was asked for.
        state: Where it stands.
        reason: Why it failed; None unless it did.
        message: One sentence for the visitor; empty while nothing is to be said.
        queue_position: From 1 while queued; 0 otherwise.
        created: Seconds since the epoch.
        started: Seconds since the epoch; 0 before it left the queue.
        ended: Seconds since the epoch; 0 before it ended.
        published: Seconds since the epoch at which the image became launchable, which under policy `report` is before
            the end; 0 before that.
        steps: In pipeline order.
        lost: Whether it ended because what ran it was killed, with reason `transient`: by nobody's fault and with
            nothing said, so that another attempt may well go through.
    """

    request: BuildRequest
    state: State
    reason: Reason | None = None
    message: str = ""
    queue_position: int = 0
    created: float = 0
    started: float = 0
    ended: float = 0
    published: float = 0
    steps: tuple[StepStatus, ...] = ()
    lost: bool = False

    @property
    def name(self) -> BuildName:
        """The attempt's name."""
        return self.request.name

    def to_json(self) -> str:
        """This status as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self) | {"request": self.request.to_json()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> BuildStatus:
        """The status that `to_json` wrote."""
        given: dict[str, Any] = json.loads(text)
        given["request"] = BuildRequest.from_json(given["request"])
        given["state"] = State(given["state"])
        given["reason"] = Reason(given["reason"]) if given["reason"] else None
        given["steps"] = tuple(StepStatus(**_known(StepStatus, step)) for step in given["steps"])
        return cls(**_known(cls, given))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a build's log.

    Args:
        step: The step that printed it.
        number: From 1 in its step, without gaps.
        text: Without its newline.
    """

    step: str
    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """Where a step's lines end: it has printed its last one, or it was left out.

    Args:
        step: The step.
    """

    step: str


def only_lines(log: Iterable[LogLine | LogEnd]) -> Iterator[LogLine]:
    """A log without the ends of its steps."""
    return (each for each in log if isinstance(each, LogLine))


def _known(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """What `kind` has fields for: during an upgrade, an older process reads what a newer one wrote."""
    return {key: value for key, value in given.items() if key in kind.__dataclass_fields__}  # type: ignore[attr-defined]
