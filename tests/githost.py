"""A real git host, ``git http-backend`` behind a small threaded HTTP server, on loopback; and hosts that misbehave."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Content = str | bytes

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "A. Student",
    "GIT_AUTHOR_EMAIL": "student@example.org",
    "GIT_COMMITTER_NAME": "A. Student",
    "GIT_COMMITTER_EMAIL": "student@example.org",
}
_CHUNK_BYTES = 64 * 1024
_NO_COMMIT = "0" * 40


class GitHost:
    """Repositories that anybody on this machine can clone from ``url/owner/name``, with or without ``.git``.

    Args:
        folder: Where the repositories lie; made where it is missing.
        bare_commits: Whether a commit may be asked for by its hash alone, as every large host allows.
        bytes_per_second: How fast packs are sent; None: as fast as it goes.
        address: Where it listens: pods reach a node's address, and no loopback.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bare_commits: bool = True,
        bytes_per_second: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.bare_commits = bare_commits
        self.bytes_per_second = bytes_per_second
        self.requests: list[str] = []
        self.headers: set[str] = set()  # names of all that clients sent
        self._address = address
        self._server = _Server((address, 0), _Handler)
        self._server.host = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://{self._address}:{self._server.server_address[1]}"

    def start(self) -> GitHost:
        """Answer from now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Answer no longer; the port is free afterwards."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def create(self, name: str, files: Mapping[str, Content], *, branch: str = "main") -> str:
        """A new repository with one commit on `branch`; its hash."""
        self._git_folder(name).mkdir(parents=True)
        self._git(name, "init", "--quiet", "--bare", f"--initial-branch={branch}")
        self._git(name, "config", "http.receivepack", "false")
        return self.commit(name, files, branch=branch)

    def commit(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        branch: str = "",
        links: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
        delete: Iterable[str] = (),
    ) -> str:
        """One more commit, in which these files are written over the former ones; its hash.

        Args:
            name: ``owner/name``.
            files: Content by path.
            branch: The branch that gets the commit; empty: the one that the repository was created with.
            links: Targets of symbolic links by path.
            modules: Commits of submodules by path; ``.gitmodules`` is the caller's to write.
            delete: Paths that go away.
        """
        head = f"refs/heads/{branch}" if branch else self._git(name, "symbolic-ref", "HEAD")
        parent = self._git(name, "for-each-ref", "--format=%(objectname)", head)
        self._git(name, "read-tree", parent) if parent else self._git(name, "read-tree", "--empty")
        entries = [f"100644 {self._blob(name, content)}\t{path}" for path, content in files.items()]
        entries += [f"120000 {self._blob(name, target)}\t{path}" for path, target in (links or {}).items()]
        entries += [f"160000 {commit}\t{path}" for path, commit in (modules or {}).items()]
        entries += [f"0 {_NO_COMMIT}\t{path}" for path in delete]
        self._git(name, "update-index", "--index-info", feed="\n".join(entries).encode() + b"\n")
        tree = self._git(name, "write-tree")
        commit = self._git(name, "commit-tree", *(("-p", parent) if parent else ()), "-m", "A change", tree)
        self._git(name, "update-ref", head, commit)
        return commit

    def tag(self, name: str, tag: str, commit: str, *, annotated: bool = False) -> None:
        """A tag on a commit."""
        self._git(name, "tag", *(("-a", "-m", tag) if annotated else ()), tag, commit)

    def delete(self, name: str) -> None:
        """The repository is gone."""
        shutil.rmtree(self._git_folder(name))

    def _git_folder(self, name: str) -> Path:
        return self.folder / name.removesuffix(".git")

    def _blob(self, name: str, content: Content) -> str:
        data = content.encode() if isinstance(content, str) else content
        return self._git(name, "hash-object", "-w", "--stdin", feed=data)

    def _git(self, name: str, *arguments: str, feed: bytes = b"") -> str:
        environment = _ENVIRONMENT | {"GIT_DIR": str(self._git_folder(name))}
        done = subprocess.run(["git", *arguments], input=feed, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, f"git {arguments}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode().strip()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # two hundred clicks at once are part of the tests
    host: GitHost


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass  # the paths are in GitHost.requests

    def _answer(self, body: bytes) -> None:
        host = self.server.host
        host.requests.append(self.path)
        host.headers.update(self.headers.keys())
        process = subprocess.Popen(
            ["git", "http-backend"],
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(body)
            process.stdin.close()
            self._relay(process)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough, as it does over its size limit
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def _relay(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        headers: list[tuple[str, str]] = []
        for line in iter(process.stdout.readline, b""):
            if not line.strip():
                break
            key, _, value = line.decode().partition(":")
            headers.append((key, value.strip()))
        status = dict(headers).pop("Status", "200 OK")
        self.send_response(int(status.split()[0]))
        for key, value in headers:
            if key != "Status":
                self.send_header(key, value)
        self.end_headers()
        rate = self.server.host.bytes_per_second
        step = min(_CHUNK_BYTES, rate // 10) if rate else _CHUNK_BYTES
        for chunk in iter(lambda: process.stdout.read1(step), b""):
            self.wfile.write(chunk)
            if rate:
                time.sleep(len(chunk) / rate)

    def _environment(self) -> dict[str, str]:
        url = urlsplit(self.path)
        path = unquote(url.path)
        owner_and_name = "/".join(path.split("/")[1:3])
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.host.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path.replace(owner_and_name, owner_and_name.removesuffix(".git"), 1),
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.server.host.bare_commits:
            # Protocol 2 gives every commit that is asked for; the older ones give the tips of refs alone.
            variables["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        return _ENVIRONMENT | variables


class SilentHost:
    """A host that takes every connection and never finishes an answer.

    Args:
        drip: Whether a byte comes every 50 ms, so that the connection never looks idle.
    """

    def __init__(self, *, drip: bool = False) -> None:
        self._drip = drip
        self._stopped = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> SilentHost:
        """Take connections from now on."""
        self._socket.settimeout(0.05)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let go of every connection."""
        self._stopped.set()
        self._thread.join()
        for each in (self._socket, *self._connections):
            each.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                pass
            else:
                connection.sendall(f"HTTP/1.0 {HTTPStatus.OK.value} OK\r\nX-Slow: ".encode() if self._drip else b"")
                self._connections.append(connection)
            if self._drip:
                self._drip_once()

    def _drip_once(self) -> None:
        for connection in self._connections:
            try:
                connection.sendall(b".")
            except OSError:
                continue
