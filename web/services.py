"""What the application works with: made once per process, handed to whoever needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from flask import Flask, current_app

from web.cleaning.holds import Holds
from web.feed.feeds import Feeds
from web.launching.launch import Visitor
from web.ledger import Ledger
from web.recording.archive import Archive
from workflows.engines import Engine
from workflows.events import Event
from workflows.image import ImageDigest, ImageName
from workflows.providers import Provider
from workflows.repo import Repository
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue
from workflows.stores.images import ImageStore

EXTENSION = "argosy"


class Launcher(Protocol):
    """Starts visitors' servers; the real one is in `web.launching.launch`."""

    def launch(
        self, *, image: ImageName, digest: ImageDigest, repository: Repository, visitor: Visitor
    ) -> Iterator[Event]:
        """BinderHub's events from ``Launching server...`` to ``ready`` or ``failed``, the last with its reason."""
        ...


class Check(Protocol):
    """Looks at something that the farm cannot do without."""

    def __call__(self) -> None:
        """Returns where it is well; raises `ArgosyError` where it is not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the application works with.

    Args:
        settings: The farm's.
        providers: By prefix.
        engine: Executes builds.
        catalogue: The images that may start.
        images: Where images live.
        ledger: What was built.
        archive: What is kept of it.
        launcher: Starts servers.
        feeds: The builds that are followed in this process.
        checks: Health checks by the name under which ``/health`` shows them.
        holds: The images that are being launched.
    """

    settings: Settings
    providers: Mapping[str, Provider]
    engine: Engine
    catalogue: Catalogue
    images: ImageStore
    ledger: Ledger
    archive: Archive
    launcher: Launcher
    feeds: Feeds
    checks: Mapping[str, Check] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)


def install(app: Flask, services: Services) -> None:
    """Hands `services` to an application."""
    app.extensions[EXTENSION] = services


def current() -> Services:
    """The services of the application that answers this request."""
    return cast("Services", current_app.extensions[EXTENSION])
