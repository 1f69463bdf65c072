"""The one place that turns errors into responses: a page, one JSON shape, or a ``failed`` event."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse

from workflows.errors import SENTENCES, ArgosyError, InternalError, Reason
from workflows.events import Event, Phase, encode, event

_logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

_SENTENCES = {
    404: "There is no such page. Check the link.",
    405: "This address does not take such a request.",
}


def failure(error: ArgosyError, **extra: object) -> Event:
    """The last event of a stream that ends in `error`."""
    return event(Phase.FAILED, str(error), reason=error.reason.value, **extra)


def log(error: ArgosyError, what: str) -> None:
    """Writes down what the visitor does not read; our own faults are louder than other people's."""
    level = logging.ERROR if error.reason in {Reason.INTERNAL, Reason.CONFIG} else logging.INFO
    _logger.log(level, "%s: %s: %s %s", what, error.reason, error, error.detail)


def stream_headers() -> dict[str, str]:
    """Headers of every event stream."""
    return {
        "Cache-Control": "no-cache",
        "Access-Control-Allow-Headers": "cache-control",
        "X-Accel-Buffering": "no",  # nginx would hold the events back
    }


def event_response(status_code: int, message: str, reason: Reason) -> Response:
    """A stream of one event. Its HTTP status is 200, as always in BinderHub; the true one is in the event."""
    fields = {
        "phase": Phase.FAILED.value,
        "status_code": status_code,
        "message": message + "\n",
        "reason": reason.value,
    }
    return Response(encode(fields), content_type=EVENT_STREAM, headers=stream_headers())


def wants_json() -> bool:
    """Whether the answer to this request is for a program."""
    if request.path.startswith("/builds/"):
        return request.path.endswith(("/findings", "/sbom"))
    return request.path in {"/health", "/versions"} or request.accept_mimetypes.best == "application/json"


def respond(status_code: int, message: str, reason: Reason) -> Response:
    """An error as the client understands it."""
    if request.path.startswith("/build/"):
        return event_response(status_code, message, reason)
    if wants_json():
        answer = jsonify(error={"status": status_code, "reason": reason.value, "message": message})
    else:
        page = render_template("error.html", status=status_code, reason=reason.value, message=message)
        answer = Response(page, content_type="text/html; charset=utf-8")
    answer.status_code = status_code
    return answer


def install(app: Flask) -> None:
    """Lets `app` answer every error by `respond`."""

    @app.errorhandler(ArgosyError)
    def on_ours(error: ArgosyError) -> Response:
        log(error, request.path[:200])
        return respond(error.http_status, str(error), error.reason)

    @app.errorhandler(HTTPException)
    def on_http(error: HTTPException) -> AnyResponse:
        code = error.code or 500
        if code < 400:  # noqa: PLR2004  # a redirect of the router is an exception, too
            return error.get_response()
        reason = Reason.NOT_FOUND if code < 500 else Reason.INTERNAL  # noqa: PLR2004  # whose fault it is
        return respond(code, _SENTENCES.get(code, error.description or SENTENCES[reason]), reason)

    @app.errorhandler(Exception)
    def on_bug(error: Exception) -> Response:
        # The outermost edge: whatever was not foreseen is our bug, and says so.
        _logger.error("%s", request.path[:200], exc_info=error)
        return respond(500, str(InternalError()), Reason.INTERNAL)
