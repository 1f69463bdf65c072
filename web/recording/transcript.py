"""A finished build's log as one text, and back.

::

    ===== fetch: 2 lines =====
    Cloning ...
    HEAD is now at 1a2b3c4
    ===== build: 1 lines =====
    Using PythonBuildPack builder

A heading says how many lines are its own. Whoever reads goes by that number, so a build that prints a heading of its
own changes nothing.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

from workflows.build import LogLine
from workflows.errors import InternalError

_HEADING = re.compile(rb"===== ([a-z][a-z0-9-]*): ([0-9]+) lines =====")

_IN_MEMORY_BYTES = 1024**2
"""A step's lines up to here wait in memory, more of them in a temporary file."""


class _Part:
    """The lines of one step, until their number is known."""

    def __init__(self) -> None:
        self.count = 0
        self.text = cast("IO[bytes]", tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115  # closed below

    def add(self, text: str) -> None:
        """One more line; what would break it in two does not."""
        self.text.write(text.replace("\n", "\r").encode(errors="replace") + b"\n")
        self.count += 1

    def write(self, step: str, target: IO[bytes]) -> None:
        """Heading and lines."""
        target.write(f"===== {step}: {self.count} lines =====\n".encode())
        self.text.seek(0)
        shutil.copyfileobj(self.text, target)


def write(lines: Iterable[LogLine], target: IO[bytes]) -> None:
    """Writes `lines` as one text, step after step in the order in which the steps first spoke."""
    parts: dict[str, _Part] = {}
    try:
        for line in lines:
            if line.step not in parts:
                parts[line.step] = _Part()
            parts[line.step].add(line.text)
        for step, part in parts.items():
            part.write(step, target)
    finally:
        for part in parts.values():
            part.text.close()


def read(pieces: Iterable[bytes]) -> Iterator[LogLine]:
    """The lines of a text that `write` wrote, numbered as they were.

    Args:
        pieces: The text, cut anywhere, as an archive streams it.

    Raises:
        InternalError: This is no such text.
    """
    rows = _rows(pieces)
    for row in rows:
        heading = _HEADING.fullmatch(row)
        if not heading:
            raise InternalError(detail=f"no heading of a log: {row[:100]!r}")
        step = heading[1].decode()
        for number in range(1, int(heading[2]) + 1):
            text = next(rows, None)
            if text is None:
                raise InternalError(detail=f"a log ends in the middle of {step}")
            yield LogLine(step=step, number=number, text=text.decode(errors="replace"))


def _rows(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *rows, rest = (rest + piece).split(b"\n")
        yield from rows
    if rest:
        yield rest
