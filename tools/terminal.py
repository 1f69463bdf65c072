"""What `make run` shows: one line for each thing, with its time and a tick once it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

_WIDTH = 60
"""Of what a line names, as in `tools/install`, whose lines come before ours."""


class Terminal:
    """The terminal of `make run`, or a file: there nothing moves, and each thing is a line once it is done.

    Any thread may call. Enter it to show what goes on, leave it to end that.

    Args:
        console: Where lines go; None: this process's output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Share(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a line above what goes on."""
        # Neither marked up nor broken: it may hold an address, or what somebody else said.
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Shows that something is being done for as long as this is entered."""
        thing = self.begin(what)
        try:
            yield
        except BaseException:
            thing.end("✘")
            raise
        thing.end()

    def begin(self, what: str) -> Thing:
        """Shows that something is being done until its `Thing.end`."""
        return Thing(self, self._progress, what)


class Thing:
    """Something that goes on; made by `Terminal.begin`.

    Args:
        terminal: Where its last line goes.
        progress: What moves.
        what: What people read.
    """

    def __init__(self, terminal: Terminal, progress: Progress, what: str) -> None:
        self._terminal, self._progress, self._what = terminal, progress, what
        self._began = time.monotonic()
        self._task = progress.add_task(what, total=None)

    def advance(self, done: int, total: int) -> None:
        """Shows how far it has come.

        Args:
            done: How many of its parts are done.
            total: How many there are; 0: nobody knows.
        """
        self._progress.update(self._task, completed=done, total=total or None)

    def end(self, mark: str = "✔") -> None:
        """Shows that it is over, and how long it took."""
        seconds = time.monotonic() - self._began
        self._progress.remove_task(self._task)
        self._terminal.say(f"{mark} {self._what:<{_WIDTH}} {seconds:4.0f} s")


class _Share(ProgressColumn):
    """How far something has come, where that is known."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(f"{task.percentage:.0f} %" if task.total else "")
