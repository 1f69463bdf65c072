"""A farm of fakes behind the real application: providers, engine, images and launcher do what the test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from tests.integration.fakes import FakeEngine
from web import native
from web.app import create_app
from web.feed.feeds import Feeds
from web.launching.launch import Visitor
from web.ledger import Ledger
from web.recording.archive import FsspecArchive
from web.recording.recorder import Recorder
from web.services import Launcher, Services
from workflows.build import BuildStatus
from workflows.errors import ArgosyError, Reason
from workflows.events import Event, Phase, event
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName
from workflows.providers import Credentials, Display, Fallback, Provider, SpecParts
from workflows.providers.github import GitHubProvider
from workflows.providers.provider import unresolved
from workflows.repo import Repository
from workflows.settings import Settings
from workflows.stores.catalogue import Entry, FolderCatalogue
from workflows.stores.images import ImageStore

COMMIT = CommitSHA("50533eb470ee6c24e872043d30b2fee463d6943f")
DIGEST = ImageDigest("sha256:" + "d" * 64)
SPEC = "binder-examples/requirements/main"
OLD_BUILD = BuildName("build-x-1234567-12345678")
URL = "http://hub.example/user/someone/"
TOKEN = "t0ken"
EVENT_STREAM = {"Accept": "text/event-stream"}


class FakeProvider(Provider):
    """``gh`` that knows the commits that the test names, and asks nobody."""

    name = "gh"

    def __init__(self, settings: Settings) -> None:
        self._real = GitHubProvider(settings)
        self.commits = {SPEC: COMMIT}
        self.fault: ArgosyError | None = None

    @property
    def display(self) -> Display:
        return self._real.display

    def parse(self, spec: str) -> SpecParts:
        return self._real.parse(spec)

    def resolve(self, spec: str) -> Repository:
        parts = self.parse(spec)
        if self.fault:
            raise self.fault
        if spec not in self.commits:
            raise unresolved(self.name, spec)
        commit = self.commits[spec]
        return Repository(
            provider=self.name,
            spec=spec,
            ref=parts.ref,
            commit=commit,
            repo_url=parts.repo_url,
            clone_url=parts.repo_url,
            ref_url=f"{parts.repo_url}/tree/{commit}",
            resolved_spec=f"{parts.repo}/{commit}",
            slug=parts.repo.replace("/", "-"),
            owner=parts.owner,
        )

    def fallback(self, spec: str) -> Fallback | None:
        return self._real.fallback(spec)

    def credentials(self) -> Credentials | None:
        return None


class FakeImages(ImageStore):
    """An image store of a dictionary; `asked` counts the questions."""

    def __init__(self) -> None:
        self.digests: dict[ImageName, ImageDigest] = {}
        self.asked = 0

    def digest(self, image: ImageName) -> ImageDigest | None:
        self.asked += 1
        return self.digests.get(image)

    def remove(self, image: ImageName) -> None:
        self.digests.pop(image, None)


class FakeLauncher(Launcher):
    """Every visitor gets a server at once, unless the test names a fault or holds the door."""

    def __init__(self) -> None:
        self.visitors: list[Visitor] = []
        self.images: list[tuple[ImageName, ImageDigest]] = []
        self.fault: Reason | None = None
        self.door = threading.Event()
        self.door.set()

    def launch(
        self, *, image: ImageName, digest: ImageDigest, repository: Repository, visitor: Visitor
    ) -> Iterator[Event]:
        self.visitors.append(visitor)
        self.images.append((image, digest))
        yield event(Phase.LAUNCHING, "Launching server...")
        assert self.door.wait(20)
        if self.fault:
            yield event(Phase.FAILED, "The Hub does not answer.", reason=self.fault.value)
            return
        yield {
            "phase": "ready",
            "message": f"server running at {URL}\n",
            "image": image,
            "repo_url": repository.repo_url,
            "token": TOKEN,
            "binder_ref_url": repository.ref_url,
            "binder_launch_host": visitor.host,
            "binder_request": f"v2/{repository.provider}/{repository.spec}",
            "binder_persistent_request": f"v2/{repository.provider}/{repository.resolved_spec}",
            "binder_client_ip": visitor.client_ip,
            "url": URL,
        }


class NoQueue:
    """Admits nothing: the test does."""

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


class Farm:
    """The application and everything behind it.

    Args:
        folder: Holds ledger, archive and catalogue.
        engine: Another engine than the one that the test commands.
        settings: What differs from the defaults.
    """

    def __init__(self, folder: Path, engine: Any = None, **settings: Any) -> None:
        self.settings = Settings(state=folder, image_prefix="r2d-", **settings)
        self.engine: FakeEngine = engine or FakeEngine(clock=time.time)
        self.provider = FakeProvider(self.settings)
        self.images = FakeImages()
        self.catalogue = FolderCatalogue(self.settings.catalogue_folder)
        self.ledger = Ledger.open(self.settings.ledger)
        self.archive = FsspecArchive(self.settings.archive)
        self.launcher = FakeLauncher()
        self.recorder = Recorder(self.engine, self.ledger, self.archive, NoQueue())
        keep_alive = self.settings.keep_alive_seconds
        self.feeds = Feeds(self.engine, self.archive, self.catalogue, self.recorder, keep_alive_seconds=keep_alive)
        self.services = Services(
            settings=self.settings,
            providers={"gh": self.provider},
            engine=self.engine,
            catalogue=self.catalogue,
            images=self.images,
            ledger=self.ledger,
            archive=self.archive,
            launcher=self.launcher,
            feeds=self.feeds,
        )
        self.app = create_app(self.services)
        self._stop = native.Flag()
        native.start(lambda: self.recorder.run(self._stop), "recorder")

    def close(self) -> None:
        self._stop.set()
        self.engine.is_over = True
        time.sleep(0.2)
        self.ledger.close()

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    @property
    def image(self) -> ImageName:
        return ImageName(f"r2d-binder-2dexamples-2drequirements-55ab5c:{COMMIT}")

    def publish(self, build: BuildName) -> None:
        """What `push` and `publish` do: the image is there and in the catalogue, and the engine says so."""
        self.add_image(build)
        self.engine.publish(build)

    def add_image(self, build: BuildName = OLD_BUILD) -> None:
        entry = Entry(
            image=self.image,
            digest=DIGEST,
            provider="gh",
            spec=SPEC,
            repo_url="https://github.com/binder-examples/requirements",
            commit=COMMIT,
            builder="test",
            published=time.time(),
            build=build,
        )
        self.catalogue.add(entry)
        self.images.digests[self.image] = DIGEST

    def build(self) -> BuildStatus:
        """The build that somebody has just asked for."""
        return eventually(lambda: next(reversed(self.engine.builds.values()), None))


class Stream:
    """One stream of events that a visitor reads, in a thread of its own.

    Args:
        farm: Whose.
        path: After ``/build/``.
        headers: Of the request.
    """

    def __init__(self, farm: Farm, path: str = f"gh/{SPEC}", **headers: str) -> None:
        self.raw = b""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(farm, path, EVENT_STREAM | headers), daemon=True)
        self._thread.start()

    @property
    def blocks(self) -> list[str]:
        return [block for block in self.raw.decode().split("\n\n") if block]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(block.partition("data: ")[2]) for block in self.blocks if "data: " in block]

    @property
    def ids(self) -> list[str]:
        return [block.partition("\n")[0].removeprefix("id: ") for block in self.blocks if block.startswith("id: ")]

    @property
    def messages(self) -> list[str]:
        return [event["message"].rstrip("\n") for event in self.events]

    def end(self) -> Stream:
        """The stream, once it has ended by itself."""
        self._thread.join(30)
        assert not self._thread.is_alive(), f"the stream does not end: {self.raw[-500:]!r}"
        if self.error:
            raise self.error
        return self

    def _read(self, farm: Farm, path: str, headers: dict[str, str]) -> None:
        try:
            with farm.app.test_client() as client:
                answer = client.get(f"/build/{path}", headers=headers, buffered=False)
                assert answer.status_code == 200
                for piece in answer.response:
                    self.raw += piece
        except Exception as error:  # noqa: BLE001  # it is raised again in the test's own thread
            self.error = error


def eventually(found: Any, seconds: float = 30) -> Any:
    """What `found` returns, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return value
