"""This machine's container storages, and the environment in which podman, buildah and skopeo use them.

Nothing below ``/etc`` is read that could differ between machines and nothing is written there: each storage has
configuration files of its own, handed over by environment variables. So several Argosys on one machine, and the
machine's own podman, do not see one another.

Source: containers.conf(5), containers-storage.conf(5), containers-registries.conf(5), containers-policy.json(5).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from workflows.errors import ConfigError, of_disk
from workflows.settings import Settings
from workflows.stores.files import write_whole

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")
_STORE_FILES = {
    # What containers/storage needs to find to take a folder for an (empty) additional image store.
    "overlay-images/images.json": "[]",
    "overlay-images/images.lock": "",
    "overlay-layers/layers.json": "[]",
    "overlay-layers/layers.lock": "",
}
STORE_MARK = "argosy-store"
"""In a runroot: the file that says whose it is, so that it can go when that storage is gone."""

_LIMIT = 1024
"""Open files and processes of a container. A machine without CAP_SYS_RESOURCE cannot raise the limits that podman
asks for by default, and then no container starts."""


class Containers:
    """The storages below the state folder.

    Three kinds: `images` holds what runs; `base` holds base images and is an additional, read-only store of all
    others, so that nothing unpacks a base image twice; each repository builds in a storage of its own
    (`repository`), so that no repository's layer cache is read by another.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._configuration = settings.containers_folder / "configuration"

    @property
    def images(self) -> Path:
        """The graph root of the images that run."""
        return self._settings.containers_folder / "storage"

    @property
    def base(self) -> Path:
        """The graph root of base images, which every other storage reads."""
        return self._settings.cache_folder / "base"

    @property
    def policy(self) -> Path:
        """The signature policy, for ``--policy`` (skopeo) and ``--signature-policy`` (podman, buildah).

        It accepts everything: what may run is decided by digest in the catalogue, not by signature.
        """
        return self._configuration / "policy.json"

    def additional(self, store: Path) -> tuple[Path, ...]:
        """The graph roots that are read beside `store`."""
        carried = (self._settings.base_store,) if self._settings.base_store else ()
        return tuple(path for path in (self.base, *carried) if path != store)

    def repository(self, slug: str) -> Path:
        """The graph root in which one repository's images are built.

        Raises:
            ConfigError: `slug` is no file name.
        """
        if not _SLUG.fullmatch(slug):
            raise ConfigError(detail=f"not a slug: {slug!r}")
        return self._settings.cache_folder / "repositories" / slug

    def runroot(self, store: Path | None = None) -> Path:
        """The folder of a storage's mounts and locks.

        Short, because podman refuses more than 50 characters and sockets lie in it; and where the machine forgets it
        at a restart, because a mount that is remembered but gone breaks the next start.
        """
        key = hashlib.sha256(os.fspath(store or self.images).encode()).hexdigest()[:12]
        run = (
            Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}"))
        )
        return run / "argosy" / key

    def mark_runroots(self) -> None:
        """Write into the runroots that this state's tools made whose they are.

        Raises:
            TransientError: The disk does not take it.
        """
        repositories = self.repository("any").parent
        for store in (self.images, self.base, *(path for path in repositories.glob("[a-z0-9]*") if path.is_dir())):
            if self.runroot(store).is_dir():
                self._keep(self.runroot(store) / STORE_MARK, str(store))

    def prepare(self) -> None:
        """Write what the tools need. Calling it again, also from several processes at once, changes nothing.

        Raises:
            TransientError: The disk does not take it.
        """
        for name, content in _STORE_FILES.items():
            path = self.base / name
            if not path.exists():
                self._create(path, content)
        for store in (self.images, self.base):
            self.environment(store)

    def environment(self, store: Path | None = None, runroot: Path | None = None) -> dict[str, str]:
        """Variables, beside those of the process, with which podman, buildah and skopeo work in `store`.

        Args:
            store: A graph root; None: the images that run.
            runroot: Where its mounts and locks lie; None: `runroot` of that store.
        """
        store = store or self.images
        runroot = runroot or self.runroot(store)
        key = hashlib.sha256(f"{store}\n{runroot}".encode()).hexdigest()[:12]
        files = {
            "CONTAINERS_CONF": (f"containers-{key}.conf", self._containers_conf(runroot)),
            "CONTAINERS_STORAGE_CONF": (f"storage-{key}.conf", self._storage_conf(store, runroot)),
            "CONTAINERS_REGISTRIES_CONF": ("registries.conf", self._registries_conf()),
        }
        self._keep(self.policy, json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        for name, text in files.values():
            self._keep(self._configuration / name, text)
        return {variable: str(self._configuration / name) for variable, (name, _) in files.items()} | self._registry()

    def _registry(self) -> dict[str, str]:
        """Whom the tools trust as a registry, and as whom they come, where they are told neither by an option."""
        given = {}
        if self._settings.registry_ca_file:
            path = self._configuration / "authorities" / "registry.pem"
            try:
                self._keep(path, self._settings.registry_ca_file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(detail=f"ARGOSY_REGISTRY_CA_FILE: {error}") from error
            # Beside what the machine trusts: base images come from elsewhere.
            given["SSL_CERT_DIR"] = f"{path.parent}:{os.environ.get('SSL_CERT_DIR', '/etc/ssl/certs')}"
        if self._settings.registry_auth_file:
            given["REGISTRY_AUTH_FILE"] = str(self._settings.registry_auth_file)
        return given

    @staticmethod
    def _keep(path: Path, text: str) -> None:
        # Written only where it differs: many processes ask for the same files at the same time.
        try:
            unchanged = path.read_text(encoding="utf-8") == text
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            write_whole(path, text)

    @staticmethod
    def _create(path: Path, content: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Exclusively: another process may have begun to fill this store already.
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            return
        except OSError as error:
            raise of_disk(error, f"cannot write {path}") from error

    @staticmethod
    def _containers_conf(runroot: Path) -> str:
        return f"""\
[containers]
default_ulimits = ["nofile={_LIMIT}:{_LIMIT}", "nproc={_LIMIT}:{_LIMIT}"]
log_driver = "k8s-file"
log_size_max = 10485760

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
events_logfile_path = {_quoted(runroot / "events.log")}
# Of its own: a second podman that shared these would free the locks of the first at its start.
tmp_dir = {_quoted(runroot / "libpod")}
lock_type = "file"
"""

    def _storage_conf(self, store: Path, runroot: Path) -> str:
        additional = [str(path) for path in self.additional(store)]
        return f"""\
[storage]
driver = "overlay"
graphroot = {_quoted(store)}
runroot = {_quoted(runroot)}

[storage.options]
additionalimagestores = {json.dumps(additional)}

[storage.options.overlay]
mountopt = "nodev"
# Otherwise each tool that looks into a storage mounts its folder on itself, and skopeo leaves that behind.
skip_mount_home = "true"
"""

    def _registries_conf(self) -> str:
        text = 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "permissive"\n'
        if self._settings.image_store == "registry" and self._settings.registry_insecure:
            host = self._settings.image_prefix.partition("/")[0]
            text += f"\n[[registry]]\nlocation = {_quoted(host)}\ninsecure = true\n"
        return text


def _quoted(value: object) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(str(value))
