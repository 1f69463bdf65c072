"""The pages of builds: where one stands, its log, SBOM and findings, and what may be done about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from flask import Blueprint, Request, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from web import errors, services
from web.clicks import click
from web.concurrency import off_loop, relay
from web.feed.lines import lines_of
from web.recording import archive
from web.services import Services
from workflows.build import BuildStatus, LogLine, only_lines
from workflows.errors import ArgosyError, NotFoundError, PolicyError, Reason, TransientError
from workflows.events import event_of_line, printable
from workflows.image import BuildName, is_build_name
from workflows.scan.verdict import Outcome
from workflows.settings import Settings

blueprint = Blueprint("builds", __name__)

Result = TypeVar("Result")

_OWN_SITES = frozenset({"same-origin", "none"})
_FINDINGS_SHOWN = 200

_VERDICTS: Mapping[str, str] = {
    Outcome.PASS: "Scanned: nothing is known against what is in this image.",
    Outcome.FINDINGS: "Scanned: there are known vulnerabilities in this image.",
    Outcome.REFUSED: "Scanned: the rules of this service refuse this image.",
    Outcome.STALE_DATABASE: "Scanned, but the vulnerability database is too old: newer vulnerabilities are not in it.",
    Outcome.NO_DATABASE: "Not scanned: no vulnerability database. Whoever runs this service lets Grype fetch one "
    "(grype db update) or names a folder that holds one (ARGOSY_GRYPE_DB); then build again.",
    Outcome.NOT_YET: "Not scanned yet: the scanner is still being installed. The image is scanned as soon as it is "
    "there; nothing needs to be done.",
}
"""What each verdict of a scan means, and what to do about it."""


@blueprint.get("/builds/<name>")
def build(name: str) -> str:
    """Where an attempt stands, its steps, its findings, and what may be done about it.

    Raises:
        NotFoundError: There never was such a build.
    """
    status = _find(name)
    known, silent = services.current(), list[ArgosyError]()
    record = _asked(lambda: known.ledger.build(status.name), silent)
    found = _asked(lambda: known.ledger.findings(status.name), silent) if record and record.verdict else None
    has_sbom = _asked(lambda: _kept(status.name, archive.SBOM, known), silent) is not None
    findings = found or ()
    return render_template(
        "build.html",
        status=status,
        record=record,
        findings=findings[:_FINDINGS_SHOWN],
        findings_more=max(0, len(findings) - _FINDINGS_SHOWN),
        verdict=_VERDICTS.get(record.verdict, record.verdict) if record else "",
        argo_url=_argo_url(status.name, known.settings),
        has_sbom=has_sbom,
        is_whole=not silent,
    )


@blueprint.get("/builds/<name>/log")
def log(name: str) -> Response:
    """The log as text, from its first line; while the build runs, lines come as they are printed.

    Raises:
        NotFoundError: There never was such a build.
    """
    status, known = _find(name), services.current()
    lines = only_lines(lines_of(status.name, known.engine, known.archive))
    seconds = known.settings.keep_alive_seconds
    return Response(_text(lines, seconds), content_type="text/plain; charset=utf-8", direct_passthrough=True)


@blueprint.get("/builds/<name>/sbom")
def sbom(name: str) -> Response:
    """What is in the image, as CycloneDX.

    Raises:
        NotFoundError: There never was such a build, or it was not scanned.
    """
    content = _content(name, archive.SBOM, "This build has no list of what is in its image.")
    return Response(content, content_type="application/vnd.cyclonedx+json")


@blueprint.get("/builds/<name>/findings")
def findings(name: str) -> Response:
    """What the scan found, whole.

    Raises:
        NotFoundError: There never was such a build, or it was not scanned.
    """
    return jsonify(json.loads(_content(name, archive.FINDINGS, "This build was not scanned.")))


@blueprint.post("/builds/<name>/retry")
def retry(name: str) -> AnyResponse:
    """Begins another attempt, or joins the one that runs, and leads there.

    Raises:
        NotFoundError: There never was such a build.
        PolicyError: Another site's page sent this.
    """
    check_origin(request)
    status = _find(name)
    attempts = click.current().attempts
    again = off_loop(lambda: attempts.retry(status.name))
    if request.form.get("to") == "launch":
        return redirect(f"/v2/{again.request.provider}/{again.request.spec}", 303)
    return redirect(f"/builds/{again.name}", 303)


@blueprint.post("/builds/<name>/cancel")
def cancel(name: str) -> AnyResponse:
    """Ends an attempt, and leads back to its page.

    Raises:
        NotFoundError: There never was such a build.
        PolicyError: Another site's page sent this.
    """
    check_origin(request)
    status, engine = _find(name), services.current().engine
    if not status.state.ended:
        off_loop(lambda: engine.stop(status.name, Reason.CANCELLED))
    return redirect(f"/builds/{status.name}", 303)


def check_origin(asked: Request) -> None:
    """Lets pass what our own pages send, and programs, which have no pages.

    Raises:
        PolicyError: Another site's page sent this.
    """
    site = asked.headers.get("Sec-Fetch-Site", "")
    origin = asked.headers.get("Origin", "")
    # (1) Every browser of today says where a request comes from, and no page can make it say something else.
    if site and site not in _OWN_SITES:
        raise PolicyError("This was sent by another site's page. Open the build's own page and try there.")
    # (2) An older one says at least whose page it was.
    if not site and origin and urlsplit(origin).netloc != asked.host:
        raise PolicyError("This was sent by another site's page. Open the build's own page and try there.")


def _find(name: str) -> BuildStatus:
    # Asked before the name reaches a path.
    attempts = click.current().attempts
    status = off_loop(lambda: attempts.find(BuildName(name))) if is_build_name(name) else None
    if status is None:
        raise NotFoundError("There is no build of this name.")
    return status


def _asked(job: Callable[[], Result | None], silent: list[ArgosyError]) -> Result | None:
    """What ledger or archive say; None where they do not answer, which `silent` gets: what is known is a page, too."""
    try:
        return off_loop(job)
    except TransientError as error:
        errors.log(error, "a build's page")
        silent.append(error)
        return None


def _argo_url(name: BuildName, settings: Settings) -> str:
    if settings.engine != "argo" or not settings.argo_ui_url:
        return ""
    return f"{settings.argo_ui_url.rstrip('/')}/workflows/{settings.builds_namespace}/{name}"


def _content(name: str, file: str, missing: str) -> bytes:
    status, known = _find(name), services.current()
    content = off_loop(lambda: _kept(status.name, file, known))
    if content is None:
        raise NotFoundError(missing)
    return content


def _kept(name: BuildName, file: str, known: Services) -> bytes | None:
    kept = known.engine.outputs(name).get(file) if known.engine.status(name) else None
    return kept if kept is not None else known.archive.get(archive.key(name, file))


def _text(lines: Iterator[LogLine], idle_seconds: float) -> Iterator[bytes]:
    step = ""
    # A running build's log blocks where it has no more, so it is read in a thread of its own.
    for batch in relay(lines, idle_seconds=idle_seconds, is_native=True):
        text: list[str] = []
        for line in batch:
            if line.step != step:
                step = line.step
                text.append(f"===== {step} =====\n")
            # A line of repo2docker is JSON: what it says is what people want to read.
            text.append(printable(event_of_line(line.text)["message"]).rstrip("\n") + "\n")
        if text:
            yield "".join(text).encode()
