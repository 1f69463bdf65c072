"""How a registry is asked: credentials, tokens, and what its refusals mean. The registry is faked at the wire."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import requests
import responses

from workflows.errors import BuildError, ConfigError, InternalError, RateLimitError, TransientError
from workflows.image import ImageDigest, ImageName
from workflows.registry.credentials import credentials
from workflows.registry.store import RegistryStore
from workflows.settings import Settings
from workflows.stores.skopeo import _error, _readable

DIGEST = ImageDigest("sha256:" + "a" * 64)
IMAGE = ImageName("registry.test/project/demo:1a2b3c4")
MANIFEST = "https://registry.test/v2/project/demo/manifests/1a2b3c4"
REALM = "https://auth.test/token"
CHALLENGE = {"WWW-Authenticate": f'Bearer realm="{REALM}",service="registry.test",scope="ignored"'}


@pytest.fixture
def wire():
    with responses.RequestsMock() as mock:
        yield mock


def auth_file(folder: Path, **auths: str) -> Path:
    path = folder / "auth.json"
    encoded = {key: {"auth": base64.b64encode(pair.encode()).decode()} for key, pair in auths.items()}
    path.write_text(json.dumps({"auths": encoded}))
    return path


def store(folder: Path, **auths: str) -> RegistryStore:
    file = auth_file(folder, **auths) if auths else None
    return RegistryStore(Settings(state=folder, image_store="registry", registry_auth_file=file))


def test_the_digest_is_the_registrys(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, headers={"Docker-Content-Digest": DIGEST})
    assert store(tmp_path).digest(IMAGE) == DIGEST
    assert "application/vnd.oci.image.index.v1+json" in wire.calls[0].request.headers["Accept"]


def test_a_registry_that_does_not_say_the_digest_has_it_computed(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST)
    wire.get(MANIFEST, body=b"{}")
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert store(tmp_path).digest(IMAGE) == digest


def test_an_absent_image_has_no_digest_and_removing_it_does_nothing(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, status=404)
    assert store(tmp_path).digest(IMAGE) is None
    store(tmp_path).remove(IMAGE)


def test_a_token_is_fetched_with_our_credentials_and_kept(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, status=401, headers=CHALLENGE)
    wire.get(REALM, json={"token": "t0ken"})
    wire.head(MANIFEST, headers={"Docker-Content-Digest": DIGEST})
    wire.head(MANIFEST, headers={"Docker-Content-Digest": DIGEST})
    registry = store(tmp_path, **{"registry.test": "user:secret"})
    assert registry.digest(IMAGE) == DIGEST
    assert registry.digest(IMAGE) == DIGEST
    token_request = wire.calls[1].request
    assert token_request.headers["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    assert token_request.params == {"service": "registry.test", "scope": "repository:project/demo:pull"}
    assert [call.request.headers.get("Authorization") for call in wire.calls][2:] == ["Bearer t0ken"] * 2


def test_basic_authentication_is_answered(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    wire.head(MANIFEST, headers={"Docker-Content-Digest": DIGEST})
    assert store(tmp_path, **{"registry.test": "user:se:cret"}).digest(IMAGE) == DIGEST
    sent = wire.calls[1].request.headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"user:se:cret"


def test_nobodys_netrc_is_used(wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine registry.test login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wire.head(MANIFEST, headers={"Docker-Content-Digest": DIGEST})
    store(tmp_path).digest(IMAGE)
    assert "Authorization" not in wire.calls[0].request.headers


def test_a_password_goes_to_no_plain_realm(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, status=401, headers={"WWW-Authenticate": 'Bearer realm="http://auth.test/token"'})
    with pytest.raises(ConfigError):
        store(tmp_path, **{"registry.test": "user:secret"}).digest(IMAGE)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, ConfigError), (405, ConfigError), (429, RateLimitError), (500, TransientError), (503, TransientError)],
)
def test_a_refusal_is_the_operators_and_a_failure_passes(wire, tmp_path: Path, status: int, error: type) -> None:
    wire.head(MANIFEST, status=status)
    with pytest.raises(error):
        store(tmp_path).digest(IMAGE)


def test_credentials_that_are_refused_are_the_operators(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, status=401, headers=CHALLENGE)
    wire.get(REALM, status=401)
    with pytest.raises(ConfigError):
        store(tmp_path).digest(IMAGE)


def test_a_registry_that_is_away_passes(wire, tmp_path: Path) -> None:
    wire.head(MANIFEST, body=requests.ConnectionError("refused"))
    with pytest.raises(TransientError):
        store(tmp_path).digest(IMAGE)


def test_blobs_are_mounted_with_a_token_for_both_repositories_and_nothing_but_digests_is_sent(
    wire, tmp_path: Path
) -> None:
    source, target = "https://registry.test/v2/staging/b", "https://registry.test/v2/project/demo/blobs/uploads/"
    blob = {"digest": DIGEST, "size": 5}
    layers = [blob, {"digest": "../../x", "size": 1}, {"digest": 5, "size": 1}]
    wire.get(f"{source}/manifests/image", json={"config": blob, "layers": layers})
    wire.post(target, status=401, headers=CHALLENGE)
    wire.get(REALM, json={"access_token": "t"})
    wire.post(target, status=201)
    registry = store(tmp_path)
    manifest = registry.manifest("registry.test/staging/b", "image")
    assert manifest is not None
    assert (manifest.blobs, manifest.size_bytes) == ((DIGEST,), 5)
    assert registry.mount("registry.test/staging/b", manifest.blobs, "registry.test/project/demo")
    assert wire.calls[2].request.params["scope"] == [
        "repository:project/demo:pull,push",
        "repository:staging/b:pull",
    ]
    assert wire.calls[3].request.params == {"mount": DIGEST, "from": "staging/b"}
    assert len(wire.calls) == 4


@pytest.mark.parametrize("name", ["demo:1", "project/demo:1"])
def test_a_name_without_a_host_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        store(tmp_path).digest(ImageName(name))


def test_the_longest_path_of_the_auth_file_wins(tmp_path: Path) -> None:
    file = auth_file(tmp_path, **{"r.test": "a:1", "r.test/p": "b:2"})
    found = [credentials(file, name) for name in ("r.test/p/x", "r.test/q", "other.test/p")]
    assert [known.user if known else None for known in found] == ["b", "a", None]
    assert "2" not in repr(found[0]).replace("user", "")
    assert credentials(None, "r.test/p") is None


@pytest.mark.parametrize("text", ["", "[]", '{"auths": []}', '{"auths": {"r.test": {"auth": "%%"}}}'])
def test_an_auth_file_that_is_none_is_a_wrong_setting(tmp_path: Path, text: str) -> None:
    (tmp_path / "auth.json").write_text(text)
    with pytest.raises(ConfigError):
        credentials(tmp_path / "auth.json", "r.test/p")


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("reading manifest: unauthorized: authentication required", ConfigError),
        ("received unexpected HTTP status: 403 Forbidden", ConfigError),
        ("requested access to the resource is denied", ConfigError),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", TransientError),
        ("received unexpected HTTP status: 503 Service Unavailable", TransientError),
        ("write /var/tmp/storage1: no space left on device", TransientError),
        ("Error: Digest did not match, expected sha256:aa, got sha256:bb", BuildError),
        ("something that nobody has seen before", TransientError),
    ],
)
def test_what_skopeo_says_of_a_registry_has_a_reason(output: str, error: type) -> None:
    assert type(_error(output, to_registry=True)) is error


def test_on_this_machine_what_is_unknown_is_our_fault() -> None:
    assert type(_error("something that nobody has seen before", to_registry=False)) is InternalError
    # Only a registry refuses: an image's own file may be called so.
    assert type(_error("applying layer: unauthorized", to_registry=False)) is BuildError


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        (
            'time="2026-11-29T13:00:00Z" level=fatal msg="writing blob: \\"x\\" is not there"',
            'writing blob: "x" is not there',
        ),
        ('time="2026-11-29T13:00:00Z" level=fatal msg="from \\x1b: nothing"', None),
        ("Copying blob sha256:1a2b", None),
        ('level=fatal msg="of an image\'s own making" more', None),
    ],
)
def test_a_line_of_skopeos_is_written_for_people(printed: str, read: str | None) -> None:
    assert _readable(printed) == (read or printed)
