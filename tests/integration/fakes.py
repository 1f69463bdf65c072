"""Loud fakes at the seams: what they were not told to do, they refuse."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from workflows.build import BuildRequest, BuildStatus, LogEnd, LogLine, State
from workflows.engines import Engine
from workflows.errors import Reason
from workflows.image import BuildName, CommitSHA, ImageName


def request(**different: object) -> BuildRequest:
    """A build of owner/repo, but for what is said to be different."""
    values: dict[str, object] = {
        "image": ImageName("localhost/argosy/owner-repo:abc"),
        "provider": "gh",
        "spec": "owner/repo/main",
        "ref": "main",
        "commit": CommitSHA("a" * 40),
        "repo_url": "https://github.example/owner/repo",
        "clone_url": "https://github.example/owner/repo",
        "slug": "owner/repo",
        "owner": "owner",
    }
    return BuildRequest(**values | different)


class FakeEngine(Engine):
    """An `Engine` whose builds do what the test says: `submit` queues, `admit` runs, `say` prints, `end` ends.

    Times are 1, 2, 3 … in the order of what happens, unless there is a clock. `forgotten` holds what was forgotten.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.builds: dict[BuildName, BuildStatus] = {}
        self.lines: dict[BuildName, list[LogLine]] = {}
        self.files: dict[BuildName, dict[str, bytes]] = {}
        self.history: list[BuildStatus] = []
        self.forgotten: list[BuildName] = []
        self.readers: list[BuildName] = []
        self.watch_faults: list[Exception] = []
        self.logs_faults: list[Exception] = []
        self.is_over = False
        """The test is: whoever watches or reads comes back."""
        self.may_read = threading.Event()
        """Cleared, every reader of a log stands still."""
        self.may_read.set()
        self._ticks = 0
        self._clock = clock
        self._changed = threading.Condition()

    def submit(self, request: BuildRequest) -> BuildStatus:
        with self._changed:
            if request.name not in self.builds:
                self._tell(BuildStatus(request=request, state=State.QUEUED, created=self._now()))
            return self.builds[request.name]

    def status(self, name: BuildName) -> BuildStatus | None:
        return self.builds.get(name)

    def watch(self) -> Iterator[BuildStatus]:
        with self._changed:
            self._break_off()
            known, seen = list(self.builds.values()), len(self.history)
        yield from known
        while not self.is_over:
            with self._changed:
                self._changed.wait_for(lambda: len(self.history) > seen or self.watch_faults, timeout=0.05)  # noqa: B023
                self._break_off()
                news, seen = self.history[seen:], len(self.history)
            yield from news

    def logs(self, name: BuildName) -> Iterator[LogLine | LogEnd]:
        self.readers.append(name)
        if self.logs_faults:
            raise self.logs_faults.pop(0)
        assert name not in self.forgotten, f"{name} was forgotten and its log is read"
        sent, is_said = 0, False
        while True:
            assert self.may_read.wait(60)
            with self._changed:
                ended = name not in self.builds or self.builds[name].state.ended
                news = self.lines.get(name, [])[sent:]
                was_said, is_said = is_said, is_said or self._has_published(name)
            yield from news
            sent += len(news)
            if is_said and not was_said:
                yield LogEnd(step="publish")
            if (ended and not news) or self.is_over:
                return
            if not news:
                time.sleep(0.005)

    def outputs(self, name: BuildName) -> dict[str, bytes]:
        return self.files.get(name, {})

    def admit(self, name: BuildName) -> None:
        with self._changed:
            if self.builds[name].state is State.QUEUED:
                self._tell(dataclasses.replace(self.builds[name], state=State.RUNNING, started=self._now()))

    def stop(self, name: BuildName, reason: Reason) -> None:
        if not self.builds[name].state.ended:
            self.end(name, reason)

    def forget(self, name: BuildName) -> None:
        with self._changed:
            assert self.builds[name].state.ended, f"{name} still runs and is forgotten"
            del self.builds[name]
            self.forgotten.append(name)

    # --- what a test does ---

    def say(self, name: BuildName, step: str, *texts: str) -> None:
        """Prints lines in a step."""
        with self._changed:
            lines = self.lines.setdefault(name, [])
            for text in texts:
                number = 1 + sum(1 for line in lines if line.step == step)
                lines.append(LogLine(step=step, number=number, text=text))

    def end(self, name: BuildName, reason: Reason | None = None) -> None:
        """Ends a build, well unless there is a reason."""
        with self._changed:
            state = State.FAILED if reason else State.SUCCEEDED
            at = self._now()
            before = self.builds[name]
            published = 0 if reason else before.published or at
            self._tell(dataclasses.replace(before, state=state, reason=reason, ended=at, published=published))

    def publish(self, name: BuildName) -> None:
        """Makes a running build's image launchable."""
        with self._changed:
            self._tell(dataclasses.replace(self.builds[name], published=self._now()))

    def _has_published(self, name: BuildName) -> bool:
        published = name in self.builds and self.builds[name].published
        return bool(published) or any(line.step == "publish" for line in self.lines.get(name, []))

    def _tell(self, status: BuildStatus) -> None:
        self.builds[status.name] = status
        self.history.append(status)
        self._changed.notify_all()

    def _break_off(self) -> None:
        if self.watch_faults:
            raise self.watch_faults.pop(0)

    def _now(self) -> float:
        self._ticks += 1
        return self._clock() if self._clock else self._ticks
