"""Which parts make the farm's web process, and the threads that it starts."""

from __future__ import annotations

import atexit
from functools import partial

from flask import Flask

from web import native
from web.app import create_app
from web.cleaning.holds import Holds
from web.cleaning.rounds import ImageUsage, Rounds, cleaner
from web.concurrency import off_loop
from web.executing import executing
from web.feed.feeds import Feeds
from web.launching.hub import HubClient
from web.launching.launch import Launcher
from web.ledger import BuildRecord, Ledger
from web.recording.archive import FsspecArchive
from web.recording.filing import Filing
from web.recording.overdue import OverdueScans
from web.recording.recorder import Recorder
from web.services import Services
from web.spawn import spawner
from workflows import providers
from workflows.image import ImageDigest, ImageName
from workflows.scan.again import scan_again
from workflows.scan.scanner import is_installed
from workflows.settings import Settings
from workflows.stores.images import image_store

END_SECONDS = 1.5
"""What a process that is told to end takes to say so to the other replicas, at most."""


def start(settings: Settings) -> Flask:
    """The application with everything behind it; what watches, admits and records runs already.

    Raises:
        ConfigError: A part is set up wrongly.
        TransientError: The ledger does not answer.
    """
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    ledger = off_loop(partial(Ledger.open, settings.ledger))
    archive = FsspecArchive(settings.archive)
    parts = executing(settings)
    engine, catalogue, holds = parts.engine, parts.catalogue, Holds()
    recorder = Recorder(
        engine, ledger, archive, parts.admission, lease=parts.recording, keep_seconds=parts.keep_seconds
    )
    images, hub = image_store(settings), HubClient(settings)
    services = Services(
        settings=settings,
        providers=providers.create(settings, spawner()),
        engine=engine,
        catalogue=catalogue,
        images=images,
        ledger=ledger,
        archive=archive,
        launcher=Launcher(hub, settings),
        feeds=Feeds(engine, archive, catalogue, recorder, keep_alive_seconds=settings.keep_alive_seconds),
        checks={
            "JupyterHub API": hub.check,
            # Whether it is there says nothing: that the store answers does. BinderHub asks the same.
            "Image store": lambda: _discard(images.digest(ImageName(f"{settings.image_prefix}some-image-name:12345"))),
            "Ledger": lambda: _discard(off_loop(partial(ledger.recent_builds, 1))),
            **{name: partial(off_loop, check) for name, check in parts.checks.items()},
        },
        holds=holds,
    )
    usage = ImageUsage(ledger, holds, recorder)
    cleans = cleaner(settings, engine=engine, catalogue=catalogue, ledger=ledger, archive=archive, usage=usage)
    rounds = Rounds(cleans, recorder, every_seconds=settings.clean_every_seconds)
    stop = native.Flag()
    atexit.register(_end, recorder, stop)
    native.start(lambda: recorder.run(stop), "recorder")
    native.start(lambda: rounds.run(stop), "cleaning")
    if settings.engine == "local" and settings.scan_policy == "report":
        # In a cluster the scanner is in the steps' own image.
        overdue = OverdueScans(
            ledger,
            catalogue,
            Filing(engine, ledger, archive),
            recorder,
            scan=partial(_scan_again, settings),
            is_possible=is_installed,
        )
        native.start(lambda: overdue.run(stop), "overdue scans")
    return create_app(services)


def _end(recorder: Recorder, stop: native.Flag) -> None:
    """Gives back what other replicas wait for; a process that falls keeps it for as long as a lease lasts."""
    stop.set()
    recorder.await_end(END_SECONDS)


def _scan_again(settings: Settings, record: BuildRecord) -> dict[str, bytes]:
    # What the ledger holds of an attempt that was published.
    return scan_again(settings, record.name, record.image, ImageDigest(record.digest))


def _discard(answer: object) -> None:
    """A check needs no answer: only that one came."""
    del answer
