"""Where an attempt's log comes from."""

from __future__ import annotations

from collections.abc import Iterator

from web.recording import archive, transcript
from web.recording.archive import Archive
from workflows.build import LogEnd, LogLine
from workflows.engines import Engine
from workflows.image import BuildName


def lines_of(name: BuildName, engine: Engine, store: Archive) -> Iterator[LogLine | LogEnd]:
    """An attempt's log from its first line: the engine's while it has it, then the archive's. Blocks.

    The archive's is whole, and has no ends of steps.

    Raises:
        TransientError: The archive does not answer.
    """
    if engine.status(name) is not None:
        yield from engine.logs(name)
        return
    pieces = store.stream(archive.key(name, archive.LOG))
    if pieces is not None:
        yield from transcript.read(pieces)
