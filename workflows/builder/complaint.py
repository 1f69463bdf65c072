"""What buildah's output means: the error of ours, and so whose fault it was.

A line that fails is the repository's fault, what does not answer is nobody's, and walls that cannot be made are the
operator's.
"""

from __future__ import annotations

import re

from workflows.builder import walls
from workflows.errors import DISK_FULL, ArgosyError, BuildError, ConfigError, InternalError, TransientError

_LINE_FAILED = re.compile(r'building at STEP "(?P<line>.+?)": (?:while running runtime: )?exit status (?P<code>\d+)')
_NO_IMAGE = re.compile(
    r"manifest unknown|name unknown|repository .*not found|requested access to the resource is denied"
    r"|pinging container registry (?:localhost|127\.|\[::1\])|connect: permission denied"
    r"|unauthorized|invalid reference format|no such image",
    re.IGNORECASE,
)
_PULLING = re.compile(
    r"initializing source|pinging container registry|reading manifest|copying system image|reading blob"
)
_NETWORK = re.compile(r"error sending request for url|dns error|tcp connect error|Temporary failure in name resolution")
_KILLED = re.compile(r"^Error:.*signal: killed$|^container exited on killed$", re.MULTILINE)
"""A tool of buildah's, or a whole line; what a line starts and loses is the line's own affair."""

_FULL = re.compile(r"no space left on device", re.IGNORECASE)


def says_full(output: str) -> bool:
    """Whether it says that a disk is full; which one, and whether that is true, it does not say."""
    return bool(_FULL.search(output))


def error_of(output: str, code: int, *, is_full: bool) -> ArgosyError:
    """What a build failed by.

    Args:
        output: The end of what buildah printed; a line of the build may have printed anything.
        code: buildah's exit code.
        is_full: Whether this machine's disk was full when the output said so.
    """
    if _KILLED.search(output):
        return TransientError(detail=output)
    if failed := _LINE_FAILED.search(output):
        # Whatever else stands there, the line may have printed itself.
        return _line_error(failed, output, is_full=is_full)
    return _own_error(output, code)


def _own_error(output: str, code: int) -> ArgosyError:
    """What buildah itself could not do, or what should have started it."""
    if code == walls.FAILED and output.startswith(walls.CANNOT_BE_MADE):
        # Its first words: no line of the build can have printed them before.
        return ConfigError(detail=output)
    if _FULL.search(output):
        return TransientError(DISK_FULL, detail=output)
    if _PULLING.search(output):
        return _pull_error(output)
    if "Error:" in output or code == 1:
        return BuildError(detail=output)
    return InternalError(detail=f"buildah ended with {code}: {output}")


def _line_error(failed: re.Match[str], output: str, *, is_full: bool) -> ArgosyError:
    if is_full:
        return TransientError(DISK_FULL, detail=output)
    if _NETWORK.search(output):
        return TransientError("A package registry does not answer.", detail=output)
    line = re.sub(r"\s+", " ", failed["line"].replace("\\n", " "))[:200]
    return BuildError(f"This line of the build ended with exit status {failed['code']}: {line}", detail=output)


def _pull_error(output: str) -> ArgosyError:
    if _NO_IMAGE.search(output):
        return BuildError("The image that this repository builds on does not exist, or is private.", detail=output)
    return TransientError("The registry of the image to build on does not answer.", detail=output)
