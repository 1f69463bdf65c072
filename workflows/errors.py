"""Every error that Argosy raises on purpose, and the reasons and exit codes that they fix.

::

    ArgosyError
    ├── BuildError            build            the repository's own environment does not build
    ├── NotFoundError         not-found        repository or ref does not exist, or is private
    │   └── SpecError         not-found        the spec itself cannot be read
    ├── TooLargeError         too-large        over a limit of size
    ├── InternalError         internal         our bug
    │   └── RefusedError      internal         an API understood, and said no
    ├── OutOfMemoryError      out-of-memory    killed by the memory limit
    ├── StepTimeoutError      timeout          over a limit of time
    ├── SilentError           silent           no output for too long
    ├── TransientError        transient        network, registry, disk: try again
    │   └── RateLimitError    transient        somebody else's rate limit
    ├── PolicyError           policy           the scan's verdict, a ban, an image not allowed
    └── ConfigError           config           the farm is set up wrongly

``detail`` is for the log and may hold what a visitor must not read; ``str(error)`` is what the visitor reads.

Source: ../shared/design.md, *The pipeline is data* (codes) and style.md, *Errors*.
"""

from __future__ import annotations

import errno
import signal
from enum import StrEnum


class Reason(StrEnum):
    """Why a build or a launch ended other than well; goes along in the ``failed`` event."""

    BUILD = "build"
    NOT_FOUND = "not-found"
    TOO_LARGE = "too-large"
    INTERNAL = "internal"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    SILENT = "silent"
    TRANSIENT = "transient"
    POLICY = "policy"
    CONFIG = "config"
    # From outside a step: these have no exit code.
    EVICTED = "evicted"
    START_TIMEOUT = "start-timeout"
    QUEUE_TIMEOUT = "queue-timeout"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


EXIT_CODES: dict[Reason, int] = {
    Reason.BUILD: 10,
    Reason.NOT_FOUND: 66,
    Reason.TOO_LARGE: 67,
    Reason.INTERNAL: 70,
    Reason.OUT_OF_MEMORY: 71,
    Reason.TIMEOUT: 72,
    Reason.SILENT: 73,
    Reason.TRANSIENT: 75,
    Reason.POLICY: 77,
    Reason.CONFIG: 78,
}
"""The contract between a step and whoever runs it. 0 is done; 64 and 65 belong to Argo's executor."""

SKIPPED = 64
"""What Argo's executor says of a step that an earlier failure left out; the local engine says it, too."""

SKIPPED_EXIT_CODES = frozenset({0, SKIPPED})
"""Codes that say nothing about why a build failed: done, or never started because of an earlier failure."""

SENTENCES: dict[Reason, str] = {
    Reason.BUILD: "The environment that this repository describes does not build. The log says at which line; its "
    "author can mend it.",
    Reason.NOT_FOUND: "The repository or the ref does not exist, or is private. Check the link.",
    Reason.TOO_LARGE: "The repository, or the image built from it, is larger than this service allows.",
    Reason.INTERNAL: "This is a fault of the service, not of the repository. Its operators can see what happened.",
    Reason.OUT_OF_MEMORY: "The build needed more memory than this service allows. The repository's author can ask "
    "for less at a time.",
    Reason.TIMEOUT: "The build took longer than this service allows.",
    Reason.SILENT: "The build printed nothing for too long and was ended.",
    Reason.TRANSIENT: "Something between this service and the network failed. Nobody's repository is at fault: "
    "try again.",
    Reason.POLICY: "The rules of this service do not allow this image.",
    Reason.CONFIG: "This service is set up wrongly. Only its operators can mend that.",
    Reason.EVICTED: "The machine that ran the build was needed for something else. Try again.",
    Reason.START_TIMEOUT: "No machine could start the build in time. Try again later.",
    Reason.QUEUE_TIMEOUT: "The build waited in the queue for too long. Try again later.",
    Reason.CANCELLED: "The build was cancelled.",
    Reason.SUPERSEDED: "A newer build of this repository took this one's place.",
}
"""One sentence for each reason: whose fault it is and what to do next."""


DISK_FULL = "The disk of this service is full. Nobody's repository is at fault: try again later."
"""What a visitor reads where a step, or the engine itself, could not write."""


def reason_of_exit(code: int) -> Reason | None:
    """The reason that an exit code stands for.

    Returns:
        None for 0 and 64; `Reason.INTERNAL` for a code outside the contract, because a step ends only by it.
    """
    if code in SKIPPED_EXIT_CODES:
        return None
    return next((reason for reason, known in EXIT_CODES.items() if known == code), Reason.INTERNAL)


class ArgosyError(Exception):
    """The root of Argosy's errors.

    Args:
        message: What the visitor reads: one sentence, no secret, no path of the machine. Empty means the reason's
            own sentence.
        detail: What the operator reads in the log.
    """

    reason = Reason.INTERNAL
    http_status = 500

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message or SENTENCES[self.reason])
        self.detail = detail

    @property
    def exit_code(self) -> int:
        """The exit code with which a step says this error."""
        return EXIT_CODES[self.reason]


class BuildError(ArgosyError):
    """The repository's own environment does not build."""

    reason = Reason.BUILD
    http_status = 422


class NotFoundError(ArgosyError):
    """The repository or the ref does not exist, or is private."""

    reason = Reason.NOT_FOUND
    http_status = 404


class SpecError(NotFoundError):
    """The spec cannot be read, so nothing can be found by it."""

    http_status = 400


class TooLargeError(ArgosyError):
    """The source, a layer or the image is over its limit."""

    reason = Reason.TOO_LARGE
    http_status = 413


class InternalError(ArgosyError):
    """A bug of ours."""


class RefusedError(InternalError):
    """An API understood what we asked, and said no for a reason that nobody expected.

    Args:
        message: See `ArgosyError`.
        detail: See `ArgosyError`.
        status: The HTTP status; None where nobody said.
    """

    def __init__(self, message: str = "", *, detail: str = "", status: int | None = None) -> None:
        super().__init__(message, detail=detail)
        self.status = status


class OutOfMemoryError(ArgosyError):
    """The build was killed by its memory limit."""

    reason = Reason.OUT_OF_MEMORY
    http_status = 422


class StepTimeoutError(ArgosyError):
    """A step, or the build, took too long."""

    reason = Reason.TIMEOUT
    http_status = 504


class SilentError(ArgosyError):
    """A step printed nothing for too long."""

    reason = Reason.SILENT
    http_status = 504


class TransientError(ArgosyError):
    """Network, registry or disk: the same call may go through later."""

    reason = Reason.TRANSIENT
    http_status = 503


class RateLimitError(TransientError):
    """Somebody else's rate limit was reached; the message says when to come back.

    Args:
        message: See `ArgosyError`.
        detail: See `ArgosyError`.
        retry_after_seconds: When it may be tried again; None where nobody said.
    """

    http_status = 429

    def __init__(self, message: str = "", *, detail: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.retry_after_seconds = retry_after_seconds


class PolicyError(ArgosyError):
    """The scan's verdict, a ban, or an image that is not allowed."""

    reason = Reason.POLICY
    http_status = 403


class ConfigError(ArgosyError):
    """The farm is set up wrongly."""

    reason = Reason.CONFIG


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether a disk, or a quota of it, has no room left."""
    return error.errno in _FULL


def of_disk(error: OSError, what: str) -> TransientError:
    """The error where this machine's disk does not take something: nobody's fault, and told where the disk is full.

    Args:
        error: What the system said.
        what: What was tried, for the log.
    """
    return TransientError(DISK_FULL if is_full(error) else "", detail=f"{what}: {error.strerror}")


KILLED = 256 - signal.SIGKILL
"""What a process that stands between ends with where the one below it was killed: the same, in a byte."""


def unless_killed(program: str, code: int) -> int:
    """The exit code of a program that ended by itself.

    Args:
        program: For the log.
        code: As `subprocess` says it, or `KILLED`.

    Raises:
        TransientError: Somebody killed it, as the kernel does where memory is short: nobody's fault, worth another try.
    """
    if code in {-signal.SIGKILL, KILLED}:
        raise TransientError(detail=f"{program} was killed")
    return code
