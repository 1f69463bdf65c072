"""A package index of the tests, on loopback: wheels that a test makes up, and what was asked for."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Index:
    """Answers as PEP 503 says; holds what `add` was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The projects whose pages were asked for, in order."""
        self.is_away = False
        self._files: dict[str, bytes] = {}
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"

    @contextmanager
    def serving(self) -> Iterator[Index]:
        """Serves for as long as this is entered."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()
        thread.join()

    def add(self, name: str, version: str = "1.0", files: Mapping[str, bytes] | None = None) -> None:
        """Offers a wheel for every Python, of these files."""
        self._files[f"{name}-{version}-py3-none-any.whl"] = wheel(name, version, files or {f"{name}.py": b"pass\n"})

    def add_source(self, name: str, version: str = "1.0") -> None:
        """Offers a source distribution, of which nobody gets so far as to look into it."""
        self._files[f"{name}-{version}.tar.gz"] = b"never unpacked"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        place, _, name = request.path.strip("/").rpartition("/")
        if self.is_away:
            request.send_error(503)
        elif place == "simple":
            self.asked.append(name)
            links = [file for file in self._files if file.startswith(f"{name}-")]
            page = "".join(f'<a href="/files/{file}">{file}</a>\n' for file in links)
            self._send(request, page.encode(), "text/html") if links else request.send_error(404)
        elif name in self._files:
            self._send(request, self._files[name], "application/octet-stream")
        else:
            request.send_error(404)

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, content: bytes, kind: str) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def wheel(name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel of these files, as an installer takes it."""
    info = f"{name}-{version}.dist-info"
    whole = dict(files) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, content in whole.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow([path, f"sha256={digest}", len(content)])
    rows.writerow([f"{info}/RECORD", "", ""])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in (*whole.items(), (f"{info}/RECORD", record.getvalue().encode())):
            archive.writestr(path, content)
    return packed.getvalue()
