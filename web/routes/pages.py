"""Home, the page that follows a click, badges, health and versions.

Source: ../shared/reference/binderhub.md 1.1, 1.5, 1.7.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import requires, version
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, request
from packaging.requirements import Requirement
from werkzeug.wrappers import Response as AnyResponse

from web import services
from web.clicks import click
from web.routes import address, follow
from web.routes.build import click_of
from web.routes.landing import landing_path
from web.services import Check
from workflows.errors import ArgosyError, SpecError
from workflows.providers import Provider, find

blueprint = Blueprint("pages", __name__)

HEALTH_SECONDS = 15
"""How long one look at the farm's health answers everybody who asks; BinderHub's 15."""

_HEALTH = "argosy.health"
_DAY_SECONDS = 86400
_PATH_KINDS = ("urlpath", "labpath", "filepath")


@blueprint.get("/")
def home() -> str:
    """The form that makes links."""
    known = services.current()
    return render_template("home.html", providers=_forms(known.providers), host=_host())


@blueprint.get("/v2")
def form() -> AnyResponse:
    """Sends whoever filled in the form to the page of that launch.

    Raises:
        SpecError: The form names no repository.
    """
    provider = find(services.current().providers, request.args.get("provider", ""))
    repository, ref = (request.args.get(name, "").strip() for name in ("repository", "ref"))
    if not repository:
        raise SpecError("The form names no repository. Fill it in.")
    spec = spec_of_form(provider, repository, ref)
    return redirect(f"/v2/{provider.name}/{spec}{_query(request.args)}")


@blueprint.get("/v2/<provider>/<any:spec>")
def launch(provider: str, spec: str) -> str | Response:
    """Follows a click until its server is ready; with ``?follow=1`` all in one page that needs no script.

    Raises:
        SpecError: No such provider, or a spec that cannot be one.
    """
    del provider, spec  # decoded by the router
    asked = click_of(request)
    kind = find(services.current().providers, asked.provider)
    parsed = kind.parse(asked.spec)
    title = f"{parsed.repo} ({parsed.ref})" if parsed.ref else parsed.repo
    if request.args.get("follow") == "1":
        # `follow.page` names the page's address, so that trying again needs no script either.
        events = click.current().events(asked)
        return follow.page(events, title=title, path=landing_path(request.args), again=_address(follow=False))
    return render_template(
        "launch.html",
        title=title,
        preview=f"{kind.display.name}: {asked.spec}",
        repo_url=parsed.repo_url,
        events=f"/build/{asked.provider}/{asked.spec}",
        path=landing_path(request.args),
        without_script=_address(follow=True),
        again=_address(follow=False),
    )


@blueprint.get("/repo/<owner>/<repository>/", defaults={"path": ""}, strict_slashes=False)
@blueprint.get("/repo/<owner>/<repository>/<any:path>")
def legacy(owner: str, repository: str, path: str) -> AnyResponse:
    """Sends links of Binder's first days to where they lead now."""
    query = f"?{urlencode({'urlpath': '/' + path.lstrip('/')})}" if path.strip("/") else ""
    return redirect(f"/v2/gh/{quote(owner, safe='')}/{quote(repository, safe='')}/master{query}")


@blueprint.get("/badge.svg")
@blueprint.get("/badge_logo.svg")
def badge() -> Response:
    """The badge of READMEs."""
    answer = current_app.send_static_file("badge_logo.svg")
    answer.cache_control.max_age = _DAY_SECONDS
    return answer


@blueprint.get("/health")
def health() -> tuple[Response, int]:
    """What the farm cannot do without, and whether it is there: 200 or 503."""
    checks = _checks()
    is_well = all(check["ok"] for check in checks)
    return jsonify(ok=is_well, checks=checks), HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE


@blueprint.get("/versions")
def versions() -> Response:
    """What builds images, and who answers."""
    builder = f"jupyter-repo2docker {_builder_version()}"
    ours = f"argosy {version('argosy')}"
    return jsonify(builder_info={"build_image": builder}, binderhub=ours, builder=builder)


def _builder_version() -> str:
    # As our own package pins it: web beside a cluster has nothing that builds.
    wanted = map(Requirement, requires("argosy") or ())
    (pin,) = next(each.specifier for each in wanted if each.name == "jupyter-repo2docker")
    return pin.version


def spec_of_form(provider: Provider, repository: str, ref: str) -> str:
    """The spec that a filled-in form stands for, percent-encoded."""
    display = provider.display
    if display.encodes_repo:
        repository = quote(repository, safe="")
    else:
        # The address of the page was pasted: what the host calls the repository is its path.
        path = repository.partition("://")[2].partition("/")[2] if "://" in repository else repository
        repository = quote(path.strip("/").removesuffix(".git"), safe="/")
    ref = ref or display.default_ref
    return f"{repository}/{quote(ref, safe='/')}" if ref else repository


def _forms(providers: Mapping[str, Provider]) -> list[dict[str, object]]:
    return [provider.display.to_json(name) for name, provider in providers.items()]


def _host() -> str:
    return address.launch_host(request, services.current().settings.public_url)


def _query(arguments: Mapping[str, str], **more: str) -> str:
    kept = {kind: arguments[kind] for kind in _PATH_KINDS if arguments.get(kind)} | more
    return f"?{urlencode(kept)}" if kept else ""


def _address(*, follow: bool) -> str:
    """This page's own address, with or without a script's help."""
    return address.raw_path(request.environ) + (_query(request.args, follow="1") if follow else _query(request.args))


def _checks() -> list[dict[str, object]]:
    cache = current_app.extensions.setdefault(_HEALTH, {})
    if time.monotonic() - cache.get("at", -HEALTH_SECONDS) >= HEALTH_SECONDS or not all(
        check["ok"] for check in cache["checks"]
    ):
        cache["checks"] = [_looked(name, check) for name, check in services.current().checks.items()]
        cache["at"] = time.monotonic()
    found: list[dict[str, object]] = cache["checks"]
    return found


def _looked(service: str, check: Check) -> dict[str, object]:
    try:
        check()
    except ArgosyError:
        return {"service": service, "ok": False}
    return {"service": service, "ok": True}
