"""Container storages and caches for tests: how they are used and cleaned, and how nothing of them stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.registries import wait_until
from workflows.builder.store import build_store
from workflows.cleaning.cleaner import Cleaner, Kind
from workflows.settings import MIB, Settings
from workflows.stores.containers import Containers


def podman(settings: Settings, *arguments: str, store: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | Containers(settings).environment(store)
    return subprocess.run(["podman", *arguments], env=environment, capture_output=True, text=True, check=False)


def keep(settings: Settings, layout: Path, name: str, *, store: Path) -> None:
    """Put a layout's image into a storage."""
    environment = os.environ | Containers(settings).environment(store)
    command = ["skopeo", "copy", f"oci:{layout}:image", f"containers-storage:{name}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def serve_containers(settings: Settings) -> subprocess.Popen[bytes]:
    """Podman's API on the settings' socket, ready; the caller ends it."""
    socket = settings.container_socket
    socket.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{socket}"],
        env=os.environ | Containers(settings).environment(),
        stderr=subprocess.DEVNULL,
    )
    wait_until(socket.exists, process)
    return process


def forget(containers: Containers) -> None:
    """Remove containers of a test's storages, their mounts and what lies outside its state folder."""
    for store in (containers.images, containers.base):
        environment = os.environ | containers.environment(store)
        subprocess.run(
            ["podman", "rm", "--all", "--force", "--time=0"], env=environment, check=True, capture_output=True
        )
        unmount(store, containers.runroot(store))
        shutil.rmtree(containers.runroot(store), ignore_errors=True)


def unmount(*folders: Path) -> None:
    """Let go of what container tools leave mounted below folders, which pytest could never delete otherwise."""
    mounts = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if any(mount.is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", mount], check=True)


def fill(settings: Settings, key: str, size: int = MIB) -> Path:
    """The cache of a repository that has built something of that size."""
    with build_store(settings, key) as store:
        (store.graph / "overlay").mkdir()
        (store.graph / "overlay" / "layer").write_bytes(os.urandom(size))
        (store.scratch / "buildah-cache").mkdir()
        (store.scratch / "buildah-cache" / "kept").write_bytes(os.urandom(size))
    return store.graph


def clean(*kinds: Kind, later_seconds: float = 0, missing: Callable[[], int] = lambda: 0) -> None:
    """One round, so many seconds from now."""
    Cleaner(kinds, missing, clock=lambda: time.time() + later_seconds).round()
