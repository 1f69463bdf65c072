"""One visitor's way from an image to a server, numbered so that a client that lost its stream finds it again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from web import errors
from web.clicks import resume
from web.concurrency import off_loop, relay
from web.launching.launch import Visitor
from web.ledger import LaunchRecord
from web.services import Services
from workflows.errors import ArgosyError, Reason
from workflows.events import KEEPALIVE, Event, Phase, encode
from workflows.repo import Repository
from workflows.stores.catalogue import Entry

_RETRY = "Launch attempt "
"""How a launcher's message begins that says of another server to be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visitor and the image that is to be launched.

    Args:
        repository: What was asked for.
        visitor: Who asked.
        attempt: The build's attempt that the visitor followed; 0 where the image was known.
        build: That attempt's name; empty where the image was known.
        launch: Number of the last event of this launch that the client has.
    """

    repository: Repository
    visitor: Visitor
    attempt: int = 0
    build: str = ""
    launch: int = 0

    def number(self, data: Event, step: int, failed: int = 0) -> bytes:
        """The event's bytes, with the id that brings the visitor back to the same server.

        Args:
            data: The event.
            step: Events of this stream's launch until here; 0 before the first.
            failed: Servers that this stream has seen fail.
        """
        server = self.visitor.server + failed
        return encode(data, resume.launch_id(self.attempt, self.launch + step, self.visitor.nonce, server))


def launch(visit: Visit, entry: Entry, services: Services) -> Iterator[bytes]:
    """The events of a launch, encoded, from ``Launching server...`` to ``ready`` or ``failed``."""
    began, servers, step = time.time(), 1, 0
    last: Event = {}
    events = services.launcher.launch(
        image=entry.image, digest=entry.digest, repository=visit.repository, visitor=visit.visitor
    )
    for batch in relay(events, idle_seconds=services.settings.keep_alive_seconds, is_native=False):
        for last in batch:
            step += 1
            servers += str(last.get("message", "")).startswith(_RETRY)
            yield visit.number(last, step, servers - 1)
        if not batch:
            yield KEEPALIVE
    is_ready = last.get("phase") == Phase.READY
    record = LaunchRecord(
        image=entry.image,
        build=visit.build,
        provider=visit.repository.provider,
        spec=visit.repository.spec,
        repo_url=visit.repository.repo_url,
        outcome="ready" if is_ready else "failed",
        reason=None if is_ready else Reason(last.get("reason", Reason.INTERNAL)),
        attempts=servers,
        created=began,
        ready_seconds=time.time() - began,
    )
    off_loop(partial(_remember, record, services))


def _remember(record: LaunchRecord, services: Services) -> None:
    try:
        services.ledger.record_launch(record)
    except ArgosyError as error:
        # The visitor has the server: a ledger that is away takes nothing from that.
        errors.log(error, "a launch is not recorded")
