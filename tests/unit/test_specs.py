"""What may stand in a link, and what is refused: nothing here asks a host."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from workflows import providers
from workflows.errors import NotFoundError, SpecError
from workflows.repo import MAX_SPEC_LENGTH, Repository, check_ref, check_spec, check_url, owner_of
from workflows.settings import Settings

PROVIDERS = providers.create(Settings())
PROTOCOLS = ("https", "http", "ssh", "git")
URL = quote("https://git.example.org/o/r", safe="")

# Each stands at the place of a ref, and again percent-encoded once and twice.
HOSTILE_REFS = {
    "an option": "--upload-pack=touch /tmp/x",
    "a short option": "-oProxyCommand=id",
    "a traversal": "../../../etc/passwd",
    "a traversal inside": "a/../../b",
    "a hidden name": "a/.git",
    "a line feed": "main\nHost: evil",
    "CRLF": "main\r\nSet-Cookie: a=b",
    "a NUL": "main\x00.txt",
    "an escape sequence": "\x1b[2J",
    "a delete": "main\x7f",
    "a C1 control": "main\x9b31m",
    "a tab": "ma\tin",
    "a space": "ma in",
    "a shell's words": "$(touch /tmp/x)`id`;|&",
    "a pattern": "*",
    "a question mark": "mai?",
    "a bracket": "[a-z]ain",
    "a reflog": "main@{1}",
    "an ancestor": "main~1",
    "a caret": "main^{commit}",
    "a refspec": "main:refs/heads/x",
    "a lock": "main.lock",
    "a dot at the end": "main.",
    "a backslash": "a\\b",
    "a quote": '"main"',
    "markup": "<script>alert(1)</script>",
    "an em space": "ma\u2003in",
    "a line separator": "ma\u2028in",
    "a turned direction": "\u202eniam",
    "a zero width": "ma\u200bin",
    "a full-width slash": "a\uff0f..\uff0fb",
    "full-width dots": "\uff0e\uff0e",
    "a ligature": "\ufb01x",
    "half a character": "\udcff",
}

HOSTILE_SPECS = {
    "nothing": "",
    "slashes": "///",
    "10 kB": "a/b/" + "c" * 10_000,
    "10 kB of owner": "a" * 10_000 + "/b/c",
    "10 kB of escapes": "a/b/" + "%41" * 3_400,
    "an escape cut short": "o/r/main%",
    "an escape that is none": "o/r/%zz",
    "bytes that are no text": "o/r/%ff%fe",
    "an overlong slash": "o/r/%c0%af",
    "a surrogate": "o/r/%ed%a0%80",
}

HOSTILE_URLS = {
    "a program": "ext::sh -c id",
    "a program with slashes": "ext::sh://x/y",
    "a program by protocol": "ext://sh/y",
    "a file descriptor": "fd::17",
    "a file": "file:///etc/passwd",
    "a path": "/etc/passwd",
    "a path upwards": "../../etc",
    "a name": "repo",
    "an option": "--upload-pack=id",
    "an option as host": "ssh://-oProxyCommand=id/x",
    "an option as user": "ssh://-oProxyCommand=id@host/x",
    "an option as short host": "user@-oProxyCommand=id:x",
    "an option as short user": "-oProxyCommand=id@host:x",
    "another protocol": "ftp://host/o/r",
    "another protocol and a password": "ftp://name:secret@host/o/r",
    "capitals": "HTTPS://host/o/r",
    "a name and a password": "https://name:secret@host/o/r",
    "a name alone": "https://name@host/o/r",
    "an empty name": "https://@host/o/r",
    "a password for ssh": "ssh://git:secret@host/o/r",
    "another host behind the first": "https://github.com:80@evil.example/o/r",
    "a backslash for a host": "https://github.com\\@evil.example/o/r",
    "no host": "https:///o/r",
    "no path": "https://host",
    "an empty path": "https://host/",
    "a traversal": "https://host/o/../../r",
    "an encoded traversal": "https://host/o/%2e%2e/r",
    "a query": "https://host/o/r?x=y",
    "a fragment": "https://host/o/r#x",
    "a space": "https://host/o/r r",
    "a line feed": "https://host/o\n/r",
    "an encoded line feed": "https://host%0a/o/r",
    "a twice encoded line feed": "https://host%250d%250a/o/r",
    "a NUL": "https://host/o/r\x00",
    "a shell's words": "https://host/$(id)`id`|x",
    "a Cyrillic letter": "https://gith\u0443b.com/o/r",
    "a full-width dot": "https://github\uff0ecom/o/r",
    "a soft hyphen": "https://git\u00adhub.com/o/r",
    "letters in a port": "https://host:80a/o/r",
    "a long port": "https://host:8000000/o/r",
    "an escape that is none": "https://host/o/r%zz",
    "two addresses": "https://host/o/r https://host/o/q",
}

HOSTILE_OWNERS = {
    "an option": "-o/r",
    "dots for an owner": "../r",
    "dots for a repository": "o/..",
    "a dot": "o/.",
    "nothing but .git": "o/.git",
    "a dotted owner": "o.w/r",
    "an owner too long": "o" * 40 + "/r",
    "a repository too long": "o/" + "r" * 101,
    "a slash in the owner": "o%2Fx/r",
    "a slash in the repository": "o/r%2F..%2Fx",
    "a question mark": "o/r%3Fx=y",
    "a fragment": "o/r%23",
    "CRLF": "o%0D%0A/r",
    "a NUL": "o/r%00",
    "an at sign": "o@evil/r",
    "a Cyrillic letter": "%D0%BE/r",
    "a Cyrillic letter as it is": "\u043e/r",
    "a full-width letter": "%EF%BD%8F/r",
}


def variants(text: str) -> list[str]:
    try:
        once = quote(text, safe="")
    except UnicodeEncodeError:
        return [text]
    return [text, once, quote(once, safe="")]


def refused(provider: str, spec: str) -> str:
    """The sentence with which a spec is refused; it must be one that is fit for a log and a page."""
    with pytest.raises(SpecError) as raised:
        PROVIDERS[provider].parse(spec)
    sentence = str(raised.value)
    assert sentence.isprintable()
    assert len(sentence) < MAX_SPEC_LENGTH + 300
    assert "secret" not in sentence
    return sentence


@pytest.mark.parametrize("provider", ["gh", "git"])
@pytest.mark.parametrize("ref", HOSTILE_REFS.values(), ids=HOSTILE_REFS)
def test_a_hostile_ref_is_refused(provider, ref):
    before = {"gh": "o/r/", "git": URL + "/"}[provider]
    refused(provider, before + ref)
    if quote(ref, safe="", errors="surrogateescape") != ref:
        refused(provider, before + quote(ref, safe="", errors="surrogateescape"))


@pytest.mark.parametrize("provider", ["gh", "git"])
@pytest.mark.parametrize("ref", [ref for ref in HOSTILE_REFS.values() if set(ref) & set(map(chr, range(32)))])
def test_a_control_character_is_refused_however_often_it_is_encoded(provider, ref):
    before = {"gh": "o/r/", "git": URL + "/"}[provider]
    for _ in range(4):
        ref = quote(ref, safe="")
        refused(provider, before + ref)


@pytest.mark.parametrize("provider", ["gh", "git"])
@pytest.mark.parametrize("spec", HOSTILE_SPECS.values(), ids=HOSTILE_SPECS)
def test_a_spec_that_is_none_is_refused(provider, spec):
    refused(provider, spec if provider == "gh" else spec.replace("o/r", URL))


@pytest.mark.parametrize("url", HOSTILE_URLS.values(), ids=HOSTILE_URLS)
def test_a_hostile_address_is_refused(url):
    with pytest.raises(SpecError):
        check_url(url, PROTOCOLS)
    for variant in variants(url):
        refused("git", f"{variant}/main")


@pytest.mark.parametrize("path", HOSTILE_OWNERS.values(), ids=HOSTILE_OWNERS)
def test_a_hostile_owner_or_repository_is_refused(path):
    refused("gh", f"{path}/main")


def test_a_long_hostile_address_is_not_repeated_whole():
    assert len(refused("git", quote("x" * 1000 + "://h/p", safe="") + "/main")) < 700


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("x", 'Spec is not of the form "user/repo/ref", provided: "x".'),
        ("x/y", 'Spec is not of the form "user/repo/ref", provided: "x/y". Did you mean "x/y/HEAD"?'),
        ("x/y/", 'Spec is not of the form "user/repo/ref", provided: "x/y". Did you mean "x/y/HEAD"?'),
        ("x/main", 'Spec is not of the form "user/repo/ref", provided: "x/main".'),
        ("x/master", 'Spec is not of the form "user/repo/ref", provided: "x/master".'),
        ("x/HEAD", 'Spec is not of the form "user/repo/ref", provided: "x/HEAD".'),
        ("x//main", 'Spec is not of the form "user/repo/ref", provided: "x//main".'),
    ],
)
def test_gh_says_what_is_missing_as_binderhub_does(spec, sentence):
    assert refused("gh", spec) == sentence


def test_git_says_that_the_ref_is_missing():
    assert f'Spec is not of the form "url/ref", provided: "{URL}".' in refused("git", URL)
    assert "Percent-encode" in refused("git", "https://git.example.org/o/r/main")


def test_git_refuses_a_protocol_as_binderhub_does():
    sentence = refused("git", quote("ftp://h/o/r", safe="") + "/main")
    assert sentence == "Unsupported git url ftp://h/o/r, protocol ftp not in https, http, ssh, git"


def test_the_operator_chooses_the_protocols():
    only_https = providers.create(Settings(git_protocols=("https",)))["git"]
    assert only_https.parse(f"{URL}/main").repo == "https://git.example.org/o/r"
    for url in ("http://h/o/r", "git://h/o/r", "ssh://git@h/o/r", "git@h:o/r"):
        with pytest.raises(SpecError, match=r"not in https$"):
            only_https.parse(quote(url, safe="") + "/main")


@pytest.mark.parametrize(
    ("spec", "repo", "ref"),
    [
        ("binder-examples/requirements/HEAD", "binder-examples/requirements", "HEAD"),
        ("o/r.git/main", "o/r", "main"),
        ("o/r/feature/x", "o/r", "feature/x"),
        ("o/r/feature%2Fx", "o/r", "feature/x"),
        ("o/r/v1.0+build_2/", "o/r", "v1.0+build_2"),
        ("o/r/s%C3%A9ance-1", "o/r", "séance-1"),
        ("O_corp/R-1.2_x/%23issue@home", "O_corp/R-1.2_x", "#issue@home"),
    ],
)
def test_gh_reads_what_github_allows(spec, repo, ref):
    parts = PROVIDERS["gh"].parse(spec)
    assert (parts.repo, parts.ref) == (repo, ref)
    assert parts.repo_url == f"https://github.com/{repo}"
    assert parts.owner == f"github.com/{repo.split('/')[0].lower()}"


@pytest.mark.parametrize(
    ("address", "url", "owner"),
    [
        ("https://github.com/O/r", "https://github.com/O/r", "github.com/o"),
        ("http://127.0.0.1:4000/o/r.git", "http://127.0.0.1:4000/o/r.git", "127.0.0.1:4000/o"),
        ("http://[::1]:4000/o/r", "http://[::1]:4000/o/r", "[::1]:4000/o"),
        ("git://h.example/~me/r", "git://h.example/~me/r", "h.example/~me"),
        ("git@github.com:o/r.git", "ssh://git@github.com/o/r.git", "github.com/o"),
        ("ssh://git@h.example:2222/o/r", "ssh://git@h.example:2222/o/r", "h.example:2222/o"),
        ("https://h/g/sub-group/-/r%20r", "https://h/g/sub-group/-/r%20r", "h/g"),
        ("https://xn--bcher-kva.example/r", "https://xn--bcher-kva.example/r", "xn--bcher-kva.example/r"),
    ],
)
def test_git_reads_every_address_that_is_one(address, url, owner):
    parts = PROVIDERS["git"].parse(quote(address, safe="") + "/feature/x")
    assert (parts.repo, parts.ref, parts.owner) == (url, "feature/x", owner)
    assert owner_of(url) == owner


def test_one_owner_is_the_same_through_both_providers():
    through_git = PROVIDERS["git"].parse(quote("https://github.com/Somebody/r", safe="") + "/main")
    assert through_git.owner == PROVIDERS["gh"].parse("Somebody/r/main").owner


@pytest.mark.parametrize("name", ["nope", "GH", "gl"])
def test_an_unknown_provider_is_said_as_binderhub_says_it(name):
    with pytest.raises(SpecError) as raised:
        providers.find(PROVIDERS, name)
    assert str(raised.value) == f"No provider found for prefix {name}"


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "x" * 10_000, "<b>", "é"])
def test_a_hostile_provider_is_not_repeated(name):
    with pytest.raises(SpecError) as raised:
        providers.find(PROVIDERS, name)
    assert str(raised.value) == "No provider found for prefix in this link"


def test_a_known_provider_is_found():
    assert providers.find(PROVIDERS, "gh") is PROVIDERS["gh"]
    assert [provider.name for provider in PROVIDERS.values()] == list(PROVIDERS) == ["gh", "git"]


def test_forms_are_told_of_providers_as_binderhub_tells_them():
    gh, git = (provider.display.to_json(name) for name, provider in PROVIDERS.items())
    assert gh == {
        "displayName": "GitHub",
        "id": "gh",
        "spec": {"validateRegex": "[^/]+/[^/]+/.+"},
        "detect": {"regex": "^(https?://github.com/)?(?<repo>.*[^/])/?"},
        "repo": {
            "label": "GitHub repository name or URL",
            "placeholder": "example: yuvipanda/requirements or https://github.com/yuvipanda/requirements",
        },
        "ref": {"enabled": True, "default": "HEAD"},
    }
    assert git["repo"]["urlEncode"] is True
    assert "detect" not in git


def test_a_spec_error_is_a_repository_that_cannot_be_found():
    assert issubclass(SpecError, NotFoundError)
    assert SpecError().reason == "not-found"


def test_a_spec_that_is_fine_stays_as_it_is():
    assert check_spec("o/r/main") == "o/r/main"
    assert check_ref("refs/heads/main") == "refs/heads/main"


def test_a_repository_has_a_title_for_people():
    commit = PROVIDERS["git"].resolve(f"{URL}/{'A' * 40}")
    assert isinstance(commit, Repository)
    assert commit.title == "o/r @ aaaaaaa"


def test_git_uses_a_whole_commit_as_it_is():
    repository = PROVIDERS["git"].resolve(f"{URL}/{'A' * 40}")
    assert repository.commit == "a" * 40
    assert repository.resolved_spec == f"{URL}/{'a' * 40}"
    assert repository.slug == repository.repo_url == repository.ref_url == "https://git.example.org/o/r"
