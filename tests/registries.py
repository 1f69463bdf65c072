"""Registries for tests: the real one, open, guarded or with TLS, and one that stands before it and fails as told."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import requests

from tools.farm import free_ports
from workflows.settings import Settings

SECRET_HASH = "$2b$04$8PZlQecyYC8t1NRZ4yBSru8dw8wwJfvSje3jfgo8ioU4OPiTrVWmm"
"""Of the password ``secret``: bcrypt, the only kind that the registry takes."""
START_SECONDS = 30
"""For a process to be ready."""


@contextmanager
def serve_registry(folder: Path, more: str, *, tls: bool = False) -> Iterator[str]:
    """Debian's docker-registry on loopback; its host and port. Its access log is ``<folder>/registry.log``."""
    (port,) = free_ports(1)
    http = f"addr: '127.0.0.1:{port}'"
    if tls:
        make_certificate(folder)
        http += f", tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}"
    configuration = folder / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}\n"
        f"http: {{{http}}}\nlog: {{level: error}}\n{more}"
    )
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}/v2/"
    with (
        (folder / "registry.log").open("ab") as log,
        subprocess.Popen(["docker-registry", "serve", configuration], stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: _answers(url, folder / "ca.pem" if tls else None), process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def guard(folder: Path) -> str:
    """The part of a registry's configuration that lets in ``argosy`` with the password ``secret`` alone."""
    (folder / "htpasswd").write_text(f"argosy:{SECRET_HASH}\n")
    return f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"


def at(settings: Settings, place: str, folder: Path, **changes: object) -> Settings:
    """Settings of a farm whose images live in the registry of that host and port, as the user ``argosy``."""
    auth = {"auths": {place: {"auth": base64.b64encode(b"argosy:secret").decode()}}}
    (folder / "auth.json").write_text(json.dumps(auth))
    given = {"image_store": "registry", "image_prefix": f"{place}/argosy/", "registry_auth_file": folder / "auth.json"}
    return settings.model_copy(update=given | changes)


@contextmanager
def serve_secure(settings: Settings, folder: Path, **changes: object) -> Iterator[Settings]:
    """A farm whose registry (in ``<folder>/served``) has a password, and a certificate that no machine knows."""
    served = folder / "served"
    served.mkdir()
    with serve_registry(served, guard(served), tls=True) as place:
        yield at(settings, place, folder, registry_ca_file=served / "ca.pem", **changes)


def make_certificate(folder: Path) -> None:
    """An authority of the test's own (``ca.pem``), and its word for 127.0.0.1 (``server.pem``, ``server.key``)."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a test", "-days", "2"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"],
        ["x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


def blob_uploads(folder: Path, repository: str) -> list[str]:
    """The requests of a registry's access log that sent bytes of a blob to a repository."""
    text = (folder / "registry.log").read_text(errors="replace")
    return re.findall(rf'"((?:PATCH|PUT) /v2/{re.escape(repository)}/blobs/uploads/\S*) HTTP', text)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return once `condition` holds; fail where the process ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert process.poll() is None, f"{process.args} ended by itself"
        assert time.monotonic() < deadline, f"{process.args} did not start"
        time.sleep(0.05)


def _answers(url: str, authority: Path | None) -> bool:
    try:
        answer = requests.get(url, timeout=1, verify=str(authority) if authority else True)
    except requests.RequestException:
        return False
    return answer.status_code in {requests.codes.ok, requests.codes.unauthorized}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How a request fails.

    Args:
        status: Is answered in the place of the registry; 0: what the registry answered.
        headers: Are added to the answer.
        spoil: Changes the body.
        hang: Whether no answer ever comes.
        drop: Whether the connection is closed instead.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    spoil: Callable[[bytes], bytes] | None = None
    hang: bool = False
    drop: bool = False


class Faulty(ThreadingHTTPServer):
    """Stands before a registry and fails as `rule` says.

    Args:
        registry: Host and port of the real one.
        folder: Whose certificate both have; None: neither speaks TLS.
        address: Where it listens.
    """

    daemon_threads = True

    def __init__(self, registry: str, folder: Path | None = None, *, address: str = "127.0.0.1") -> None:
        # A port that was asked for by number stays ours while nobody listens.
        super().__init__((address, free_ports(1)[0]), _Handler)
        self.place = f"{address}:{self.server_port}"
        self.url = f"http{'s' if folder else ''}://{registry}"
        self.verify = str(folder / "ca.pem") if folder else True
        self.rule: Callable[[str, str], Fault | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.over = threading.Event()
        if folder:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
            # Hands are shaken with the first read, in the request's own thread.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread()

    def fault(self, method: str, path: str, headers: Message) -> Fault | None:
        """How one request fails; None: it does not."""
        return self.rule(method, path)

    def start(self) -> None:
        """Take connections, or take them again."""
        self.socket.listen(self.request_queue_size)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def refuse(self) -> None:
        """Refuse connections as a machine does where nobody listens; the port stays ours."""
        self.shutdown()
        self._thread.join()
        self.socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Itself, for as long as it serves."""
        with self:
            self.start()
            try:
                yield self
            finally:
                self.over.set()
                self.refuse()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of those who go before they are answered, which is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def relay(self) -> None:
        body = self._body()
        self.server.requests.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path, self.headers) or Fault()
        if fault.hang:
            self.server.over.wait(60)
        if fault.hang or fault.drop:
            self.close_connection = True
        elif fault.status:
            self._answer(fault.status, {"Content-Length": "2"} | fault.headers, b"{}")
        else:
            self._relay(body, fault)

    def _relay(self, body: bytes, fault: Fault) -> None:
        # A name may come several times, as skopeo's Accept does.
        names = {name.lower() for name in self.headers} - _HOP_BY_HOP
        sent = {name: ", ".join(self.headers.get_all(name, [])) for name in names}
        url, verify = f"{self.server.url}{self.path}", self.server.verify
        with requests.request(
            self.command, url, headers=sent, data=body, timeout=30, stream=True, verify=verify
        ) as answer:
            content = answer.raw.read(decode_content=False)
            content = fault.spoil(content) if fault.spoil else content
            given = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self._answer(answer.status_code, given | {"Content-Length": length} | fault.headers, content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the standard library's name
        pass


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler.relay)

_HOP_BY_HOP = frozenset({"content-length", "transfer-encoding", "connection"})
