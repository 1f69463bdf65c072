"""Pages: each under the policy, each without a script, each error in one shape."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import cast

import pytest

from tests.integration.farm import COMMIT, EVENT_STREAM, SPEC, TOKEN, URL, Farm, Stream, eventually
from web.app import create_app
from web.ledger import FindingRecord, Ledger
from web.recording import archive
from workflows.build import State
from workflows.errors import Reason, TransientError
from workflows.image import BuildName
from workflows.pipeline import STEPS
from workflows.scan.verdict import Outcome

README = Path(__file__).parents[2] / "web" / "README.md"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path)
    yield made
    made.close()


@pytest.fixture
def failed(farm: Farm) -> BuildName:
    """A build that failed, whose log is in the archive."""
    stream = Stream(farm)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "fetch", "Cloning")
    farm.engine.say(name, "build", '{"message": "<script>alert(1)</script>\\n"}', "\x1b[31mred\x1b[0m")
    farm.engine.end(name, Reason.BUILD)
    stream.end()
    eventually(lambda: (record := farm.ledger.build(name)) and record.recorded)
    return name


PAGES = ["/", f"/v2/gh/{SPEC}", f"/v2/gh/{SPEC}?follow=1", "/nowhere", "/v2/gh/x", "/builds/build-x-1234567-12345678"]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_under_the_policy_and_has_nothing_inline(farm: Farm, path: str) -> None:
    farm.add_image()
    answer = farm.client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    page = answer.get_data(as_text=True)
    assert answer.content_type == "text/html; charset=utf-8"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert page.rstrip().endswith("</html>")


def test_the_form_works_without_a_script(farm: Farm) -> None:
    page = farm.client.get("/").get_data(as_text=True)
    assert '<form action="/v2" method="get"' in page
    filled = {"provider": "gh", "repository": "https://github.com/a/b.git", "ref": "", "urlpath": "lab"}
    answer = farm.client.get("/v2", query_string=filled)
    assert (answer.status_code, answer.location) == (302, "/v2/gh/a/b/HEAD?urlpath=lab")
    assert farm.client.get("/v2", query_string={"provider": "gh"}).status_code == 400
    assert farm.client.get("/v2", query_string={"provider": "nope", "repository": "x"}).status_code == 400


def test_the_launch_page_launches_nothing_by_itself(farm: Farm) -> None:
    farm.add_image()
    page = farm.client.get(f"/v2/gh/{SPEC}?labpath=a b.ipynb").get_data(as_text=True)
    assert f'data-events="/build/gh/{SPEC}"' in page
    assert 'data-path="doc/tree/a%20b.ipynb"' in page
    assert f"url=/v2/gh/{SPEC}?labpath=a+b.ipynb&amp;follow=1" in page
    assert farm.launcher.visitors == []


def test_without_a_script_one_page_shows_the_log_and_leads_to_the_server(farm: Farm) -> None:
    stream = Stream(farm, f"gh/{SPEC}?build_only=true")
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "<script>alert(1)</script>", "\x1b[31mred\x1b[0m")
    farm.publish(name)
    # The image is known by now; a follower of the build would read the same page line by line.
    answer = farm.client.get(f"/v2/gh/{SPEC}?follow=1&urlpath=/lab/tree/x", headers={"Last-Event-ID": "1.1.1"})
    page = answer.get_data(as_text=True)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert '<li class="building">red</li>' in page
    target = f"{URL}lab/tree/x?token={TOKEN}"
    assert f'<meta http-equiv="refresh" content="1; url={target}">' in page
    assert f'<a href="{target}">' in page
    assert answer.headers["Cache-Control"] == "no-store"
    stream.end()
    farm.engine.end(name)


def test_without_a_script_a_failure_names_its_reason_and_offers_another_try(farm: Farm, failed: BuildName) -> None:
    page = farm.client.get(f"/v2/gh/{SPEC}?follow=1").get_data(as_text=True)
    assert "Failed (build)" in page
    assert f'<form method="post" action="/builds/{failed}/retry">' in page
    assert f'<a href="/builds/{failed}/log">' in page


def test_a_builds_page_tells_its_state_reason_and_findings(farm: Farm, failed: BuildName) -> None:
    finding = FindingRecord(vulnerability="CVE-2026-1", severity="high", package="left-pad", version="1", fixed="2")
    farm.ledger.record_findings(failed, verdict="findings", counts={"high": 1}, findings=[finding])
    page = farm.client.get(f"/builds/{failed}").get_data(as_text=True)
    assert "failed (build)" in re.sub(r"\s+", " ", page)
    assert "CVE-2026-1" in page
    assert "left-pad 1" in page
    assert f'action="/builds/{failed}/retry"' in page
    assert COMMIT in page


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.PASS, "nothing is known against"),
        (Outcome.FINDINGS, "there are known vulnerabilities"),
        (Outcome.REFUSED, "the rules of this service refuse"),
        (Outcome.STALE_DATABASE, "the vulnerability database is too old"),
        (Outcome.NO_DATABASE, "Not scanned: no vulnerability database. Whoever runs this service"),
        (Outcome.NOT_YET, "Not scanned yet: the scanner is still being installed."),
    ],
)
def test_a_builds_page_says_what_a_verdict_means(farm: Farm, failed: BuildName, outcome: Outcome, said: str) -> None:
    farm.ledger.record_findings(failed, verdict=outcome.value, counts={}, findings=[])
    page = farm.client.get(f"/builds/{failed}").get_data(as_text=True)
    assert said in page
    assert f": {outcome.value}" not in page


class Away:
    """A ledger that does not answer."""

    def build(self, name: BuildName) -> None:
        raise TransientError(detail="the ledger does not answer")


def test_a_builds_page_says_what_the_engine_knows_where_the_ledger_does_not_answer(farm: Farm) -> None:
    stream = Stream(farm)
    name = farm.build().name
    farm.engine.admit(name)
    away = create_app(dataclasses.replace(farm.services, ledger=cast("Ledger", Away())))
    answer = away.test_client().get(f"/builds/{name}")
    page = answer.get_data(as_text=True)
    assert (answer.status_code, "running" in page, COMMIT in page) == (200, True, True)
    assert "records do not answer" in page
    assert "records do not answer" not in farm.client.get(f"/builds/{name}").get_data(as_text=True)
    farm.engine.end(name, Reason.CANCELLED)
    stream.end()


def test_a_finished_log_is_text_without_what_drives_a_terminal(farm: Farm, failed: BuildName) -> None:
    farm.engine.forget(failed)
    answer = farm.client.get(f"/builds/{failed}/log")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.get_data(as_text=True) == (
        "===== fetch =====\nCloning\n===== build =====\n<script>alert(1)</script>\nred\n"
    )


def test_a_running_builds_log_is_streamed(farm: Farm) -> None:
    Stream(farm)
    name = farm.build().name
    farm.engine.admit(name)
    farm.engine.say(name, "build", "one")
    pieces = iter(farm.client.get(f"/builds/{name}/log", buffered=False).response)
    assert next(pieces) == b"===== build =====\none\n"
    farm.engine.say(name, "build", "two")
    assert next(pieces) == b"two\n"
    farm.engine.end(name, Reason.CANCELLED)
    assert list(pieces) == []


def test_sbom_and_findings_come_from_the_engine_and_then_from_the_archive(farm: Farm, failed: BuildName) -> None:
    assert farm.client.get(f"/builds/{failed}/sbom").status_code == 404
    farm.engine.files[failed] = {archive.SBOM: b'{"bomFormat": "CycloneDX"}', archive.FINDINGS: b'{"verdict": "pass"}'}
    assert farm.client.get(f"/builds/{failed}/sbom").get_json(force=True) == {"bomFormat": "CycloneDX"}
    assert farm.client.get(f"/builds/{failed}/findings").get_json() == {"verdict": "pass"}


def test_a_running_build_is_cancelled_by_its_page_alone(farm: Farm) -> None:
    stream = Stream(farm)
    name = farm.build().name
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.test"}):
        assert farm.client.post(f"/builds/{name}/cancel", headers=headers).status_code == 403
        assert farm.client.post(f"/builds/{name}/retry", headers=headers).status_code == 403
    assert farm.client.get(f"/builds/{name}/cancel").status_code == 405
    assert farm.engine.builds[name].state is State.QUEUED
    answer = farm.client.post(f"/builds/{name}/cancel", headers={"Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.location) == (303, f"/builds/{name}")
    assert stream.end().events[-1]["reason"] == "cancelled"


def test_badges_are_images(farm: Farm) -> None:
    for path in ("/badge.svg", "/badge_logo.svg"):
        with farm.client.get(path) as answer:
            assert answer.content_type.startswith("image/svg+xml")
            assert b"<svg" in answer.data


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/repo/a/b", "/v2/gh/a/b/master"),
        ("/repo/a/b/", "/v2/gh/a/b/master"),
        ("/repo/a/b/lab/x", "/v2/gh/a/b/master?urlpath=%2Flab%2Fx"),
    ],
)
def test_links_of_the_first_days_lead_where_they_should(farm: Farm, path: str, location: str) -> None:
    answer = farm.client.get(path)
    assert (answer.status_code, answer.location) == (302, location)


def test_health_and_versions_have_binderhubs_shape(farm: Farm) -> None:
    def away() -> None:
        raise TransientError(detail="secret")

    farm.services.checks.update({"JupyterHub API": lambda: None})  # type: ignore[attr-defined]
    answer = farm.client.get("/health")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"ok": True, "checks": [{"service": "JupyterHub API", "ok": True}]},
    )
    farm.app.extensions.pop("argosy.health")
    farm.services.checks.update({"Image store": away})  # type: ignore[attr-defined]
    answer = farm.client.get("/health")
    assert answer.status_code == 503
    assert answer.get_json()["checks"][-1] == {"service": "Image store", "ok": False}
    versions = farm.client.get("/versions").get_json()
    assert list(versions) == ["builder_info", "binderhub", "builder"]
    assert versions["builder"] == f"jupyter-repo2docker {version('jupyter-repo2docker')}"


def test_errors_for_programs_have_one_shape(farm: Farm) -> None:
    answers = [
        farm.client.get("/builds/build-x-1234567-12345678/findings"),
        farm.client.get("/builds/nonsense/sbom"),
        farm.client.get("/nowhere", headers={"Accept": "application/json"}),
        farm.client.post("/health"),
    ]
    for answer in answers:
        assert answer.status_code in {404, 405}
        assert set(answer.get_json()["error"]) == {"status", "reason", "message"}
        assert answer.get_json()["error"]["status"] == answer.status_code


@pytest.mark.parametrize("accept", ["text/event-stream", "Text/Event-Stream;q=0.9", "text/event-stream, */*"])
def test_who_names_the_event_stream_is_answered(farm: Farm, accept: str) -> None:
    farm.add_image()
    answer = farm.client.get(f"/build/gh/{SPEC}", headers={"Accept": accept})
    assert b'"phase": "ready"' in answer.data
    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_who_does_not_is_told_with_status_200(farm: Farm) -> None:
    answer = farm.client.get(f"/build/gh/{SPEC}", headers={"Accept": "*/*"})
    assert answer.status_code == 200
    event = json.loads(answer.data.partition(b"data: ")[2])
    assert list(event)[:3] == ["phase", "status_code", "message"]
    assert event["status_code"] == 400
    assert event["message"] == "Missing Accept header: text/event-stream\n"
    wrong = farm.client.post(f"/build/gh/{SPEC}", headers=EVENT_STREAM)
    assert (wrong.status_code, json.loads(wrong.data.partition(b"data: ")[2])["status_code"]) == (200, 405)


HOSTILE = {
    "CRLF": "gh/o/r/main%0d%0aSet-Cookie:%20a=b",
    "newline": "gh/o/r/ma%0Ain",
    "NUL": "gh/o/r/main%00",
    "twice encoded NUL": "gh/o/r/main%2500",
    "traversal": "gh/../../etc/passwd",
    "encoded traversal": "gh/o/%2e%2e/main",
    "traversal in the ref": "gh/o/r/..%2f..%2fetc",
    "option": "gh/o/r/--upload-pack=x",
    "10 kB": "gh/o/r/" + "a" * 10_000,
    "look-alike": "gh/\u043eo/r/main",  # a Cyrillic o
    "encoded look-alike": "gh/%D0%BEo/r/main",
    "quotes": "gh/o/r/%22%3E%3Cscript%3E",
    "no UTF-8": "gh/o/r/%ff%fe",
    "nothing": "gh/%20",
    "slashes": "gh////",
}


@pytest.mark.parametrize("spec", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_spec_is_refused_in_words(farm: Farm, spec: str) -> None:
    answer = farm.client.get(f"/build/{spec}", headers=EVENT_STREAM)
    assert answer.status_code == 200
    assert answer.data.count(b"data: ") == 1
    event = json.loads(answer.data.partition(b"data: ")[2])
    assert event["phase"] == "failed"
    assert event["reason"] == "not-found"
    assert len(event["message"]) < 400
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", event["message"])
    assert "Set-Cookie" not in answer.headers
    page = farm.client.get(f"/v2/{spec}")
    assert page.status_code in {400, 404}
    assert b"<script>" not in page.data
    assert farm.engine.builds == {}


def test_an_encoded_address_survives_as_it_was_asked_for(farm: Farm) -> None:
    asked: list[str] = []
    farm.provider.resolve = lambda spec: asked.append(spec) or 1 / 0  # type: ignore[method-assign,assignment,func-returns-value,return-value]
    for spec in ("https%3A%2F%2Fhost%2Fa%2Fb/main", "https://host//a/main", "a/b/feature%2Fx", "a/b/main/"):
        farm.client.get(f"/build/gh/{spec}", headers=EVENT_STREAM).get_data()
    assert asked == ["https%3A%2F%2Fhost%2Fa%2Fb/main", "https://host//a/main", "a/b/feature%2Fx", "a/b/main"]


def test_the_readme_names_every_route_and_every_phase(farm: Farm) -> None:
    text = README.read_text()
    for rule in farm.app.url_map.iter_rules():
        shown = re.sub(r"<(?:any:|path:)?([a-z]+)>", r"<\1>", rule.rule)
        assert f"`{shown}`" in text, f"{shown} is not in web/README.md"
    for phase in ("waiting", "fetching", "building", "pushing", "built", "launching", "ready", "failed", "unknown"):
        assert f"`{phase}`" in text
    for step in STEPS:
        assert f"`{step.name}`" in text
