"""Wheels that finished builds needed, kept for the next ones: written by our half, read-only to builds.

The folder ``wheels`` holds *layers*: uv caches that never change once they are there, each with what one build needed
and no layer before had. A build sees them as one cache and can change nothing in it: what its lines write there goes to
a layer that is thrown away. `Wheels.add` lets uv download into a layer of its own: wheels only, of names and versions
that were read from an SBOM and checked, so no line of a stranger's runs and the index's hashes hold. Small layers are
put together, so that there are few, and large ones are left alone: adding costs what is added. A layer goes when it is
no part of the cache and no build looks at it any more.

::

    <cache>/wheels/
    ├── newest      the numbers of the layers that are the cache now, the youngest first
    ├── <n>/        a layer
    ├── <n>.json    what is in it, and what was found to have no wheel
    ├── <n>.lock    held by whoever looks at it
    ├── empty/      what builds look at where there is nothing yet
    └── lock        held by whoever adds
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import unquote

import uv
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from workflows.settings import Settings
from workflows.stores.files import write_whole

_logger = logging.getLogger(__name__)

_PURL = re.compile(r"pkg:pypi/(?P<name>[A-Za-z0-9._-]{1,100})@(?P<version>[^?#]{1,100})(?:[?#].*)?")
_SITE = re.compile(rb"/lib/python(3\.[0-9]{1,2})/site-packages/")
_MAX_PACKAGES = 500
_TIMEOUT_SECONDS = 600
_LOOK_SECONDS, _LOOK_SHARE = 0.2, 10
"""How often is looked how much uv has unpacked, and how many times as long as a look takes is waited at least."""

_UNSATISFIABLE = "No solution found"
"""How uv begins to say that there is no such version, or no wheel of it. Source: uv 0.13."""

_GROWTH = 2
"""How many times as many files the next older layer has at least."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """What one layer holds.

    Args:
        number: Its name.
        kept: Packages, each as ``name==version``, a space, and the Python as ``3.11``.
        none: Those that were asked for and have no wheel, or one that is too large.
        size: Bytes of its files.
        files: How many files it has.
    """

    number: int
    kept: frozenset[str] = frozenset()
    none: frozenset[str] = frozenset()
    size: int = 0
    files: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"kept": sorted(self.kept), "none": sorted(self.none)})

    @classmethod
    def from_json(cls, text: str) -> _Layer:
        given = json.loads(text)
        return cls(**given | {"kept": frozenset(given["kept"]), "none": frozenset(given["none"])})


class Wheels:
    """The wheels that are kept.

    Args:
        settings: Folders, limits, and whether wheels are kept at all.
    """

    def __init__(self, settings: Settings) -> None:
        self._on = settings.wheel_cache
        self._limit_bytes = settings.wheel_limit_bytes
        self._index = settings.index_url
        self._folder = settings.cache_folder / "wheels"

    @contextlib.contextmanager
    def readable(self) -> Iterator[tuple[Path, ...]]:
        """The layers that are the cache now, the youngest first; they stay for as long as the context lasts.

        There is always one, unless no wheels are kept: what a build keeps for itself needs a place to be written to.
        """
        if not self._on:
            yield ()
            return
        while True:
            with contextlib.ExitStack() as stack:
                layers = [self._path(number) for number in self._newest()] or [self._empty()]
                for layer in layers:
                    lock = stack.enter_context(layer.with_suffix(".lock").open("a", encoding="ascii"))
                    fcntl.flock(lock, fcntl.LOCK_SH)
                # One that went between the look and the lock is no part of the cache any more.
                if all(layer.exists() for layer in layers):
                    yield tuple(layers)
                    return

    def add(self, packages: Iterable[Package], python: str = "") -> int:
        """Download wheels that are not kept yet; what has none is left out.

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
            return self._add(wanted, python or platform.python_version().rpartition(".")[0])

    def renew(self) -> None:
        """Begin anew with nothing; nothing happens while wheels are being added."""
        with self._locked_now() as is_ours:
            if is_ours:
                self._publish([])

    def remove_unused(self) -> None:
        """Remove the layers that are no part of the cache and that no build looks at, as every `add` does."""
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
        layers = [self._layer(number) for number in self._newest()]
        keys = {f"{package.name}=={package.version} {python}": package for package in wanted}
        known = frozenset().union(*(layer.kept | layer.none for layer in layers))
        if missing := {key: package for key, package in keys.items() if key not in known}:
            new = self._download(missing, python)
            # One that the limit leaves no room for begins anew.
            if new.size + sum(layer.size for layer in layers) > self._limit_bytes:
                layers = []
            layers = self._put_together([new, *layers])
            self._publish([layer.number for layer in layers])
        return sum(key in layer.kept for key in keys for layer in layers)

    def _download(self, missing: Mapping[str, Package], python: str) -> _Layer:
        """A layer of what is missing; it is no part of the cache yet."""
        folder = self._path(self._next())
        folder.mkdir()
        download = _Download(folder, python, self._index, self._limit_bytes)
        for part in _parts(missing):
            download.run(part)
        _own(folder)
        size, files = _measure(folder)
        return self._noted(
            _Layer(
                number=int(folder.name),
                kept=frozenset(download.kept),
                none=frozenset(download.none),
                size=size,
                files=files,
            )
        )

    def _put_together(self, layers: list[_Layer]) -> list[_Layer]:
        """Of layers, the youngest first, those that are not much larger than what is younger become one with it.

        Each is more than twice as large as the one before it then, so a file is linked anew a few times in all, and
        there are never more layers than the size of the cache has doublings.
        """
        while len(layers) > 1 and layers[1].files <= _GROWTH * layers[0].files:
            young, old, *others = layers
            folder = self._path(self._next())
            for each in (old, young):
                _link(self._path(each.number), folder)
            _own(folder)
            size, files = _measure(folder)
            both = _Layer(
                number=int(folder.name), kept=old.kept | young.kept, none=old.none | young.none, size=size, files=files
            )
            layers = [self._noted(both), *others]
        return layers

    def _publish(self, numbers: Iterable[int]) -> None:
        # From here on these are the cache.
        write_whole(self._folder / "newest", " ".join(map(str, numbers)))
        self._remove_unused(self._newest())

    def _newest(self) -> list[int]:
        try:
            return [int(number) for number in (self._folder / "newest").read_text(encoding="ascii").split()]
        except (FileNotFoundError, ValueError):
            return []

    def _next(self) -> int:
        return 1 + max((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), default=0)

    def _layer(self, number: int) -> _Layer:
        try:
            return _Layer.from_json(self._path(number).with_suffix(".json").read_text(encoding="ascii"))
        except (OSError, ValueError, TypeError, KeyError):
            # Of an older Argosy, which noted nothing.
            size, files = _measure(self._path(number))
            return self._noted(_Layer(number=number, size=size, files=files))

    def _noted(self, layer: _Layer) -> _Layer:
        write_whole(self._path(layer.number).with_suffix(".json"), layer.to_json())
        return layer

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _empty(self) -> Path:
        folder = self._folder / "empty"
        folder.mkdir(parents=True, exist_ok=True)
        _own(folder)
        return folder

    def _remove_unused(self, newest: list[int]) -> None:
        for path in self._folder.iterdir():
            if not path.name.isdigit() or int(path.name) in newest:
                continue
            lock_file = path.with_suffix(".lock")
            with lock_file.open("a", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(path, ignore_errors=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                lock_file.unlink(missing_ok=True)


class _End(Enum):
    """How a download ended."""

    KEPT = auto()
    NONE = auto()  # there is no such wheel, or it is too large: asking again would end the same way
    FAILED = auto()


class _Download:
    """Lets uv fill a folder, up to a limit of what it unpacks there.

    Args:
        cache: The folder, a uv cache.
        python: For which Python, as ``3.11``.
        index: In place of uv's own; empty: that.
        limit_bytes: Of the folder's files; what would go beyond is given up while it is unpacked.
    """

    def __init__(self, cache: Path, python: str, index: str, limit_bytes: int) -> None:
        self.kept: set[str] = set()
        self.none: set[str] = set()
        self._cache = cache
        self._target = cache.with_name("target")
        self._limit_bytes = limit_bytes
        self._command = [uv.find_uv_bin(), "pip", "install", "--no-config", "--no-deps", "--only-binary=:all:"]
        self._command += [f"--target={self._target}", f"--cache-dir={cache}", "--link-mode=hardlink", "--quiet"]
        self._command += ["--system-certs", f"--python-version={python}"]
        self._command += [f"--default-index={index}"] if index else []

    def run(self, packages: Mapping[str, Package]) -> None:
        """Download these: all at once if they go, one by one if one of them has no wheel."""
        if len(packages) > 1 and self._install(packages.values()) is _End.KEPT:
            self.kept |= packages.keys()
            return
        for key, package in packages.items():
            match self._install([package]):
                case _End.KEPT:
                    self.kept.add(key)
                case _End.NONE:
                    self.none.add(key)

    def _install(self, packages: Iterable[Package]) -> _End:
        before = self._archives()
        command = [*self._command, *(f"{package.name}=={package.version}" for package in packages)]
        with (
            self._cache.with_name("uv.log").open("w+b") as output,
            subprocess.Popen(command, stdout=output, stderr=output) as process,
        ):
            deadline, is_too_large = time.monotonic() + _TIMEOUT_SECONDS, False
            while process.poll() is None:
                began = time.monotonic()
                is_too_large = _measure(self._cache)[0] > self._limit_bytes
                if is_too_large or began > deadline:
                    process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(_LOOK_SECONDS, _LOOK_SHARE * (time.monotonic() - began)))
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip()
        shutil.rmtree(self._target, ignore_errors=True)
        if is_too_large or _measure(self._cache)[0] > self._limit_bytes:
            for path in self._archives() - before:
                shutil.rmtree(path, ignore_errors=True)
            return _End.NONE
        if process.returncode != 0:
            _logger.info("uv: %s", said[-500:])
            return _End.NONE if _UNSATISFIABLE in said else _End.FAILED
        return _End.KEPT

    def _archives(self) -> set[Path]:
        """What uv has unpacked, each a folder; in those with a dot it is at it."""
        return {*self._cache.glob("archive-v*/*"), *self._cache.glob(".tmp*")}


def _parts(packages: Mapping[str, Package], size: int = 50) -> Iterator[Mapping[str, Package]]:
    keys = list(packages)
    for start in range(0, len(keys), size):
        yield {key: packages[key] for key in keys[start : start + size]}


def _link(source: Path, target: Path) -> None:
    """Put all of a layer into another one by hard links, in the place of what is there."""
    for parent, folders, files in os.walk(source):
        there = target / Path(parent).relative_to(source)
        there.mkdir(exist_ok=True)
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            (there / name).unlink(missing_ok=True)
            os.link(Path(parent, name), there / name, follow_symlinks=False)


def _own(folder: Path) -> None:
    if os.geteuid() != 0:
        return
    for parent, folders, files in os.walk(folder):
        for name in ("", *folders, *files):
            os.chown(os.path.join(parent, name), _UID, _UID, follow_symlinks=False)  # noqa: PTH118  # many


def _measure(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files below a folder; what goes meanwhile does not count."""
    size = count = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # many
                count += 1
    return size, count
