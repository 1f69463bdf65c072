"""A step's output on its way to the log: bounded, readable, and harmless to whoever shows it."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from workflows.events import printable

_CHUNK_BYTES = 64 * 1024
"""A pipe holds as much."""

_LINE_BYTES = 256 * 1024
"""Far above every line that is meant to be read, scan's last one included; far below what would hurt a reader."""


class Output:
    """Relays output and keeps its head and its tail.

    The head is relayed at once. From where it is full, the tail alone is kept, in bounded memory, and follows at the
    end after a line that says how much was left out. Lines are relayed whole.

    Args:
        sink: File descriptor to write to.
        cap_bytes: Bytes that are relayed in all, half of them head and half tail; a few lines about what is left out
            come on top.
    """

    def __init__(self, sink: int, cap_bytes: int) -> None:
        self._sink = sink
        self._head_room = cap_bytes // 2
        self._tail_room = cap_bytes - self._head_room
        # Cleaning may treble a line (one byte becomes U+FFFD), and it must fit the tail still.
        self._line_limit = min(_LINE_BYTES, cap_bytes // 8)
        self.chunk_bytes = min(_CHUNK_BYTES, self._line_limit)
        self._line = bytearray()
        self._cut_bytes = 0
        self._after_return = False
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._lost_bytes = 0
        self._lost_lines = 0
        self._full = False
        self._unwritten = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take `chunk`, at most `chunk_bytes` long, from the step."""
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_return = chunk.endswith(b"\r")
        # A progress bar's carriage returns end lines here, so that it is seen to move and hides nothing.
        whole, newline, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rpartition(b"\n")
        if newline:
            first, _, others = (whole + newline).partition(b"\n")
            self._continue_line(first)
            self._end_line()
            if others:
                self._relay(_clean(others))
        self._continue_line(rest)

    def say(self, line: str) -> None:
        """Add a line of our own, after whatever line is unfinished."""
        self._finish_line()
        self._relay(_clean(f"{line}\n".encode()))

    def close(self) -> None:
        """Relay the unfinished line, and the tail."""
        self._finish_line()
        self._write(b"")
        if not self._full:
            return
        while self._tail_bytes > self._tail_room:
            self._shorten()
        if self._lost_bytes:
            self._write(f"[{self._lost_bytes} bytes in {self._lost_lines} lines are left out here]\n".encode())
        self._write(b"".join(self._tail))
        self._tail.clear()

    def _continue_line(self, part: bytes) -> None:
        kept = part[: max(0, self._line_limit - len(self._line))]
        self._line += kept
        self._cut_bytes += len(part) - len(kept)

    def _finish_line(self) -> None:
        if self._line or self._cut_bytes:
            self._end_line()

    def _end_line(self) -> None:
        ending = b"\n"
        if self._cut_bytes:
            ending = f" [{self._cut_bytes} bytes of this line are left out]\n".encode()
        block = _clean(bytes(self._line) + ending)
        self._line.clear()
        self._cut_bytes = 0
        self._relay(block)

    def _relay(self, block: bytes) -> None:
        if not self._full and len(block) <= self._head_room:
            self._head_room -= len(block)
            self._write(block)
            return
        if not self._full:
            self._full = True
            self._write(f"[much output: of what follows, the last {self._tail_room} bytes come at the end]\n".encode())
        self._tail.append(block)
        self._tail_bytes += len(block)
        # Whole blocks leave here; the exact cut is made once, at the end.
        while self._tail_bytes - len(self._tail[0]) >= self._tail_room:
            self._lose(self._tail.popleft())

    def _shorten(self) -> None:
        block = self._tail.popleft()
        surplus = self._tail_bytes - self._tail_room
        cut = block.find(b"\n", max(0, surplus - 1)) + 1 or len(block)
        self._lose(block[:cut])
        if block[cut:]:
            self._tail.appendleft(block[cut:])

    def _lose(self, block: bytes) -> None:
        self._tail_bytes -= len(block)
        self._lost_bytes += len(block)
        self._lost_lines += block.count(b"\n")

    def _write(self, data: bytes) -> None:
        # A log that cannot be written (disk full, reader gone) must not change how the step ends. What a disk does not
        # take now, it may take once whatever fills it has ended; never more than the cap.
        self._unwritten += data
        with contextlib.suppress(OSError):
            while self._unwritten:
                del self._unwritten[: os.write(self._sink, self._unwritten)]


def _clean(block: bytes) -> bytes:
    return printable(block.decode("utf-8", "replace")).encode()
