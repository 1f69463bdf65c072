"""Wheels that finished builds needed, kept for the next ones: written by our half, read-only to builds.

The folder ``wheels`` holds generations of a uv cache. A build sees the newest one and can change nothing in it: what
its lines write there goes to a layer that is thrown away. `Wheels.add` makes the next generation out of hard links and
lets uv download into it: wheels only, of names and versions that were read from an SBOM and checked, so no line of a
stranger's runs and the index's hashes hold. A generation goes when no build looks at it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import uv
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from workflows.settings import Settings

_logger = logging.getLogger(__name__)

_PURL = re.compile(r"pkg:pypi/(?P<name>[A-Za-z0-9._-]{1,100})@(?P<version>[^?#]{1,100})(?:[?#].*)?")
_SITE = re.compile(rb"/lib/python(3\.[0-9]{1,2})/site-packages/")
_MAX_PACKAGES = 500
_TIMEOUT_SECONDS = 600
_UID = 1000
"""Who reads them in a build, and makes folders beside them in the layer that is thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One released version of one package.

    Args:
        name: As the index normalises it.
        version: As the standard spells it.
    """

    name: str
    version: str


def packages_of(sbom: bytes) -> list[Package]:
    """The PyPI packages that a CycloneDX SBOM names, checked, each once, at most 500.

    What is not a name and a released version by Python's own standards is left out.
    """
    try:
        components = json.loads(sbom).get("components", ())
        purls = [str(component.get("purl", "")) for component in components]
    except (ValueError, AttributeError, TypeError):
        return []
    found = {package for purl in purls if (package := package_of(purl))}
    return sorted(found)[:_MAX_PACKAGES]


def python_of(sbom: bytes) -> str:
    """The Python for which most packages of an SBOM are installed, as ``3.11``; empty where none says."""
    found = Counter(_SITE.findall(sbom)).most_common(1)
    return found[0][0].decode("ascii") if found else ""


def package_of(purl: str) -> Package | None:
    """The package that a purl names; None where it is not PyPI's, or no name and version."""
    match = _PURL.fullmatch(purl)
    if not match:
        return None
    try:
        name = canonicalize_name(match["name"], validate=True)
        version = Version(unquote(match["version"]))
    except (InvalidName, InvalidVersion):
        return None
    # A local version (1.0+cpu) is in no index.
    return None if version.local else Package(name=name, version=str(version))


class Wheels:
    """The generations of wheels.

    Args:
        settings: Folders, and whether wheels are kept at all.
    """

    def __init__(self, settings: Settings) -> None:
        self._on = settings.wheel_cache
        self._limit_bytes = settings.wheel_limit_bytes
        self._index = settings.index_url
        self._folder = settings.cache_folder / "wheels"

    @contextlib.contextmanager
    def readable(self) -> Iterator[Path | None]:
        """The newest generation, which stays for as long as the context lasts; None where nothing is kept."""
        if not self._on:
            yield None
            return
        with contextlib.ExitStack() as stack:
            newest = self._newest()
            if newest == 0:
                self._generation(0).mkdir(parents=True, exist_ok=True)
                self._own(self._generation(0))
            lock = stack.enter_context(self._lock_file(newest).open("a", encoding="ascii"))
            fcntl.flock(lock, fcntl.LOCK_SH)
            # One that went between the look and the lock: the next is there by then.
            yield self._generation(newest) if self._generation(newest).exists() else None

    def add(self, packages: Iterable[Package], python: str = "") -> int:
        """Download wheels; what has none is left out.

        Args:
            packages: What to keep.
            python: Their Python, as ``3.11``; empty: that of this process.

        Returns:
            How many are kept now of those that were asked for.
        """
        wanted = list(packages)
        if not self._on or not wanted:
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._add(wanted, python)

    def renew(self) -> None:
        """Begin anew with an empty generation; nothing happens while wheels are being added."""
        with self._locked_now() as is_ours:
            if is_ours:
                following = self._newest() + 1
                shutil.rmtree(self._generation(following), ignore_errors=True)
                self._generation(following).mkdir()
                self._publish(following)

    def remove_unused(self) -> None:
        """Remove the generations before the newest that no build looks at, as every `add` does."""
        with self._locked_now() as is_ours:
            if is_ours:
                self._remove_unused(self._newest())

    @contextlib.contextmanager
    def _locked_now(self) -> Iterator[bool]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _add(self, wanted: list[Package], python: str) -> int:
        newest = self._newest()
        following = self._generation(newest + 1)
        shutil.rmtree(following, ignore_errors=True)
        if self._generation(newest).exists() and _size(self._generation(newest)) < self._limit_bytes:
            shutil.copytree(self._generation(newest), following, copy_function=os.link, symlinks=True)
        following.mkdir(exist_ok=True)
        kept = sum(_download(following, part, python, self._index) for part in _parts(wanted))
        self._publish(newest + 1)
        return kept

    def _publish(self, number: int) -> None:
        self._own(self._generation(number))
        # From here on it is the newest: readers look for the highest number that is complete.
        (self._folder / "newest.new").write_text(str(number), encoding="ascii")
        (self._folder / "newest.new").replace(self._folder / "newest")
        self._remove_unused(number)

    def _newest(self) -> int:
        try:
            return int((self._folder / "newest").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def _generation(self, number: int) -> Path:
        return self._folder / str(number)

    def _lock_file(self, number: int) -> Path:
        return self._folder / f"{number}.lock"

    def _remove_unused(self, newest: int) -> None:
        for path in self._folder.iterdir():
            if not path.name.isdigit() or int(path.name) >= newest:
                continue
            lock_file = self._lock_file(int(path.name))
            with lock_file.open("a", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(path, ignore_errors=True)
                lock_file.unlink(missing_ok=True)

    @staticmethod
    def _own(folder: Path) -> None:
        if os.geteuid() != 0:
            return
        for parent, folders, files in os.walk(folder):
            for name in ("", *folders, *files):
                os.chown(os.path.join(parent, name), _UID, _UID, follow_symlinks=False)  # noqa: PTH118  # many


def _download(cache: Path, packages: list[Package], python: str, index: str) -> int:
    """Let uv fill `cache`; all at once if they go, one by one if one of them has no wheel."""
    if _install(cache, packages, python, index):
        return len(packages)
    return sum(_install(cache, [package], python, index) for package in packages) if len(packages) > 1 else 0


def _install(cache: Path, packages: list[Package], python: str, index: str) -> bool:
    target = cache.with_name("target")
    command = [uv.find_uv_bin(), "pip", "install", "--no-config", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += [f"--target={target}", f"--cache-dir={cache}", "--link-mode=hardlink", "--system-certs"]
    command += [f"--python-version={python}"] if python else []
    command += [f"--default-index={index}"] if index else []
    try:
        result = subprocess.run(
            [*command, *(f"{package.name}=={package.version}" for package in packages)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    finally:
        shutil.rmtree(target, ignore_errors=True)
    if result.returncode != 0:
        _logger.info("uv: %s", result.stderr.strip()[-500:])
    return result.returncode == 0


def _parts(packages: list[Package], size: int = 50) -> Iterator[list[Package]]:
    for start in range(0, len(packages), size):
        yield packages[start : start + size]


def _size(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # many
        for parent, _, files in os.walk(folder)
        for name in files
    )
