"""Every setting of Argosy: read once from the environment (``ARGOSY_…``), then passed on as one frozen value.

A field's description holds its unit, what None means and why the default is what it is; the table in the README is
made of them (``make docs``). Secrets come as files, so that no environment and no process list ever shows one.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflows.errors import ConfigError

PREFIX = "ARGOSY_"
GIB = 1024**3
MIB = 1024**2

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _default_state() -> Path:
    return Path("/var/lib/argosy") if os.geteuid() == 0 else Path.home() / ".local/share/argosy"


class Settings(BaseSettings):
    """The farm's settings. Build it by `load`, which lists every fault at once."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, enable_decoding=False
    )

    # --- this machine ---
    state: Path = Field(
        default_factory=_default_state,
        description="Folder of everything that Argosy keeps on this machine. By default `/var/lib/argosy` for root, "
        "`~/.local/share/argosy` otherwise.",
    )
    workspace: Path = Field(
        Path("/workspace"),
        description="Folder in which a step works; the engine sets it, one for each half of a build.",
    )
    engine: Literal["local", "argo"] = Field(
        "local",
        description="What executes builds: `local`, subprocesses of this machine; `argo`, Argo Workflows of a "
        "Kubernetes, found from within a pod or by `KUBECONFIG`.",
    )

    # --- Kubernetes ---
    builds_namespace: str = Field("argosy-builds", description="Namespace of the Workflows and their templates.")
    catalogue_namespace: str = Field(
        "argosy-catalogue", description="Namespace of the catalogue: one ConfigMap for each image that may start."
    )
    workflow_template: str = Field(
        "argosy-build",
        description="The WorkflowTemplate that web's builds refer to; the chart names it by its content.",
    )
    start_timeout_seconds: float = Field(
        600,
        gt=0,
        description="Seconds until a pod that finds no node, or whose image cannot be pulled, is given up: more than a "
        "node takes that must be started first.",
    )
    argo_ui_url: str = Field(
        "", description="Argo's UI as operators see it, for a link on a build's page; empty: none."
    )

    # --- web ---
    host: str = Field("127.0.0.1", description="Address on which web listens.")
    port: int = Field(8585, ge=1, le=65535, description="Port on which web listens; BinderHub's.")
    public_url: str = Field("", description="Web's address as visitors see it; empty: taken from each request.")
    keep_alive_seconds: float = Field(
        25, gt=0, description="Seconds between comments in an idle stream; below every common proxy's idle limit."
    )
    ledger_url: str = Field("", description="SQLAlchemy URL of the ledger; empty: SQLite in the state folder.")
    archive_url: str = Field(
        "", description="fsspec URL of finished logs, SBOMs and findings; empty: a folder in the state folder."
    )
    failure_memory_seconds: float = Field(
        3600, ge=0, description="Seconds for which a failure by the repository's own fault answers the next visitor."
    )

    # --- providers ---
    github_hostname: str = Field("github.com", description="Host of repositories under `gh`.")
    github_api_url: str = Field(
        "", description="Base of GitHub's REST API; empty: `https://api.` and the host name, as on github.com."
    )
    github_token_file: Path | None = Field(
        None, description="File that holds a GitHub token; none: anonymous, 60 requests an hour."
    )
    git_protocols: tuple[Literal["https", "http", "ssh", "git"], ...] = Field(
        ("https", "http", "ssh", "git"), description="Protocols that a `git` spec may use, as a JSON list."
    )
    resolve_timeout_seconds: float = Field(
        20, gt=0, description="Seconds until a host that does not answer is given up."
    )
    not_found_cache_seconds: float = Field(
        300, ge=0, description="Seconds for which an answer of 404 is remembered; BinderHub's 300."
    )

    # --- images ---
    image_prefix: str = Field(
        "localhost/argosy/", description="Before every image's name; ends in `/`, `-` or nothing, as in BinderHub."
    )
    image_store: Literal["storage", "registry"] = Field(
        "storage",
        validate_default=True,
        description="Where images live: `storage` (this machine's containers) or `registry`, which `argo` needs.",
    )
    registry_insecure: bool = Field(False, description="Whether the registry is spoken to over plain HTTP.")
    registry_auth_file: Path | None = Field(
        None, description="A containers-auth.json with write access to the registry; none: anonymous."
    )
    registry_ca_file: Path | None = Field(
        None,
        description="Certificate authorities (PEM) that the registry's certificate is checked against; none: those of "
        "this machine.",
    )
    registry_timeout_seconds: float = Field(
        20,
        gt=0,
        description="Seconds without a byte until a registry is given up; a copy gets ten times as long, because a "
        "registry is silent while it files a large layer.",
    )
    compression: Literal["none", "gzip", "zstd"] = Field(
        "none", description="How layers are compressed; `none` suits images that stay on this machine."
    )

    # --- builds ---
    base_image: str = Field(
        "docker.io/library/buildpack-deps:24.04", description="Image that repo2docker and our buildpack build on."
    )
    base_store: Path | None = Field(
        None,
        description="Folder of a container storage with base images, which builds read beside their own; the image in "
        "which builds run in a cluster carries one.",
    )
    foundation_image: str = Field(
        "",
        description="Name, without tag, of the image in a registry that holds the layers of `ARGOSY_BASE_STORE`, so "
        "that no build sends them; empty: each does.",
    )
    fast_python: bool = Field(
        True, description="Whether `requirements.txt` and `pyproject.toml` are built by uv instead of conda and pip."
    )
    wheel_cache: bool = Field(
        True, description="Whether wheels of finished builds are kept, read-only, for the next ones."
    )
    index_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9._~:/%+\[\]-]+)?$",
        description="Python package index that uv asks in place of its own, such as a proxy that caches. Builds see "
        "this address, so it must need no credentials.",
    )
    appendix: str = Field("", description="Dockerfile lines that repo2docker appends to every image.")
    repo2docker_args: tuple[str, ...] = Field((), description="Further arguments of repo2docker, as a JSON list.")
    parallel_builds: int = Field(2, ge=1, description="Builds that run at the same time on the farm.")
    parallel_builds_per_owner: int = Field(2, ge=1, description="Builds that run at the same time for one owner.")
    parallel_builds_per_network: int = Field(
        2, ge=1, description="Builds that run at the same time for one client network (/24 or /56)."
    )
    build_memory_bytes: int = Field(
        2 * GIB, ge=64 * MIB, description="Bytes of memory that a build's commands may use."
    )
    build_cpus: float = Field(2, gt=0, description="CPUs that a build's commands may use.")
    build_pids: int = Field(1024, ge=16, description="Processes and threads that a build's commands may have.")
    build_timeout_seconds: float = Field(3600, gt=0, description="Seconds until a whole build is ended.")
    queue_timeout_seconds: float = Field(3600, gt=0, description="Seconds until a build in the queue is given up.")
    silent_seconds: float = Field(900, gt=0, description="Seconds without any output until a step is ended.")
    fetch_timeout_seconds: float = Field(600, gt=0, description="Seconds until `fetch` is ended.")
    max_source_bytes: int = Field(
        2 * GIB, ge=1, description="Bytes of a repository at one commit, as downloaded and as laid out."
    )
    max_image_bytes: int = Field(
        16 * GIB, ge=1, description="Bytes of an image, as laid out, and of what its build writes meanwhile."
    )
    max_image_files: int = Field(
        1_000_000, ge=1, description="Files and folders that a build may write, what it builds on not counted."
    )
    max_log_bytes: int = Field(
        8 * MIB, ge=4096, description="Bytes of a step's output that are kept, half of them head and half tail."
    )

    # --- cleaning ---
    clean_every_seconds: float = Field(
        600, gt=0, description="Seconds between two rounds of cleaning; what builds fill is looked at after each, too."
    )
    min_free_bytes: int = Field(
        4 * GIB,
        ge=0,
        description="Bytes that stay free on the state folder's disk, a tenth of it at most: where fewer are, cleaning "
        "goes below its limits and no build begins.",
    )
    image_limit_bytes: int = Field(
        50 * GIB, ge=0, description="Bytes of images in this machine's storage, shared layers once."
    )
    build_cache_limit_bytes: int = Field(
        20 * GIB, ge=0, description="Bytes of layers kept for repositories' next builds."
    )
    wheel_limit_bytes: int = Field(8 * GIB, ge=0, description="Bytes of wheels kept for the next builds.")
    base_limit_bytes: int = Field(
        20 * GIB, ge=0, description="Bytes of base images, without those that other images stand on."
    )
    archive_limit_bytes: int = Field(10 * GIB, ge=0, description="Bytes of finished logs, SBOMs and findings.")
    ledger_limit_rows: int = Field(
        1_000_000, ge=1, description="Rows of builds, findings and launches in the ledger, of about 500 bytes each."
    )
    keep_seconds: float = Field(
        365 * 86400, gt=0, description="Seconds for which a finished build stays in ledger and archive: a year."
    )

    # --- scan ---
    scan_policy: Literal["off", "report", "enforce"] = Field(
        "report",
        description="`off`: no scan; `report`: findings are shown and nothing is stopped; `enforce`: an image is "
        "scanned before it is pushed, and what the rules below refuse never is.",
    )
    scan_severity: Literal["critical", "high", "medium", "low", "negligible", "unknown"] = Field(
        "high", description="Under `enforce`: the least severity that refuses an image; `unknown`: every one does."
    )
    scan_only_fixable: bool = Field(
        True,
        description="Under `enforce`: whether only what a newer version mends refuses an image. Every system has "
        "findings that nobody can mend.",
    )
    scan_ignore_file: Path | None = Field(
        None,
        description="Under `enforce`: a TOML file of findings that refuse no image, each with `id`, `reason`, "
        "`expires` and perhaps `package`; `workflows/scan/README.md` shows one.",
    )
    grype_db: Path | None = Field(
        None, description="Folder of Grype's database; none: Grype's own default, which it updates by itself."
    )
    grype_db_max_age_hours: float = Field(
        120, gt=0, description="Hours after which a database is called stale; Grype's own 120."
    )

    # --- launches ---
    hub_url: str = Field("http://127.0.0.1:8000/", description="The Hub as visitors see it, with a slash at the end.")
    hub_api_url: str = Field("http://127.0.0.1:8000/hub/api/", description="The Hub's REST API as web sees it.")
    hub_token_file: Path | None = Field(
        None, description="File that holds the Hub's API token; none: `secrets/hub-token` in the state folder."
    )
    launch_timeout_seconds: float = Field(
        600, gt=0, description="Seconds until one attempt to start a server is given up."
    )
    launch_attempts: int = Field(4, ge=1, description="Attempts to start a visitor's server; BinderHub's 4.")
    launch_retry_seconds: float = Field(4, ge=0, description="Seconds before the second attempt, doubling from there.")
    parallel_launches: int = Field(
        16, ge=1, description="Servers that may be starting at the same time; the Hub itself refuses above 64."
    )
    visitor_memory_bytes: int = Field(2 * GIB, ge=64 * MIB, description="Bytes of memory of a visitor's server.")
    visitor_cpus: float = Field(1, gt=0, description="CPUs of a visitor's server.")
    visitor_idle_seconds: int = Field(600, ge=10, description="Seconds without use after which a server is ended.")
    visitor_max_age_seconds: int = Field(6 * 3600, ge=60, description="Seconds after which a server is ended anyway.")
    visitor_limit: int = Field(50, ge=1, description="Servers that run at the same time on this machine.")

    @field_validator("git_protocols", "repo2docker_args", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        # Decoded here and not by pydantic-settings, whose own error would hide all other faults.
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError("not a JSON list") from error

    @field_validator("image_store")
    @classmethod
    def _within_reach(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("engine") == "argo" and value != "registry":
            raise ValueError("a pod reaches no storage of this machine: engine `argo` needs `registry`")
        return value

    @field_validator("builds_namespace", "catalogue_namespace", "workflow_template")
    @classmethod
    def _named(cls, value: str) -> str:
        # They become parts of the API server's paths.
        if not _KUBERNETES_NAME.fullmatch(value):
            raise ValueError("not a name in Kubernetes")
        return value

    # --- folders, all derived from the state ---
    @property
    def builds_folder(self) -> Path:
        """One folder for each build of the local engine."""
        return self.state / "builds"

    @property
    def staging_folder(self) -> Path:
        """Where the strangers' half hands images over to ours."""
        return self.state / "staging"

    @property
    def catalogue_folder(self) -> Path:
        """The images that the Hub may start, one file each."""
        return self.state / "catalogue"

    @property
    def cache_folder(self) -> Path:
        """What may be deleted at any time: build caches and wheels."""
        return self.state / "cache"

    @property
    def containers_folder(self) -> Path:
        """The container storage of images that run, its configuration and its socket."""
        return self.state / "containers"

    @property
    def secrets_folder(self) -> Path:
        """Tokens made on this machine; mode 0700, never mounted anywhere."""
        return self.state / "secrets"

    @property
    def launches_folder(self) -> Path:
        """One file for each launch in flight."""
        return self.state / "launches"

    @property
    def container_socket(self) -> Path:
        """The socket of the container engine, podman's or Docker's API."""
        return self.state / "run" / "podman.sock"

    @property
    def ledger(self) -> str:
        """The ledger's URL with its default filled in."""
        return self.ledger_url or f"sqlite:///{self.state / 'ledger.sqlite'}"

    @property
    def archive(self) -> str:
        """The archive's URL with its default filled in."""
        return self.archive_url or f"file://{self.state / 'archive'}"

    @property
    def github_api(self) -> str:
        """The base of GitHub's API with its default filled in, without a slash at the end."""
        return (self.github_api_url or f"https://api.{self.github_hostname}").rstrip("/")

    @property
    def hub_token_path(self) -> Path:
        """Where the Hub's token is read from."""
        return self.hub_token_file or self.secrets_folder / "hub-token"


def load() -> Settings:
    """The settings of this process, from its environment.

    Raises:
        ConfigError: One or more are wrong or do not exist; the message lists all of them.
    """
    faults = [
        f"{name}: no such setting" for name in sorted(os.environ) if name.startswith(PREFIX) and not _is_known(name)
    ]
    settings = None
    try:
        settings = Settings()
    except ValidationError as error:
        faults += [_fault(entry["loc"], entry["msg"]) for entry in error.errors()]
    if settings is None or faults:
        raise ConfigError(f"These settings are wrong: {'; '.join(faults)}. The README lists all of them.")
    return settings


def read_secret(path: Path | None) -> SecretStr | None:
    """The secret in a file, without the newline at its end; None where no file is named.

    Raises:
        ConfigError: The file is named and cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(detail=f"secret file {path}: {error}") from error
    if not secret:
        raise ConfigError(detail=f"secret file {path}: empty")
    return SecretStr(secret)


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables from which `load` makes the same settings again: what a subprocess is given."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        PREFIX + name.upper(): value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value != ""
    }


def _is_known(name: str) -> bool:
    # ARGOSY_TEST_… belongs to the tests, and ARGOSY_CLUSTER_… to the script that brings up a cluster for them.
    field = name.removeprefix(PREFIX).lower()
    return field in Settings.model_fields or field.startswith(("test_", "cluster_"))


def _fault(location: tuple[int | str, ...], message: str) -> str:
    return f"{PREFIX}{'.'.join(str(part) for part in location).upper()}: {message}"
