"""The life of a click: from a spec to a server, as BinderHub's events.

Source: ../shared/design.md, *Life of a click*; ../shared/reference/binderhub.md, section 2.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

from flask import Flask, current_app

from web import errors
from web.clicks import resume
from web.clicks.known import Known
from web.clicks.resume import Resume
from web.clicks.visit import Visit, launch
from web.concurrency import off_loop
from web.launching.launch import Visitor
from web.recording.attempts import Attempts
from web.services import Services
from workflows.build import BuildRequest, BuildStatus, State
from workflows.errors import (
    SENTENCES,
    ArgosyError,
    InternalError,
    NotFoundError,
    Reason,
    SpecError,
    TransientError,
)
from workflows.events import Event, Phase, encode, event
from workflows.image import attempt_of, with_attempt
from workflows.providers import find
from workflows.repo import Repository
from workflows.stores.catalogue import Entry

_logger = logging.getLogger(__name__)

_EXTENSION = "argosy.clicks"

_LOST = "What built this image was interrupted. It is built again ..."

_NETWORK_BITS = {4: 24, 6: 56}
"""What one client's network is: a home, a class, a company's exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """What somebody asked for.

    Args:
        provider: The provider's prefix.
        spec: As it stood in the URL, percent-encoded.
        host: Where the visitor found us, with a slash at the end; BinderHub's ``binder_launch_host``.
        client_ip: Whose click it is.
        is_build_only: Whether the image is all that is wanted.
        resume: Where a client stood that lost its stream; None for a new click.
    """

    provider: str
    spec: str
    host: str
    client_ip: str
    is_build_only: bool = False
    resume: Resume | None = None


class Clicks:
    """Answers clicks, each by an iterator of encoded events that ends after the last one.

    Args:
        services: What they are answered with.
    """

    def __init__(self, services: Services) -> None:
        self.attempts = Attempts(
            services.engine, services.ledger, failure_memory_seconds=services.settings.failure_memory_seconds
        )
        self._services = services
        self._known = Known(services.catalogue, services.images)

    def events(self, click: Click) -> Iterator[bytes]:
        """The events of one click. Whatever goes wrong is the last of them."""
        try:
            yield from self._answer(click)
        except ArgosyError as error:
            errors.log(error, f"{click.provider}/{click.spec[:200]}")
            yield encode(errors.failure(error))
        except Exception:  # the outermost edge: the stream has begun, so a bug can only be told in it
            _logger.exception("%s/%s", click.provider, click.spec[:200])
            yield encode(errors.failure(InternalError()))

    def _answer(self, click: Click) -> Iterator[bytes]:
        repository = yield from self._resolve(click)
        request = self._request(repository, click)
        # From before the catalogue is asked: cleaning takes nothing away from under a visitor.
        with self._services.holds.hold(request.image):
            yield from self._serve(request, _visit(repository, click), click)

    def _serve(self, request: BuildRequest, visit: Visit, click: Click) -> Iterator[bytes]:
        status = self._resumed(request, click.resume)
        entry = None if status else self._known.find(request.image)
        if status is None and entry is None:
            entry, status = self._begin(request)
        if status is not None:
            entry, visit = yield from self._build(status, click, visit)
        elif entry is not None:
            yield from _found(entry, click, visit)
        if entry is not None and not click.is_build_only:
            yield from launch(visit, entry, self._services)

    # --- 2: ref to commit ---

    def _resolve(self, click: Click) -> Generator[bytes, None, Repository]:
        provider = find(self._services.providers, click.provider)
        try:
            return provider.resolve(click.spec)
        except SpecError:
            raise
        except NotFoundError:
            fallback = provider.fallback(click.spec)
            if fallback is None:
                raise
        yield encode(event(Phase.WAITING, fallback.message))
        return provider.resolve(fallback.spec)

    def _request(self, repository: Repository, click: Click) -> BuildRequest:
        prefix = self._services.settings.image_prefix
        return BuildRequest.of(repository, prefix, network=network_of(click.client_ip))

    # --- 3, 4: known, joined, or begun ---

    def _resumed(self, request: BuildRequest, place: Resume | None) -> BuildStatus | None:
        """The attempt that a client followed when it lost its stream."""
        if place is None or not place.attempt or place.position is None:
            return None
        name = with_attempt(request.name, place.attempt)
        return off_loop(lambda: self.attempts.find(name))

    def _begin(self, request: BuildRequest) -> tuple[Entry | None, BuildStatus | None]:
        latest = off_loop(lambda: self.attempts.latest(request.name))
        if latest is not None and _is_published(latest):
            # Published between our look at the catalogue and this one? Else its image is gone.
            entry = self._known.find(request.image)
            if entry is not None:
                return entry, None
            if not latest.state.ended:
                raise TransientError(detail=f"{latest.name} has just published {request.image}, and it is not there")
        if latest is None or latest.state.ended:
            request = dataclasses.replace(request, held=self._known.held(request.image))
        return None, off_loop(lambda: self.attempts.begin(request, latest))

    # --- 5, 6: following ---

    def _build(
        self, status: BuildStatus, click: Click, visit: Visit
    ) -> Generator[bytes, None, tuple[Entry | None, Visit]]:
        place = click.resume
        if place is None and self.attempts.is_remembered(status):
            yield encode(failed(status))
            return None, visit
        nonce = "" if click.is_build_only else visit.visitor.nonce
        status = yield from self._follow(status, place, nonce)
        while (following := self._successor(status)) is not None:
            yield encode(event(Phase.WAITING, _LOST, reason=Reason.TRANSIENT.value, build=status.name))
            status = yield from self._follow(following, place, nonce)
        visit = dataclasses.replace(visit, attempt=attempt_of(status.name), build=status.name)
        if not _is_published(status):
            yield encode(failed(status))
            return None, visit
        entry = self._known.find(status.request.image)
        if entry is None:
            raise TransientError(detail=f"{status.name} ended well, and its image is not known")
        if click.is_build_only:
            yield encode(event(Phase.READY, "Done! Image built", imageName=entry.image, build=status.name))
        else:
            data = event(Phase.BUILT, "Built image, launching...", imageName=entry.image, build=status.name)
            yield visit.number(data, 0)
        return entry, visit

    def _follow(self, status: BuildStatus, place: Resume | None, nonce: str) -> Generator[bytes, None, BuildStatus]:
        after = place.position if place and place.attempt == attempt_of(status.name) else None
        usual = off_loop(partial(self._usual_seconds, status)) if after is None else None
        return (yield from self._services.feeds.follow(status, after=after, usual_seconds=usual, nonce=nonce))

    def _successor(self, status: BuildStatus) -> BuildStatus | None:
        return None if _is_published(status) else off_loop(partial(self.attempts.successor, status))

    def _usual_seconds(self, status: BuildStatus) -> float | None:
        try:
            return self._services.ledger.typical_seconds(status.request.repo_url)
        except ArgosyError as error:
            # Nice to know, and nothing to fail for.
            errors.log(error, f"how long {status.name} takes")
            return None


def _visit(repository: Repository, click: Click) -> Visit:
    place = click.resume
    return Visit(
        repository=repository,
        visitor=Visitor(
            nonce=(place and place.nonce) or resume.new_nonce(),
            host=click.host,
            client_ip=click.client_ip,
            server=place.server if place else 1,
        ),
        # Of a build that is still followed it is known later.
        attempt=place.attempt if place and place.position is None else 0,
        launch=place.launch if place else 0,
    )


def _found(entry: Entry, click: Click, visit: Visit) -> Iterator[bytes]:
    # BinderHub's order of keys for an image that was found; for one that was just built it is another.
    data = {"phase": Phase.BUILT.value, "imageName": entry.image, "message": "Found built image, launching...\n"}
    if click.is_build_only:
        yield encode(data | {"phase": Phase.READY.value, "message": "Done! Found built image\n"})
    elif click.resume is None or click.resume.position is not None:
        yield visit.number(data, 0)


def install(app: Flask, services: Services) -> None:
    """Lets `app` answer clicks."""
    app.extensions[_EXTENSION] = Clicks(services)


def current() -> Clicks:
    """What answers clicks in the application of this request."""
    return cast("Clicks", current_app.extensions[_EXTENSION])


def network_of(address: str) -> str:
    """The network of a client's address, as ``192.0.2.0/24``; empty for what is no address."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped:
        known = known.ipv4_mapped
    return str(ipaddress.ip_network((known, _NETWORK_BITS[known.version]), strict=False))


def _is_published(status: BuildStatus) -> bool:
    return bool(status.published) or status.state is State.SUCCEEDED


def failed(status: BuildStatus) -> Event:
    """The last event of a build that failed."""
    reason = status.reason or Reason.INTERNAL
    return event(Phase.FAILED, status.message or SENTENCES[reason], reason=reason.value, build=status.name)
