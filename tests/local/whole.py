"""Whole builds without web: the local engine with the real steps, from a git host to the catalogue."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.githost import Content, GitHost
from tests.local.building import Building
from workflows.build import BuildOptions, BuildRequest, BuildStatus
from workflows.engines.admission import Admission
from workflows.engines.local import LocalEngine
from workflows.errors import Reason
from workflows.image import BuildName, CommitSHA, ImageName
from workflows.settings import Settings
from workflows.stores.containers import Containers

ENDED_SECONDS = 300


class Whole:
    """An engine that works in the state folder of a `Building`, where a base image is.

    Args:
        settings: The farm's.
        host: Where the repositories are.
    """

    def __init__(self, settings: Settings, host: GitHost) -> None:
        self.settings = settings
        self.host = host
        self.engine = LocalEngine(settings)
        self._admission = Admission(self.engine, settings)

    def request(self, name: str, commit: str) -> BuildRequest:
        """A wish for a repository of the host at a commit."""
        slug = name.replace("/", "-")
        return BuildRequest(
            image=ImageName(f"{self.settings.image_prefix}{slug}:{commit}"),
            provider="git",
            spec=f"{self.host.url}/{name}/main",
            ref="main",
            commit=CommitSHA(commit),
            repo_url=f"{self.host.url}/{name}",
            clone_url=f"{self.host.url}/{name}",
            slug=slug,
            owner=name.partition("/")[0],
            options=BuildOptions(build_args=(("BASE", self.settings.base_image),)),
        )

    def begin(self, name: str, files: Mapping[str, Content]) -> BuildName:
        """Make a repository of these files and ask for its image."""
        return self.engine.submit(self.request(name, self.host.create(name, files))).name

    def build(self, name: str, files: Mapping[str, Content]) -> BuildStatus:
        """The same, and wait for the end."""
        return self.until_ended(self.begin(name, files))

    def until_ended(self, name: BuildName) -> BuildStatus:
        """How a build ends."""
        deadline = time.monotonic() + ENDED_SECONDS
        while not (status := self.tick(name)).state.ended:
            assert time.monotonic() < deadline, f"{name} does not end:\n{self.log(name)}"
            time.sleep(0.05)
        return status

    def tick(self, name: BuildName) -> BuildStatus:
        """How a build stands, once the queue has moved."""
        self._admission.tick()
        status = self.engine.status(name)
        assert status
        return status

    def log(self, name: BuildName) -> str:
        """What there is of a build's log, the operator's too."""
        folder = self.settings.builds_folder / name
        files = [*sorted((folder / "logs").glob("*.log")), folder / "operator.log"]
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files if file.exists()
        )

    def close(self) -> None:
        """End whatever still runs."""
        for folder in self.settings.builds_folder.glob("build-*"):
            name = BuildName(folder.name)
            self.engine.stop(name, Reason.CANCELLED)
            self.until_ended(name)
            self.engine.forget(name)
        self._admission.close()


@contextmanager
def whole(building: Building, folder: Path, **changes: object) -> Iterator[Whole]:
    """A `Whole` with a git host of its own."""
    given = {"state": building.state, "base_image": building.base, "scan_policy": "off"} | changes
    settings = Settings(**given)
    Containers(settings).prepare()
    host = GitHost(folder / "whole-host").start()
    made = Whole(settings, host)
    try:
        yield made
    finally:
        made.close()
        host.stop()
