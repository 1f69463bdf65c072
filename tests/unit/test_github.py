"""The provider ``gh`` against an API that is played at the wire."""

from __future__ import annotations

import base64
import time

import pytest
import requests
import responses

from workflows import providers
from workflows.errors import ConfigError, NotFoundError, RateLimitError, TransientError
from workflows.providers.flight import Flights
from workflows.settings import Settings

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
URL = "https://api.github.com/repos/o/r/commits/main"


@pytest.fixture
def api():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def github():
    return providers.create(Settings(not_found_cache_seconds=300))["gh"]


def patient(provider):
    """Shares no answer with those who ask in the same moment."""
    provider._flights = Flights(reuse_seconds=0)
    return provider


def test_a_ref_becomes_a_commit_and_all_that_follows_from_it(api, github):
    api.get(URL, body=SHA)
    repository = github.resolve("o/r.git/main")
    assert repository.commit == SHA
    assert repository.repo_url == repository.clone_url == "https://github.com/o/r"
    assert repository.ref_url == f"https://github.com/o/r/tree/{SHA}"
    assert repository.resolved_spec == f"o/r/{SHA}"
    assert (repository.slug, repository.owner, repository.ref) == ("o-r", "github.com/o", "main")
    assert repository.spec == "o/r.git/main"
    assert api.calls[0].request.headers["Accept"] == "application/vnd.github.sha"
    assert "Authorization" not in api.calls[0].request.headers


def test_the_whole_commit_as_json_is_understood_too(api, github):
    api.get(URL, json={"sha": SHA, "files": []})
    assert github.resolve("o/r/main").commit == SHA


@pytest.mark.parametrize("body", ["", "not a commit", "{", '{"sha": 1}', SHA + "0", "<html>"])
def test_an_answer_that_is_none_is_githubs_fault(api, github, body):
    api.get(URL, body=body)
    with pytest.raises(TransientError):
        github.resolve("o/r/main")


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("o/r/feature/x", "/repos/o/r/commits/feature/x"),
        ("o/r/feature%2Fx", "/repos/o/r/commits/feature/x"),
        ("o/r/%23issue%26x%3Dy", "/repos/o/r/commits/%23issue%26x%3Dy"),
        ("o/r/100%2525", "/repos/o/r/commits/100%2525"),
        ("o/r/s%C3%A9ance", "/repos/o/r/commits/s%C3%A9ance"),
    ],
)
def test_every_part_is_encoded_anew_in_the_path(api, github, spec, path):
    api.get(f"https://api.github.com{path}", body=SHA)
    assert github.resolve(spec).commit == SHA
    assert api.calls[0].request.path_url == path


def test_an_enterprise_server_is_asked_at_its_own_api(api):
    settings = Settings(github_hostname="git.corp.example", github_api_url="https://git.corp.example/api/v3/")
    api.get("https://git.corp.example/api/v3/repos/o/r/commits/main", body=SHA)
    repository = providers.create(settings)["gh"].resolve("o/r/main")
    assert repository.repo_url == "https://git.corp.example/o/r"
    assert repository.owner == "git.corp.example/o"


def test_an_answer_is_asked_again_with_its_etag_and_kept_while_it_holds(api, github):
    api.get(URL, body=SHA, headers={"ETag": '"first"'})
    api.add(responses.GET, URL, status=304)
    api.get(URL, body=OTHER, headers={"ETag": '"second"'})
    patient(github)
    assert [github.resolve("o/r/main").commit for _ in range(3)] == [SHA, SHA, OTHER]
    assert [call.request.headers.get("If-None-Match") for call in api.calls] == [None, '"first"', '"first"']


@pytest.mark.parametrize("status", [404, 422, 409, 451, 410, 403])
def test_what_does_not_exist_is_said_in_binderhubs_words_and_asked_once(api, github, status):
    api.get(URL, status=status, json={"message": "No commit found"})
    for _ in range(2):
        with pytest.raises(NotFoundError) as raised:
            patient(github).resolve("o/r/main")
        assert str(raised.value) == (
            "Could not resolve ref for gh:o/r/main. Double check your URL and that your repo is public."
        )
    assert len(api.calls) == 1


def test_what_did_not_exist_is_asked_again_when_it_is_forgotten(api):
    github = providers.create(Settings(not_found_cache_seconds=0))["gh"]
    api.get(URL, status=404)
    api.get(URL, body=SHA)
    with pytest.raises(NotFoundError):
        github.resolve("o/r/main")
    assert patient(github).resolve("o/r/main").commit == SHA


def in_seconds(seconds: float) -> dict[str, str]:
    return {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time() + seconds))}


@pytest.mark.parametrize(
    ("status", "headers", "minutes"),
    [
        (403, lambda: in_seconds(60), 5),
        (403, lambda: in_seconds(1000), 20),
        (403, lambda: in_seconds(-10), 5),
        (429, lambda: in_seconds(400), 10),
        (403, lambda: {"Retry-After": "30"}, 5),
        (429, lambda: {"Retry-After": "600"}, 15),
        (429, dict, 5),
    ],
)
def test_a_rate_limit_is_told_in_minutes(api, github, status, headers, minutes):
    api.get(URL, status=status, headers=headers())
    with pytest.raises(RateLimitError) as raised:
        github.resolve("o/r/main")
    assert str(raised.value) == (
        f"Error resolving ref for gh:o/r/main: GitHub rate limit exceeded. Try again in {minutes} minutes."
    )


def test_a_limit_that_only_the_text_tells_is_one_too(api, github):
    api.get(URL, status=403, json={"message": "You have exceeded a secondary rate limit."})
    with pytest.raises(RateLimitError, match="Try again in 5 minutes"):
        github.resolve("o/r/main")


def test_nobody_is_asked_while_the_limit_holds(api, github):
    api.get(URL, status=429, headers={"Retry-After": "600"})
    with pytest.raises(RateLimitError):
        github.resolve("o/r/main")
    with pytest.raises(RateLimitError, match="gh:o/q/v1"):
        github.resolve("o/q/v1")
    assert len(api.calls) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_fault_of_github_is_transient(api, github, status):
    api.get(URL, status=status)
    with pytest.raises(TransientError, match=f"Error resolving ref for gh:o/r/main: .*{status}"):
        github.resolve("o/r/main")


@pytest.mark.parametrize("error", [requests.ConnectionError("no route"), requests.Timeout("slow")])
def test_a_github_that_does_not_answer_is_transient(api, github, error):
    api.get(URL, body=error)
    with pytest.raises(TransientError, match="cannot be reached") as raised:
        github.resolve("o/r/main")
    assert str(error) in raised.value.detail
    assert str(error) not in str(raised.value)


def test_the_token_goes_to_the_api_and_to_git_and_nowhere_else(api, tmp_path):
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    github = providers.create(Settings(github_token_file=file))["gh"]
    api.get(URL, status=500, body="t0ken?")
    with pytest.raises(TransientError) as raised:
        github.resolve("o/r/main")
    assert api.calls[0].request.headers["Authorization"] == "Bearer t0ken"
    assert "t0ken" not in str(raised.value)

    (credentials,) = providers.credentials([github])
    assert credentials.url == "https://github.com/"
    kind, _, pair = credentials.header.get_secret_value().removeprefix("Authorization: ").partition(" ")
    assert (kind, base64.b64decode(pair)) == ("Basic", b"x-access-token:t0ken")
    assert pair not in repr(credentials)


def test_without_a_token_git_needs_no_credentials():
    assert providers.credentials(providers.create(Settings()).values()) == ()


def test_a_token_that_github_does_not_know_is_the_farms_fault(api, github):
    api.get(URL, status=401, json={"message": "Bad credentials"})
    with pytest.raises(ConfigError) as raised:
        github.resolve("o/r/main")
    assert "token" not in str(raised.value)


def test_master_falls_back_to_head_in_binderhubs_words(github):
    fallback = github.fallback("o/r/master")
    assert fallback.spec == "o/r/HEAD"
    assert fallback.message == (
        "Could not resolve ref for gh:o/r/master. Double check your URL and that your repo is public. "
        'GitHub has changed default branches from "master" to "main". '
        "Tip: HEAD will always resolve to a repository's default branch.\n"
        "Trying again with HEAD instead of master. Please update your links.\n"
    )


def test_main_falls_back_to_head_and_other_refs_do_not(github):
    assert "GitHub has changed" not in github.fallback("o/r/main").message
    assert github.fallback("o/r/main").spec == "o/r/HEAD"
    assert github.fallback("o/r/HEAD") is None
    assert github.fallback("o/r/v1") is None
