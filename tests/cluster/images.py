"""Images for cluster tests, built on this machine and pushed to the registry that the nodes pull from."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.site import REGISTRY

SCRIPTED = Path(__file__).parent / "scripted"
ROOT = Path(__file__).resolve().parents[2]


def scripted() -> str:
    """An image of a few megabytes whose steps do what the settings of the test say."""
    script = (SCRIPTED / "python").read_bytes()
    name = f"{REGISTRY}/tests/scripted:{hashlib.sha256(script).hexdigest()[:12]}"
    if _is_there(name):
        return name
    container = _run("buildah", "from", "scratch")
    try:
        root = Path(_run("buildah", "mount", container))
        for folder in ("bin", "tmp", "dev"):
            (root / folder).mkdir()
        shutil.copy(Path("/bin/busybox"), root / "bin/busybox")
        for applet in _run("/bin/busybox", "--list").split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        shutil.copy(SCRIPTED / "python", root / "bin/python")
        _run("buildah", "config", "--user", "1000:1000", "--env", "PATH=/bin", container)
        _run("buildah", "commit", "--quiet", container, name)
        _run("buildah", "push", "--quiet", "--tls-verify=false", name)
    finally:
        _run("buildah", "rm", container)
    return name


@functools.cache
def real() -> dict[str, str]:
    """The farm's own images, by name, as `make images` builds and pushes them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
    environment |= {"ARGOSY_REGISTRY_INSECURE": "true"}
    command = [ROOT / "tools" / "images", "--push", REGISTRY]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, "tools/images failed"
    return dict(line.split() for line in done.stdout.splitlines())


def _is_there(name: str) -> bool:
    command = ["skopeo", "inspect", "--no-tags", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
