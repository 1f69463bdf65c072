"""An attempt's log as one sequence of lines, read from its files while they grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from workflows.build import BuildStatus, LogEnd, LogLine
from workflows.engines.attempt.folder import BuildFolder

_LOOK_SECONDS = 0.05
_CHUNK_BYTES = 64 * 1024


def follow(folder: BuildFolder, sleep: Callable[[float], None]) -> Iterator[LogLine | LogEnd]:
    """Each line of each step and then the step's end, in pipeline order and once, until the attempt has ended.

    Steps that run beside one another come one after the other.
    """
    status = folder.status()
    for step in status.steps if status else ():
        yield from _follow_step(folder, step.name, sleep)
        yield LogEnd(step=step.name)


def _follow_step(folder: BuildFolder, step: str, sleep: Callable[[float], None]) -> Iterator[LogLine]:
    path = folder.log(step)
    stamp = (-1, -1)
    is_over = False
    while not path.exists():
        if is_over:
            return
        if (now := folder.stamp()) != stamp:
            stamp, is_over = now, _is_over(folder.status(), step)
        else:
            sleep(_LOOK_SECONDS)
    number = 0
    rest = b""
    stamp = (-1, -1)
    with path.open("rb", buffering=0) as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                for number, line in enumerate(lines, start=number + 1):  # noqa: B020  # counts on
                    yield LogLine(step=step, number=number, text=line.decode("utf-8", "replace"))
            elif is_over:
                break
            elif (now := folder.stamp()) != stamp:
                # Whether it is over is asked before the read that must find the last line.
                stamp, is_over = now, _is_over(folder.status(), step)
            else:
                sleep(_LOOK_SECONDS)
    if rest:
        yield LogLine(step=step, number=number + 1, text=rest.decode("utf-8", "replace"))


def _is_over(status: BuildStatus | None, step: str) -> bool:
    """Whether the step will print nothing more."""
    if status is None or status.state.ended:
        return True
    return any(known.name == step and known.exit_code is not None for known in status.steps)
