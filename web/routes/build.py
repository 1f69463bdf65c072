"""``/build/<provider>/<spec>``: BinderHub's event stream.

Source: ../shared/reference/binderhub.md 1.3 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Request, Response, request

from web import services
from web.clicks import click, resume
from web.clicks.click import Click
from web.errors import EVENT_STREAM, event_response, stream_headers
from web.routes import address
from workflows.errors import Reason

blueprint = Blueprint("build", __name__)


@blueprint.get("/build/<provider>/<any:spec>")
def build(provider: str, spec: str) -> Response:
    """Streams the events of one click. The HTTP status is always 200: what went wrong is the last event."""
    del provider, spec  # decoded by the router: the stream needs them as they came
    if not accepts_events(request.headers.get("Accept", "")):
        return event_response(400, "Missing Accept header: text/event-stream", Reason.NOT_FOUND)
    return stream(click.current().events(click_of(request)))


def click_of(asked: Request) -> Click:
    """The click that a request stands for.

    Raises:
        SpecError: Its spec cannot be one.
    """
    provider, spec = address.spec_of(asked)
    # The query's is for clients that cannot set a header.
    last_event_id = asked.headers.get("Last-Event-ID") or asked.args.get("last_event_id", "")
    return Click(
        provider=provider,
        spec=spec,
        host=address.launch_host(asked, services.current().settings.public_url),
        client_ip=asked.remote_addr or "",
        is_build_only=asked.args.get("build_only", "").lower() == "true",
        resume=resume.parse(last_event_id),
    )


def stream(events: Iterator[bytes]) -> Response:
    """A response of encoded events, each written as it comes."""
    # Passed through: nothing between here and the socket looks at a piece again.
    return Response(events, content_type=EVENT_STREAM, headers=stream_headers(), direct_passthrough=True)


def accepts_events(accept: str) -> bool:
    """Whether an Accept header names the event stream.

    BinderHub knows no lists; ``*/*`` alone is too little there and here.
    """
    ranges = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return EVENT_STREAM in ranges
