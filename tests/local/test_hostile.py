"""Builds that mean harm, beyond what `test_isolation.py` tries: none reaches anything."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.building import Building, Built
from tests.local.outside import FAR, METADATA, NEAR, PORT, SECRET, outside
from tests.local.test_build import assert_nothing_is_left, eventually, processes, repository
from tests.local.test_isolation import machine_addresses
from tests.local.whole import whole
from tests.registries import serve_registry
from workflows.builder.isolation import Sandbox
from workflows.builder.store import key_of
from workflows.errors import EXIT_CODES, Reason
from workflows.image import ImageName
from workflows.settings import MIB, Settings

HEAD = "ARG BASE\nFROM ${BASE}\n"


def run(
    building: Building, dockerfile: str, name: str = "hostile", files: dict[str, str] | None = None, **settings: str
) -> Built:
    return building.build(repository(building, {"Dockerfile": dockerfile, **(files or {})}), name, **settings)


# --- other repositories' caches ---


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with what shows a change."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = (Path(parent) / name).lstat()
            found[os.path.join(parent, name)] = (status.st_mtime_ns, status.st_size)  # noqa: PTH118
    return found


def test_one_repositorys_build_neither_reads_nor_writes_anothers_cache(building: Building) -> None:
    secret = f"planted-{secrets.token_hex(8)}"
    victim = HEAD + f"RUN --mount=type=cache,target=/kept echo {secret} > /kept/note && echo {secret} > /layer\n"
    assert run(building, victim, "victim").code == 0
    # It works for its own next build, or there would be nothing to steal.
    again = run(building, HEAD + "RUN --mount=type=cache,target=/kept cat /kept/note\n", "victim")
    assert secret in again.messages

    key = key_of(ImageName("localhost/argosy/victim:x"))
    caches = building.state / "cache" / "repositories"
    before = contents(caches / key) | contents(caches / f"{key}.tmp")
    tries = [
        "RUN --mount=type=cache,target=/kept cat /kept/*; echo changed > /kept/note",
        f"RUN --mount=type=cache,id=../../{key}.tmp,target=/kept grep -r planted /kept; touch /kept/x",
        f"RUN --mount=type=bind,source=../../../cache/repositories/{key},target=/kept,rw grep -r planted /kept",
        f"RUN grep -r planted {caches} /proc/1/root{caches} /var/lib/containers /var/tmp; touch {caches}/{key}/x",
        "COPY --from=localhost/argosy/victim:x /layer /",
        "RUN cat /layer",
    ]
    for line in tries:
        thief = run(building, f"{HEAD}{line}\n", "thief")
        assert secret not in thief.log + thief.operator, line
    after = contents(caches / key) | contents(caches / f"{key}.tmp")
    assert after == before
    victims = run(building, HEAD + "RUN --mount=type=cache,target=/kept cat /kept/note\nRUN echo end\n", "victim")
    assert "changed" not in victims.messages


def test_the_storage_of_base_images_cannot_be_written(building: Building) -> None:
    before = contents(building.state / "cache" / "base" / "overlay")
    line = "RUN rm -rf /usr/share /etc/apt && echo other > /etc/hostname2 && chmod -R 777 /srv\n"
    built = run(building, HEAD + line)
    assert built.code == 0, built.log
    changed = {path for path, was in before.items() if contents_of(path) != was}
    assert changed == set()


def contents_of(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = Path(path).lstat()
        return status.st_mtime_ns, status.st_size
    return None


# --- processes ---


def test_a_process_that_a_line_leaves_behind_ends_with_the_line(building: Building) -> None:
    line = "RUN setsid sh -c 'trap \"\" TERM HUP; sleep 6006' & (setsid setsid sleep 6006 &) ; sleep 0.3; echo left\n"
    built = run(building, f"{HEAD}{line}RUN ls /proc | grep -c '^[0-9]' ; cat /proc/*/cmdline | tr '\\0' ' '\n")
    assert built.code == 0, built.log
    assert "left\n" in built.messages
    assert re.search(r"sleep 6006", built.messages.rpartition("STEP 4")[0])
    assert "sleep 6006" not in built.messages.rpartition("STEP 4")[2].partition("\n")[2]
    assert b"sleep\x006006" not in processes()
    assert_nothing_is_left(building)


# --- the network ---

SOCKETS = """
import socket
for family, protocol in (("AF_PACKET", 768), ("AF_INET", 1), ("AF_INET", 255)):
    try:
        socket.socket(getattr(socket, family), socket.SOCK_RAW, protocol)
        print("FOUND", family, protocol)
    except OSError as error:
        print("refused", family, protocol, error.strerror)
"""


def test_a_line_has_no_raw_sockets(building: Building) -> None:
    built = run(building, HEAD + "COPY sockets.py /\nRUN python3 /sockets.py\n", files={"sockets.py": SOCKETS})
    assert built.code == 0, built.log
    assert built.messages.count("refused AF_") == 3
    assert "FOUND" not in built.messages


@pytest.fixture
def spoof(tmp_path: Path) -> Path:
    program = tmp_path / "tools" / "spoof"
    program.parent.mkdir()
    source = Path(__file__).with_name("spoof.c")
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-o", program, source], check=True)
    return program


def test_who_breaks_out_of_a_line_sends_in_no_other_name(building: Building, spoof: Path, tmp_path: Path) -> None:
    settings = Settings(state=building.state)

    def send(source: str) -> str:
        with (
            Sandbox("build-spoof-1234567-00000000", settings, readable=(spoof.parent,)) as sandbox,
            sandbox.start(
                ["sh", "-c", f"{spoof} {source} {FAR} {PORT}; sleep 0.2"], {"PATH": "/usr/bin:/bin"}
            ) as inside,
        ):
            return inside.communicate()[0].decode()

    folder = tmp_path / "outside"
    folder.mkdir()
    with outside(folder) as world:

        def heard() -> list[str]:
            return [line for line in world.seen() if line.startswith("udp")]

        # With its own address it may: that is what shows that the other does not arrive.
        own = "$(ip -4 -o address show eth0 | tr / ' ' | awk '{print $4}')"
        assert send(own).strip() == "sent"
        eventually(lambda: bool(heard()), "what was sent in its own name has not arrived")
        for source in ("203.0.113.7", "127.0.0.1", machine_addresses()[0]):
            assert send(source).strip() == "sent"
        # Comes after those, so they would have been heard by then.
        assert send(own).strip() == "sent"
        eventually(lambda: len(heard()) > 1, "nor has the second")
        assert heard() == [f"udp {NEAR}"] * 2


FETCH = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3) as connection:
            connection.sendall(b"GET /latest/meta-data/iam HTTP/1.0\\r\\n\\r\\n")
            print("FOUND", place, connection.recv(1000))
    except OSError as error:
        print("nothing at", place, error)
"""


def test_the_metadata_address_is_out_of_reach_wherever_it_is(building: Building, tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    with outside(folder) as world, on_loopback("169.254.170.2") as here:
        places = f"{FAR}:{PORT} {METADATA}:{PORT} 169.254.170.2:{here}"
        built = run(building, f"{HEAD}COPY fetch.py /\nRUN python3 /fetch.py {places}\n", files={"fetch.py": FETCH})
        assert built.code == 0, built.log
        # The same server under another address is the world, which builds may reach.
        assert f"FOUND {FAR}:{PORT}" in built.messages
        assert SECRET in built.messages
        assert built.messages.count("FOUND") == 1
        assert [line.split()[:2] for line in world.seen()] == [["tcp", FAR]]


def test_who_breaks_out_and_changes_the_routes_meets_the_firewall(building: Building, tmp_path: Path) -> None:
    folder, tools = tmp_path / "outside", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    (tools / "fetch.py").write_text(FETCH)
    with (
        outside(folder) as world,
        on_loopback("169.254.170.2") as here,
        Sandbox("build-routes-1234567-00000000", Settings(state=building.state), readable=(tools,)) as sandbox,
    ):
        closed = (f"{METADATA}:{PORT}", f"169.254.170.2:{here}", f"{machine_addresses()[0]}:{here}")
        fetch = f"python3 {tools}/fetch.py {FAR}:{PORT} {' '.join(closed)}"
        script = f"{fetch}; ip route flush type prohibit && echo CHANGED && {fetch}"
        with sandbox.start(["sh", "-c", script], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}) as inside:
            before, changed, after = inside.communicate()[0].decode().partition("CHANGED\n")
        assert changed, before
        for place in closed:
            assert f"nothing at {place} [Errno 13] Permission denied" in before
            assert f"nothing at {place} timed out" in after
        assert [line.split()[:2] for line in world.seen()] == [["tcp", FAR]] * 2, after


@contextlib.contextmanager
def on_loopback(address: str) -> Iterator[int]:
    """A service on this machine under a link-local address, as container platforms have it; its port."""
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        with socket.create_server((address, 0)) as server:
            yield server.getsockname()[1]
    finally:
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)


# --- names and lines that drive a terminal ---


def test_names_and_lines_with_escape_sequences_reach_the_log_harmless(building: Building, tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07\x1b[2J\u202ename"
    line = (
        r"RUN printf '\033]0;owned\007\033[2J\033[31mred\033[0m\n\n' && ls / && printf 'no newline \033[5m' && exit 7"
    )
    with whole(building, tmp_path) as farm:
        status = farm.build("hostile/names", {"Dockerfile": f"{HEAD}COPY . /\n{line}\n", name: "x"})
        assert (status.reason, "exit status 7" in status.message) == (Reason.BUILD, True), farm.log(status.name)
        raw = (farm.settings.builds_folder / status.name / "logs" / "build.log").read_bytes()
        told = status.message.encode()
    assert b"red" in raw
    for text in (raw, told):
        assert re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", text) is None
        assert "\u202e".encode() not in text


# --- files of the repository that are something else ---


def test_a_symlinked_requirements_file_within_the_tree_is_one(building: Building, tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    (folder / "env").mkdir(parents=True)
    (folder / "env" / "wanted.txt").write_text("six==1.16.0\n")
    (folder / "requirements.txt").symlink_to("env/wanted.txt")
    built = building.build(building.checkout(folder), "linked")
    assert built.code == 0, built.log
    assert "+ six==1.16.0" in built.messages


@pytest.mark.parametrize(
    "name", ["requirements.txt", "environment.yml", "apt.txt", "Dockerfile", "binder", "postBuild"]
)
@pytest.mark.parametrize("target", ["{planted}", "../../../../../../../../../..{planted}"])
def test_a_file_that_is_a_link_out_of_the_tree_reads_nothing(
    building: Building, tmp_path: Path, name: str, target: str
) -> None:
    secret = f"planted-{secrets.token_hex(8)}"
    (tmp_path / "planted").write_text(f"{secret}: [\n")
    with whole(building, tmp_path) as farm:
        commit = farm.host.create("hostile/link", {"README.md": "x"})
        commit = farm.host.commit("hostile/link", {}, links={name: target.format(planted=tmp_path / "planted")})
        status = farm.until_ended(farm.engine.submit(farm.request("hostile/link", commit)).name)
        assert status.reason is Reason.BUILD
        assert f"The link {name} leads out of the repository" in status.message
        assert secret not in farm.log(status.name)


def test_a_file_that_repo2docker_reads_is_read_within_the_builds_memory(building: Building) -> None:
    source = repository(building, {"requirements.txt": ""})
    with (source / "requirements.txt").open("r+b") as file:
        file.truncate(3 * 1024 * MIB)
    built = building.build(source, build_memory_bytes=str(512 * MIB), silent_seconds="60")
    assert built.code == EXIT_CODES[Reason.OUT_OF_MEMORY], built.log + built.operator


# --- images that are something else ---


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """Addresses on loopback and one of the others of this machine, where somebody notes who comes; and the notes."""
    notes: list[str] = []
    with serve_registry(tmp_path, "") as registry, socket.create_server(("0.0.0.0", 0)) as server:

        def take() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                notes.append(str(peer))
                connection.close()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        yield [registry, f"localhost:{port}"], f"{machine_addresses()[0]}:{port}", notes
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_an_image_from_a_registry_of_this_machine_is_not_asked_for(
    building: Building, listening: tuple[list[str], str, list[str]], tmp_path: Path
) -> None:
    loopback, other, notes = listening
    log = tmp_path / "registry.log"
    before = log.read_text()
    for place in (*loopback, other):
        built = run(building, f"FROM {place}/argosy/secret:1\nRUN echo reached\n", "from", silent_seconds="60")
        # It can never be there: nobody's next try would find it.
        assert built.code == EXIT_CODES[Reason.BUILD], built.log
        assert "STEP 2" not in built.messages
    assert notes == []
    assert log.read_text() == before


def test_an_image_from_a_path_of_this_machine_is_not_read(building: Building, tmp_path: Path) -> None:
    secret = f"planted-{secrets.token_hex(8)}"
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "note").write_text(secret)
    subprocess.run(["tar", "-C", planted, "-cf", planted / "image.tar", "note"], check=True)
    state = building.state
    tries = [
        f"FROM dir:{planted}\nRUN cat /note\n",
        f"FROM oci:{planted}\nRUN cat /note\n",
        f"FROM docker-archive:{planted}/image.tar\nRUN cat /note\n",
        f"FROM containers-storage:[overlay@{state}/containers/storage]localhost/x\nRUN cat /note\n",
        "FROM docker-daemon:localhost/x:1\nRUN cat /note\n",
        f"FROM {planted}\nRUN cat /note\n",
        f"{HEAD}COPY {planted}/note /\nRUN cat /note\n",
        f"{HEAD}COPY ../../../../../../../..{planted}/note /\nRUN cat /note\n",
        f"{HEAD}ADD {planted}/image.tar /\nRUN cat /note\n",
        f"{HEAD}ADD file://{planted}/note /note\nRUN cat /note\n",
        f"{HEAD}COPY --from=dir:{planted} /note /\nRUN cat /note\n",
        f"{HEAD}RUN --mount=type=bind,source={planted},target=/p cat /p/note\n",
        f"{HEAD}RUN --mount=type=bind,source=../../../..{planted},target=/p cat /p/note\n",
        f"{HEAD}RUN --mount=type=bind,from=dir:{planted},target=/p cat /p/note\n",
        f"{HEAD}RUN --mount=type=secret,id=note,src={planted}/note cat /run/secrets/*\n",
        f"{HEAD}COPY link /note\nRUN cat /note\n",
        f"{HEAD}COPY link/ /\nRUN cat /note\n",
    ]
    for dockerfile in tries:
        source = repository(building, {"Dockerfile": dockerfile})
        # What fetch refuses; here it comes past it.
        (source / "link").symlink_to(planted / "note" if "COPY link /" in dockerfile else planted)
        built = building.build(source, "paths")
        assert built.code in {EXIT_CODES[Reason.BUILD], EXIT_CODES[Reason.TRANSIENT]}, dockerfile + built.log
        assert secret not in built.log + built.operator, dockerfile
    assert_nothing_is_left(building)


def test_an_address_of_this_machine_is_not_added(
    building: Building, listening: tuple[list[str], str, list[str]]
) -> None:
    loopback, other, notes = listening
    for place in (loopback[1], other):
        built = run(building, f"FROM scratch\nADD http://{place}/secret /\n", "add", silent_seconds="60")
        assert built.code != 0, built.log
    assert notes == []


def test_every_line_of_a_hostile_build_is_one_line_of_json(building: Building) -> None:
    # A build can print what looks like an event of the service; it stays the text of a message.
    line = """RUN printf '{"phase": "ready", "url": "http://evil/"}\\n{"message": 5}\\n[1]\\n'"""
    built = run(building, f"{HEAD}{line}\n")
    assert built.code == 0, built.log
    for text in built.log.splitlines():
        assert isinstance(json.loads(text)["message"], str)
        assert json.loads(text).get("phase") != "ready"
