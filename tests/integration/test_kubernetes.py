"""What an API server may do to us: each fault is played at the wire, because a real one cannot be made to show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apiserver import ApiServer, apiserver
from workflows.cluster import access, connection, watch
from workflows.cluster.connection import Cluster
from workflows.cluster.lease import KubernetesLease
from workflows.cluster.watch import Watch
from workflows.errors import ConfigError, RefusedError, TransientError

PATH = "/apis/example.org/v1/namespaces/here/things"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/here/leases"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(watch, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_LAST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 1)
    with apiserver() as made:
        yield made


def thing(name: str, version: int, uid: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version), "uid": uid or name}} | more


def listed(version: int, *things: dict[str, Any], more: str = "") -> tuple[int, Any]:
    about = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return 200, {"metadata": about, "items": list(things)}


def event(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


class Told:
    """What a watch tells, as far as a test wants to know."""

    def __init__(self, server: ApiServer, **options: Any) -> None:
        self.watch = Watch(server.cluster(), PATH, "is=ours", **options)
        self._changes = self.watch.changes()

    def next(self, count: int) -> list[tuple[str, str | None]]:
        """The next changes: name, and version or None where it is gone."""
        found: list[tuple[str, str | None]] = []
        while len(found) < count:
            change = next(self._changes)
            if change is not None:
                version = change.found["metadata"]["resourceVersion"] if change.found else None
                found.append((change.name, version))
        return found


# --- one request ---


def test_what_is_no_fault_is_none(server: ApiServer) -> None:
    cluster = server.cluster()
    assert cluster.get(f"{PATH}/none") is None
    cluster.delete(f"{PATH}/none")
    assert cluster.patch(f"{PATH}/none", {}) is None
    server.answers[("POST", PATH)] = [(409, {}), (201, thing("a", 1))]
    assert cluster.create(PATH, {}) is None
    assert cluster.create(PATH, {}) == thing("a", 1)
    server.answers[("PUT", f"{PATH}/a")] = [(409, {})]
    assert cluster.replace(f"{PATH}/a", {}) is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ConfigError),
        (403, ConfigError),
        (422, RefusedError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_refusals_become_errors_of_ours(server: ApiServer, status: int, error: type[Exception]) -> None:
    server.answers[("POST", PATH)] = [(status, {"message": "a detail for the operator"})]
    with pytest.raises(error) as raised:
        server.cluster().create(PATH, {})
    assert "a detail for the operator" in raised.value.detail
    assert "a detail" not in str(raised.value)


def test_nobody_there_and_nobody_who_speaks_are_transient(server: ApiServer) -> None:
    with pytest.raises(TransientError):
        for _ in server.cluster().lines(PATH, {"follow": "true"}, idle_seconds=0.2):
            pass
    cluster = server.cluster()
    server.close()
    with pytest.raises(TransientError):
        cluster.get(PATH)


def test_a_token_is_read_for_each_request(server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(_authority())
    (tmp_path / "token").write_text("first\n")
    cluster = Cluster(access.of_account(tmp_path, server.url))
    cluster.get(PATH)
    (tmp_path / "token").write_text("second")
    cluster.get(PATH)
    assert [each[4] for each in server.asked] == ["Bearer first", "Bearer second"]
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError):
        cluster.get(PATH)


def test_an_account_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        access.of_account(tmp_path, "https://x")
    (tmp_path / "token").write_text("x")
    (tmp_path / "ca.crt").write_text("none")
    with pytest.raises(ConfigError):
        access.of_account(tmp_path, "https://x")


def test_without_any_way_in_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError):
        access.find()


@pytest.mark.parametrize("is_verified", [True, False])
def test_a_kubeconfig_is_a_way_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_verified: bool) -> None:  # noqa: FBT001
    (tmp_path / "ca.crt").write_text(_authority())
    cluster = {"server": "https://127.0.0.1:1/", "certificate-authority": str(tmp_path / "ca.crt")}
    if not is_verified:
        cluster = {"server": "https://127.0.0.1:1/", "insecure-skip-tls-verify": True}
    known = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(known))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    found = access.find()
    assert (found.url, found.authorization()) == ("https://127.0.0.1:1", "Bearer t")
    assert found.tls.check_hostname is is_verified


def test_a_list_comes_in_pages(server: ApiServer) -> None:
    server.lists[PATH] = [listed(7, thing("a", 1), more="page two"), listed(7, thing("b", 2))]
    found, version = server.cluster().listed(PATH, "is=ours")
    assert ([each["metadata"]["name"] for each in found], version) == (["a", "b"], "7")
    assert server.asked[1][2]["continue"] == "page two"


# --- lines ---


def test_lines_come_whole_whatever_the_pieces_are(server: ApiServer) -> None:
    server.stream(PATH, b"on", b"e\ntw", b"o\n\nthr", "ée".encode()[:2], "ée".encode()[2:])
    found = list(server.cluster().lines(PATH, {"follow": "true"}, idle_seconds=2))
    assert found == [b"one", b"two", b"", "thrée".encode()]


def test_a_line_without_end_does_not_fill_the_memory(server: ApiServer) -> None:
    server.stream(PATH, *[b"x" * 1000] * 50, b"\nshort\n")
    found = list(server.cluster().lines(PATH, {"follow": "true"}, idle_seconds=2, line_bytes=100))
    assert found == [b"x" * 100, b"short"]


def test_an_answer_that_breaks_off_is_not_taken_for_its_end(server: ApiServer) -> None:
    server.stream(PATH, b"one\n", OSError())
    lines = server.cluster().lines(PATH, {"follow": "true"}, idle_seconds=2)
    assert next(lines) == b"one"
    with pytest.raises(TransientError):
        next(lines)


# --- a watch ---


def test_a_watch_tells_what_is_there_and_then_what_changes(server: ApiServer) -> None:
    server.lists[PATH] = [listed(10, thing("a", 3), thing("b", 4))]
    bookmark = event("BOOKMARK", thing("", 40))
    server.stream(
        PATH,
        event("MODIFIED", thing("a", 11)),
        event("ADDED", thing("c", 12)),
        event("DELETED", thing("b", 13)),
        bookmark,
    )
    told = Told(server)
    assert told.next(5) == [("a", "3"), ("b", "4"), ("a", "11"), ("c", "12"), ("b", None)]
    assert told.watch.is_current
    # It goes on from where the API server said that it had told everything, without another list.
    server.stream(PATH, event("MODIFIED", thing("a", 41)))
    assert told.next(1) == [("a", "41")]
    versions = [each[2]["resourceVersion"] for each in server.asked if "watch" in each[2]]
    assert versions == ["10", "40"]
    assert server.count("GET", PATH, limit="500") == 1


@pytest.mark.parametrize("how", ["status", "event"])
def test_a_watch_whose_place_is_forgotten_lists_anew(server: ApiServer, how: str) -> None:
    server.lists[PATH] = [listed(10, thing("a", 3), thing("b", 4)), listed(50, thing("a", 3), thing("c", 30))]
    told = Told(server)
    if how == "status":
        server.stream(PATH)
        told.next(2)
        server.answers[("GET", PATH)] = [(410, {"code": 410}), listed(50, thing("a", 3), thing("c", 30))]
    else:
        server.stream(PATH, event("ERROR", {"kind": "Status", "code": 410, "message": "too old"}))
        told.next(2)
    # What is gone is told, what is new is told, what is as it was is not.
    assert told.next(2) == [("b", None), ("c", "30")]


def test_an_api_server_that_is_away_is_waited_for(server: ApiServer) -> None:
    server.lists[PATH] = [(503, {}), (500, {}), (429, {}), listed(10, thing("a", 3))]
    told = Told(server)
    assert told.next(1) == [("a", "3")]
    server.stream(PATH, event("MODIFIED", thing("a", 11)), OSError())
    assert told.next(1) == [("a", "11")]
    server.lists[PATH] = [listed(20, thing("a", 12))]
    assert told.next(1) == [("a", "12")]


def test_who_may_not_watch_is_told_so(server: ApiServer) -> None:
    server.lists[PATH] = [(403, {"message": "forbidden"})]
    with pytest.raises(ConfigError):
        next(Told(server).watch.changes())


def test_what_is_told_twice_or_late_changes_nothing(server: ApiServer) -> None:
    server.lists[PATH] = [listed(20, thing("a", 5))]
    server.stream(
        PATH,
        event("ADDED", thing("a", 5)),  # twice
        event("MODIFIED", thing("a", 22)),
        event("MODIFIED", thing("a", 21)),  # late
        event("MODIFIED", thing("a", 22)),  # twice
        event("DELETED", thing("a", 24)),
        event("MODIFIED", thing("a", 23)),  # late: it is gone
        event("DELETED", thing("a", 24)),  # twice
        event("ADDED", thing("a", 26, uid="another")),  # the name, used again
        event("DELETED", thing("a", 24)),  # late: the first of that name
        event("MODIFIED", thing("a", 27, uid="another")),
    )
    assert Told(server).next(5) == [("a", "5"), ("a", "22"), ("a", None), ("a", "26"), ("a", "27")]


def test_the_list_is_read_again_every_so_often(server: ApiServer) -> None:
    """A net: what no event ever told is found."""
    server.lists[PATH] = [listed(10, thing("a", 3)), listed(30, thing("b", 20))]
    told = Told(server, relist_seconds=0)
    assert told.next(3) == [("a", "3"), ("a", None), ("b", "20")]


# --- a lease ---


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Leases:
    """Two replicas at one lease."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.clock = Clock()
        self.a, self.b = (
            KubernetesLease(server.cluster(), LEASES, "x", holder, seconds=15, clock=self.clock) for holder in "ab"
        )

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.objects[f"{LEASES}/x"]["spec"]
        return found


@pytest.fixture
def leases(server: ApiServer) -> Leases:
    return Leases(server)


def test_the_first_to_ask_holds_a_lease(leases: Leases) -> None:
    assert leases.a.held()
    assert not leases.b.held()
    assert leases.spec["holderIdentity"] == "a"


def test_a_lease_is_renewed_and_nobody_takes_it_meanwhile(leases: Leases) -> None:
    assert leases.a.held()
    for _ in range(10):
        leases.clock.now += 5
        assert leases.a.held()
        assert not leases.b.held()
    assert leases.server.count("PUT", f"{LEASES}/x") == 10


def test_a_lease_of_a_dead_replica_is_taken_when_it_is_over(leases: Leases) -> None:
    assert leases.a.held()
    assert not leases.b.held()
    leases.clock.now += 14
    assert not leases.b.held()
    leases.clock.now += 5
    assert leases.b.held()
    assert leases.spec["holderIdentity"] == "b"
    assert leases.spec["leaseTransitions"] == 2
    assert not leases.a.held()


def test_of_two_who_take_a_lease_at_once_one_has_it(leases: Leases) -> None:
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 15}
    found = leases.server.keep(f"{LEASES}/x", {"metadata": {"name": "x"}, "spec": spec})
    assert not leases.a.held()
    assert not leases.b.held()
    leases.clock.now += 16
    assert leases.a.held()
    # The second has read it before the first wrote.
    leases.server.answers["GET", f"{LEASES}/x"] = [(200, found)]
    assert not leases.b.held()
    assert leases.spec["holderIdentity"] == "a"


def test_who_cannot_renew_stops_before_anybody_else_begins(leases: Leases) -> None:
    assert leases.a.held()
    leases.server.answers[("GET", f"{LEASES}/x")] = [(503, {})] * 3
    leases.clock.now += 6
    assert leases.a.held()
    leases.clock.now += 5
    assert not leases.a.held()


def test_a_lease_that_is_given_back_is_free_at_once(leases: Leases) -> None:
    assert leases.a.held()
    leases.a.release()
    assert leases.spec["holderIdentity"] == ""
    assert leases.b.held()
    leases.a.release()
    assert leases.spec["holderIdentity"] == "b"


def _authority() -> str:
    """Some certificate: nothing is checked against it here."""
    import certifi  # noqa: PLC0415

    text = Path(certifi.where()).read_text(encoding="utf-8")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    return text[begin : text.index("-----END CERTIFICATE-----", begin)] + "-----END CERTIFICATE-----\n"
