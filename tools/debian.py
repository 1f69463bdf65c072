"""Debian as a tree of files, by mmdebstrap: what images are based on where docker.io cannot be reached.

The mirror and the suite are those of this machine's own apt; its CA bundle and its pip configuration go along.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import requests

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argosy"
REGISTRY = "https://registry-1.docker.io/v2/"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PIP = Path("/etc/pip.conf")
NEEDLESS = ("usr/share/doc/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*_*", "usr/share/locale/??",
            "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "var/cache/apt/*.bin", "var/log/*.log",
            "etc/dpkg/dpkg.cfg.d/99mmdebstrap")  # fmt: skip

OPTIONS = ("--variant=minbase", "--mode=root", "--dpkgopt=force-unsafe-io")
"""Of mmdebstrap. The tree is of no use unless it is whole, so dpkg need not wait for the disk after each package."""

BARE = "".join(f"path-exclude=/usr/share/{name}/*\n" for name in ("doc", "info", "locale", "man"))


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree of Debian as a tar file.

    Args:
        name: What its files in the cache are called after.
        packages: What is in it beside the least that there is.
        bare: Whether what apt installs there later comes without manuals and translations, as in docker.io's slim ones.
    """

    name: str
    packages: tuple[str, ...]
    bare: bool = False

    @property
    def suite(self) -> str:
        """Debian's name of the release."""
        return apt_source()[1]

    @property
    def path(self) -> Path:
        """The tar file; its name holds all that it is made of."""
        parts = [*apt_source(), self.packages, read(CA_BUNDLE), read(PIP), NEEDLESS, OPTIONS]
        parts += [BARE] if self.bare else []
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        return CACHE / f"{self.name}-{key}.tar"

    def make(self) -> Path:
        """Make the tar file where it is missing."""
        if not self.path.exists():
            bootstrap(self)
        for old in CACHE.glob(f"{self.name}-*.tar"):
            # What another recipe made is of no use any more.
            if old != self.path:
                old.unlink()
        return self.path


BASE = Tree(
    name="base",
    packages=(
        "build-essential", "bzip2", "ca-certificates", "curl", "gettext-base", "git", "less", "locales", "netbase",
        "openssh-client", "procps", "python3", "python3-dev", "python3-pip", "python3-venv", "unzip", "xz-utils",
    ),
)  # fmt: skip
"""What builds stand on."""

SLIM = Tree(name="slim", packages=("ca-certificates",), bare=True)
"""What the farm's own images stand on."""


def reaches_docker_io() -> bool:
    """Whether images can be had from docker.io."""
    try:
        return requests.get(REGISTRY, timeout=5).status_code in {requests.codes.ok, requests.codes.unauthorized}
    except requests.RequestException:
        return False


def bootstrap(tree: Tree) -> None:
    """Write a tree of Debian to its tar file."""
    mirror, suite = apt_source()
    print(f"Making an image of Debian {suite}; this takes one to two minutes, once.", file=sys.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="argosy-tree-", dir=CACHE) as folder:
        root = Path(folder, "root")
        run("mmdebstrap", *OPTIONS, f"--include={','.join(tree.packages)}", suite, str(root), mirror)
        if "locales" in tree.packages:
            root.joinpath("etc/locale.gen").write_text("en_US.UTF-8 UTF-8\n", encoding="ascii")
            run("chroot", str(root), "locale-gen")
        if tree.bare:
            root.joinpath("etc/dpkg/dpkg.cfg.d/bare").write_text(BARE, encoding="ascii")
        strip(root)
        made = Path(folder, "tree.tar")
        run("tar", "--directory", str(root), "--numeric-owner", "--xattrs", "--sort=name", "--create", "--file",
            str(made), ".")  # fmt: skip
        made.rename(tree.path)


def strip(root: Path) -> None:
    """Take out of a tree what no image needs, and put in how this machine reaches the network."""
    for pattern in NEEDLESS:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for source in (CA_BUNDLE, PIP):
        if source.exists():
            target = root / source.relative_to("/")
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)


def apt_source() -> tuple[str, str]:
    """The mirror and the suite of Debian that this machine itself installs from."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read(Path("/etc/os-release")), flags=re.MULTILINE))
    suite = release.get("VERSION_CODENAME", "")
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for text in map(read, files):
        if found := re.search(rf"^deb (?:\[.*?\] )?(\S+) {suite} ", text, flags=re.MULTILINE):
            return found[1], suite
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+):\s*(.*)$", stanza, flags=re.MULTILINE))
            if suite and suite in fields.get("Suites", "").split():
                return fields["URIs"].split()[0], suite
    raise SystemExit("This machine's apt has no source of its own release: set ARGOSY_BASE_IMAGE yourself.")


def read(path: Path) -> str:
    """A file's text; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def run(*command: str, **environment: str) -> None:
    """Run a tool, and show what it said if it fails."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    env = os.environ | {"PATH": path} | environment
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if result.returncode != 0:
        raise SystemExit(f"{command[0]}: {(result.stdout + result.stderr)[-2000:]}")
