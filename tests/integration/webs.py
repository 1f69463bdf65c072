"""Web processes that can be killed: application, recorder, ledger, archive, launcher, local engine are the real ones.

Played are the git host (any repository exists), the image store (a folder) and the steps (a script behind the real step
supervisor). ``python -m tests.integration.webs FOLDER PORT HUB_URL`` imports everything once and makes a web process by
`fork` whenever it reads a line, because a test that kills a hundred of them cannot wait for a hundred imports.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import requests
from werkzeug.serving import make_server

from tests.integration import hub
from tests.integration.farm import FakeProvider, eventually
from tests.processes import lives
from web import native
from web.app import create_app
from web.feed.feeds import Feeds
from web.launching.hub import HubClient
from web.launching.launch import Launcher
from web.ledger import Ledger
from web.recording.archive import FsspecArchive
from web.recording.recorder import Recorder
from web.services import Services
from workflows.engines.admission import Admission
from workflows.engines.local import LocalEngine
from workflows.image import CommitSHA, ImageDigest, ImageName
from workflows.pipeline import BUILD, FETCH, PUBLISH, PUSH, SCAN, STAGE
from workflows.repo import Repository
from workflows.settings import Settings, environment_of, load
from workflows.stores.catalogue import FolderCatalogue
from workflows.stores.images import ImageStore

STEPS = (FETCH, BUILD, STAGE, PUSH, PUBLISH, SCAN)
LEAVE_SECONDS = 2.0
KEEP_SECONDS = 2.0

SCRIPT = """
import hashlib, json, os, subprocess, sys, time
from pathlib import Path
from workflows.errors import *
from workflows.run.supervisor import Limits, Supervisor
name, options = sys.argv[1], dict(option[2:].split("=", 1) for option in sys.argv[2:])
state, workspace = Path(os.environ["ARGOSY_STATE"]), Path(os.environ["ARGOSY_WORKSPACE"])
image = options.get("image", "")
key = hashlib.sha256(image.encode()).hexdigest()
def say(count, seconds):
    for number in range(count):
        print(f"{name} says {number}", flush=True)
        time.sleep(seconds)
def daemon():
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-I", "-c", code], start_new_session=True)
def push():
    (state / "images").mkdir(exist_ok=True)
    (state / "images" / key).write_text("sha256:" + key)
    (workspace / "pushed.json").write_text(json.dumps({"image": image, "digest": "sha256:" + key}))
def publish():
    from workflows.stores.catalogue import Entry, FolderCatalogue
    entry = Entry(image=image, digest="sha256:" + key, provider=options["provider"], spec=options["spec"],
        repo_url=options["repo-url"], commit=options["commit"], builder="test", published=time.time(),
        build=options["build"])
    FolderCatalogue(state / "catalogue").add(entry)
def step():
BODY
limits = Limits(seconds=LIMIT, silent_seconds=30, max_log_bytes=CAP, backoff_seconds=0.05, grace_seconds=0.5)
os._exit(Supervisor(limits).run(step))
"""

BODY = """
    say(20, 0.01)
    if name == "build":
        (workspace / "tree").mkdir(exist_ok=True)
        daemon()
    if name == "stage":
        (state / "staging" / options["build"]).mkdir(parents=True, exist_ok=True)
    if name == "push":
        push()
    if name == "publish":
        publish()
    say(5, 0.01)
"""


def settings_of(folder: Path, port: int, hub_url: str, **settings: Any) -> Settings:
    chosen: dict[str, Any] = {
        "state": folder / "state",
        "port": port,
        "hub_url": hub_url,
        "hub_api_url": f"{hub_url}hub/api/",
        "hub_token_file": folder / "hub-token",
        "keep_alive_seconds": 1,
        "launch_retry_seconds": 0.05,
        "launch_timeout_seconds": 20,
        "parallel_builds": 3,
        "parallel_builds_per_network": 3,
    }
    return Settings(**chosen | settings)


class AnyRepository(FakeProvider):
    """``gh`` on which every repository exists; its commit follows from its spec."""

    def resolve(self, spec: str) -> Repository:
        self.commits[spec] = CommitSHA(hashlib.sha1(spec.encode()).hexdigest())
        return super().resolve(spec)


class FolderImages(ImageStore):
    """Images that outlive every process of ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest(self, image: ImageName) -> ImageDigest | None:
        path = self._folder / hashlib.sha256(image.encode()).hexdigest()
        return ImageDigest(path.read_text()) if path.exists() else None

    def remove(self, image: ImageName) -> None:
        (self._folder / hashlib.sha256(image.encode()).hexdigest()).unlink(missing_ok=True)


def serve(settings: Settings, script: Path) -> None:
    """A web process; returns never."""
    ledger, archive = Ledger.open(settings.ledger), FsspecArchive(settings.archive)
    catalogue = FolderCatalogue(settings.catalogue_folder)
    engine = LocalEngine(settings, steps=STEPS, command=(sys.executable, "-I", str(script)), sleep=native.sleep)
    recorder = Recorder(engine, ledger, archive, Admission(engine, settings), keep_seconds=KEEP_SECONDS)
    services = Services(
        settings=settings,
        providers={"gh": AnyRepository(settings)},
        engine=engine,
        catalogue=catalogue,
        images=FolderImages(settings.state / "images"),
        ledger=ledger,
        archive=archive,
        launcher=Launcher(HubClient(settings), settings, leave_seconds=LEAVE_SECONDS),
        feeds=Feeds(engine, archive, catalogue, recorder, keep_alive_seconds=settings.keep_alive_seconds),
    )
    native.start(lambda: recorder.run(native.Flag()), "recorder")
    make_server("127.0.0.1", settings.port, create_app(services), threaded=True).serve_forever()


class Webs:
    """One web process after the other, on the same state.

    Args:
        folder: Of the test; the state is in it.
        port: Where each of them listens.
        hub_url: The Hub's address.
        body: What a step does.
        limit: Seconds that a step may take.
        cap: Bytes of a step's output that are kept.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        hub_url: str,
        body: str = BODY,
        *,
        limit: float = 30,
        cap: int = 1 << 20,
        **more: Any,
    ) -> None:
        self.settings = settings_of(folder, port, hub_url, **more)
        self.url = f"http://127.0.0.1:{port}"
        self.pid = 0
        self.maker = 0
        self._log = folder / "web.log"
        (folder / "hub-token").write_text(hub.TOKEN)
        self.script = folder / "script.py"
        text = SCRIPT.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
        self.script.write_text(text.replace("LIMIT", str(limit)).replace("CAP", str(cap)))
        with self._log.open("ab") as log:
            self._maker = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.script)],
                env={**os.environ, **environment_of(self.settings)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self.maker = self._maker.pid

    def start(self) -> None:
        """Make a web process and wait until it answers."""
        # One that is killed has its port until the kernel has ended it.
        eventually(lambda: not lives(self.pid), 10)
        assert self._maker.stdin
        assert self._maker.stdout
        self._maker.stdin.write("start\n")
        self.pid = int(self._maker.stdout.readline())
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"{self.url}/versions", timeout=5)
            except requests.RequestException:
                assert time.monotonic() < deadline, self._log.read_text()[-3000:]
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """``kill -9``."""
        os.kill(self.pid, signal.SIGKILL)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        self.kill()
        assert self._maker.stdin
        self._maker.stdin.close()
        self._maker.wait(10)
        assert self._maker.stdout
        self._maker.stdout.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    settings, script = load(), Path(sys.argv[1])
    for _ in sys.stdin:
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        if (child := os.fork()) == 0:
            try:
                serve(settings, script)
            finally:
                os._exit(1)
        print(child, flush=True)  # noqa: T201  # read by `Webs`


if __name__ == "__main__":
    main()
