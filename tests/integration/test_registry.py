"""A registry as the target: TLS, a password, attached SBOMs, and its faults."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.clock import PlayedClock
from tests.images import DEBIAN, python_package
from tests.registries import Fault, Faulty, at, serve_secure
from tests.steps import VULNERABLE, Build
from workflows.errors import ArgosyError, ConfigError, RateLimitError, TransientError
from workflows.image import ImageDigest, ImageName
from workflows.registry.connection import Connection
from workflows.registry.referrers import Referrers
from workflows.registry.store import RegistryStore
from workflows.settings import Settings
from workflows.stores.images import image_store
from workflows.stores.skopeo import Skopeo


@pytest.fixture
def secure(settings: Settings, tmp_path: Path, grype_db: Path) -> Iterator[Settings]:
    with serve_secure(settings, tmp_path, grype_db=grype_db) as farm:
        yield farm


@pytest.mark.parametrize("missing", ["registry_ca_file", "registry_auth_file"])
def test_without_its_authority_or_password_a_registry_is_set_up_wrongly(
    secure: Settings, tmp_path: Path, missing: str
) -> None:
    build = Build(secure, tmp_path)
    build.write(VULNERABLE)
    bare = {missing: None}
    with pytest.raises(ConfigError):
        build.run("stage", build.settings.model_copy(update=bare))
    build.run("stage")
    for step in ("push", "scan"):
        with pytest.raises(ConfigError):
            build.run(step, build.ours.model_copy(update=bare))
    with pytest.raises(ConfigError):
        image_store(secure.model_copy(update=bare)).digest(build.image)


# --- SBOMs ---


@pytest.fixture
def open_farm(settings: Settings, tmp_path: Path, registry: str) -> Settings:
    return at(settings, registry, tmp_path, registry_insecure=True)


def push(settings: Settings, folder: Path, content: str) -> tuple[str, ImageDigest]:
    """An image in the registry: its name and its digest."""
    build = Build(settings, folder)
    digest = build.write({"f": content})
    build.run("stage")
    build.run("push")
    return build.image.rpartition(":")[0], ImageDigest(digest)


def test_what_is_attached_is_found_by_digest_and_the_latest_wins(open_farm: Settings, tmp_path: Path) -> None:
    name, digest = push(open_farm, tmp_path, "x")
    referrers = Referrers(Connection(open_farm))
    assert referrers.find(name, digest) is None
    first = referrers.attach(name, digest, b'{"a": 1}', created="2026-01-01T00:00:00Z")
    assert referrers.attach(name, digest, b'{"a": 1}', created="2026-01-01T00:00:00Z") == first
    referrers.attach(name, digest, b'{"a": 2}', created="2026-02-01T00:00:00Z")
    referrers.attach(name, digest, b"{}", kind="application/json", created="2026-03-01T00:00:00Z")
    assert referrers.find(name, digest) == b'{"a": 2}'
    host, _, path = name.partition("/")
    # As any client of the specification finds it in a registry that lists no referrers.
    assert requests.get(f"http://{host}/v2/{path}/referrers/{digest}", timeout=5).status_code == 404
    root, accept = f"http://{host}/v2/{path}/manifests", {"Accept": "application/vnd.oci.image.index.v1+json"}
    index = requests.get(f"{root}/{digest.replace(':', '-')}", headers=accept, timeout=5).json()
    kinds = [entry["artifactType"] for entry in index["manifests"]]
    assert kinds == ["application/vnd.cyclonedx+json"] * 2 + ["application/json"]
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = requests.get(f"{root}/{first}", headers=accept, timeout=5).json()
    assert (manifest["subject"]["digest"], manifest["artifactType"]) == (digest, "application/vnd.cyclonedx+json")


def test_nothing_refers_to_an_image_that_was_removed(open_farm: Settings, tmp_path: Path) -> None:
    name, digest = push(open_farm, tmp_path, "x")
    referrers = Referrers(Connection(open_farm))
    artifact = referrers.attach(name, digest, b"{}")
    image_store(open_farm).remove(ImageName(f"{name}:1a2b3c4"))
    assert referrers.find(name, digest) is None
    host, _, path = name.partition("/")
    for reference in (artifact, digest, digest.replace(":", "-")):
        assert requests.get(f"http://{host}/v2/{path}/manifests/{reference}", timeout=5).status_code == 404


def test_an_sbom_of_another_image_is_not_attached(open_farm: Settings, tmp_path: Path) -> None:
    build = Build(open_farm, tmp_path)
    digest = build.write({"f": "x"})
    build.run("stage")
    build.run("push")
    (build.ours.workspace / "sbom.cdx.json").write_text("{}")
    (build.ours.workspace / "findings.json").write_text(json.dumps({"digest": "sha256:" + "0" * 64}))
    with pytest.raises(ArgosyError):
        build.run("attach")
    assert Referrers(Connection(open_farm)).find(build.image.rpartition(":")[0], ImageDigest(digest)) is None


# --- faults ---


@pytest.fixture
def faulty(registry: str) -> Iterator[Faulty]:
    with Faulty(registry).serving() as server:
        yield server


@pytest.fixture
def build(settings: Settings, tmp_path: Path, faulty: Faulty, grype_db: Path) -> Build:
    """A build whose image is staged already, and a registry that the test may then let fail."""
    changes = {"registry_insecure": True, "registry_timeout_seconds": 1, "grype_db": grype_db}
    build = Build(at(settings, faulty.place, tmp_path, **changes), tmp_path)
    build.write(DEBIAN | python_package("requests", "2.32.0"))
    build.run("stage", patient(build.settings))
    return build


def patient(settings: Settings) -> Settings:
    """For a registry that answers: a second may be too little for it where the machine is busy."""
    return settings.model_copy(update={"registry_timeout_seconds": 20})


def in_time(build: Build, error: type[Exception]) -> Settings | None:
    """With patience for a registry that answers; where it is slow, that must be noticed before the test is over."""
    return patient(build.ours) if error is ConfigError else None


def always(fault: Fault, where: str = "") -> object:
    return lambda method, path: fault if re.search(where, f"{method} {path}") else None


FAULTS = {
    "down": (Fault(drop=True), TransientError),
    "slow": (Fault(hang=True), TransientError),
    "fails": (Fault(status=500), TransientError),
    "away": (Fault(status=503), TransientError),
    "busy": (Fault(status=429, headers={"Retry-After": "3600"}), TransientError),
    "forbids": (Fault(status=403), ConfigError),
    "does not know us": (Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}), ConfigError),
}


@pytest.mark.parametrize("step", ["push", "scan"])
@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_of_a_registry_has_its_reason(build: Build, faulty: Faulty, kind: str, step: str) -> None:
    fault, error = FAULTS[kind]
    faulty.rule = always(fault)
    begun = time.monotonic()
    with pytest.raises(error):
        build.run(step, in_time(build, error))
    assert time.monotonic() - begun < 18
    faulty.rule = always(Fault(), "never")
    if step == "push":
        # It comes back: the same step goes through, and nothing of the failure is left.
        build.run(step, patient(build.ours))


def test_a_busy_registry_is_not_sent_to_at_all(build: Build, faulty: Faulty) -> None:
    # skopeo itself would go on trying for minutes.
    faulty.requests.clear()
    faulty.rule = always(FAULTS["busy"][0])
    with pytest.raises(TransientError):
        build.run("stage")
    assert {method for method, _ in faulty.requests} == {"HEAD"}


def test_a_registry_that_falls_silent_while_it_is_sent_to_is_given_up(build: Build, faulty: Faulty) -> None:
    build.write(DEBIAN | python_package("requests", "2.32.1"))
    is_silent = threading.Event()

    def rule(method: str, path: str) -> Fault | None:
        if not re.search(r"P(UT|ATCH) /v2/argosy/staging/", f"{method} {path}"):
            return None
        is_silent.set()
        return Fault(hang=True)

    faulty.rule = rule
    skopeo = Skopeo(patient(build.settings), PlayedClock(begins=is_silent))
    with pytest.raises(TransientError) as raised:
        skopeo.copy(f"oci:{build.settings.workspace}/layout", f"docker://{faulty.place}/argosy/staging/x:image", print)
    assert raised.value.detail == "skopeo moved nothing for 200 s"


@pytest.mark.parametrize("kind", FAULTS)
def test_a_registry_that_fails_in_the_middle_of_a_copy_has_its_reason(build: Build, faulty: Faulty, kind: str) -> None:
    fault, error = FAULTS[kind]
    faulty.rule = always(fault, r"PUT /v2/argosy/demo-abc123/manifests")
    begun = time.monotonic()
    with pytest.raises(error):
        build.run("push", in_time(build, error))
    assert time.monotonic() - begun < 60
    assert RegistryStore(patient(build.ours)).digest(build.image) is None


def test_a_registry_that_says_when_to_come_back_is_asked_again_then(build: Build, faulty: Faulty) -> None:
    answers = iter([Fault(status=429, headers={"Retry-After": "1"})])
    faulty.rule = lambda method, path: next(answers, None)
    begun = time.monotonic()
    build.run("push", patient(build.ours))
    assert time.monotonic() - begun >= 1
    faulty.rule = always(FAULTS["busy"][0])
    with pytest.raises(RateLimitError) as told:
        RegistryStore(patient(build.ours)).digest(build.image)
    assert told.value.retry_after_seconds == 3600


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("GET .*staging/.*/manifests", Fault(headers={"Docker-Content-Digest": "sha256:" + "0" * 64})),
        ("GET .*staging/.*/manifests/sha256", Fault(spoil=lambda body: body + b"\n")),
        ("GET .*staging/.*/blobs", Fault(spoil=lambda body: body[:-1] + bytes([body[-1] ^ 1]) if body else body)),
        ("GET .*demo.*/manifests/1a2b3c4", Fault(spoil=lambda body: body + b"\n")),
        ("HEAD .*demo.*/manifests", Fault(headers={"Docker-Content-Digest": "sha256:" + "0" * 64})),
    ],
)
def test_a_registry_that_lies_about_digests_publishes_nothing(
    build: Build, faulty: Faulty, where: str, fault: Fault
) -> None:
    faulty.rule = always(fault, where)
    failed = {}
    for step in ("push", "scan"):
        try:
            build.run(step)
        except ArgosyError as error:
            failed[step] = error
    # Never the repository's fault, and never believed: what is pushed is what was staged.
    assert all(isinstance(error, TransientError) for error in failed.values()), failed
    if where.startswith("GET"):
        assert failed
    faulty.rule = always(Fault(), "never")
    if "push" in failed:
        assert not (build.ours.workspace / "pushed.json").exists()
