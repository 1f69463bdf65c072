"""repo2docker's engine on buildah, entry point ``argosy`` of the group ``repo2docker.engines``.

`Buildah` runs the tool behind `walls`; `BuildahEngine` is what repo2docker sees.

Source: repo2docker 2026.4 ``engine.py``; buildah-build(1).
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import tarfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from repo2docker.engine import ContainerEngine, Image
from traitlets import Unicode

from workflows.builder.complaint import error_of, says_full
from workflows.builder.growth import Growth
from workflows.builder.isolation import Sandbox
from workflows.builder.pod import Pod
from workflows.builder.store import BuildStore, build_store
from workflows.builder.walls import Overlay, Walls
from workflows.errors import BuildError, OutOfMemoryError, unless_killed
from workflows.settings import Settings, load
from workflows.stores.containers import Containers
from workflows.stores.disk import missing_bytes

_TAIL_LINES = 40
_PIECE_BYTES = 16 * 1024
"""Of output, at most: a line without an end would fill the memory of this process, which has no limit. As JSON, where a
character may take six, it still is one line of the log."""

_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""A machine without CAP_SYS_RESOURCE cannot raise the limits that buildah asks for by default."""


class Buildah:
    """buildah behind walls, working in one storage.

    Args:
        build: The build's name.
        settings: Limits and folders.
        store: The storage.
        readable: Further folders that it sees.
        overlays: Folders that seem writable to it.
        growth: What it may write; None: as much as the disk takes, for images of our own.
    """

    def __init__(
        self,
        build: str,
        settings: Settings,
        store: BuildStore,
        *,
        readable: tuple[Path, ...] = (),
        overlays: tuple[Overlay, ...] = (),
        growth: Growth | None = None,
    ) -> None:
        containers = Containers(settings)
        containers.prepare()
        # Mounts and locks lie in memory behind the walls: they go when the build goes, however it ends.
        configuration = containers.environment(store.graph, Path("/run/containers"))
        self._policy = containers.policy
        self._environment = configuration | {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp",  # noqa: S108  # behind the walls
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(store.scratch),
            # Being root there, buildah would otherwise think that it may do what only this machine's root may.
            "_CONTAINERS_USERNS_CONFIGURED": "done",
        }
        self._settings = settings
        self._graph = store.graph
        self._growth = growth
        self._walls: Walls
        if settings.engine == "argo":
            self._walls = Pod(overlays)
        else:
            self._walls = Sandbox(
                build,
                settings,
                readable=(*containers.additional(store.graph), containers.policy.parent, *readable),
                writable=(store.graph, store.scratch),
                overlays=overlays,
            )

    def run(self, subcommand: str, *arguments: str) -> Iterator[str]:
        """What buildah prints, as many whole lines at a time as there are; one of over 16 KiB comes in pieces.

        Raises:
            BuildError: What it was asked to build does not build.
            OutOfMemoryError: It needed more memory than it may have.
            TooLargeError: It writes more than it may.
            TransientError: Network or disk.
            ConfigError: The machine does not let us.
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        is_full = False
        command = ["buildah", subcommand, *arguments]
        with (
            self._walls as walls,
            walls.start(command, self._environment) as process,
            self._growth.watch(process) if self._growth else contextlib.nullcontext(),
        ):
            try:
                for piece in _pieces(process.stdout):
                    tail.extend(piece.splitlines(keepends=True))
                    # Looked at now: at the end what this build wrote is gone. A line can print these words, too.
                    is_full = is_full or (says_full(piece) and missing_bytes(self._settings, self._graph) > 0)
                    yield piece
                code = process.wait()
            finally:
                process.kill()
            if code == 0:
                return
            if walls.ran_out_of_memory():
                raise OutOfMemoryError
            raise error_of("".join(tail), unless_killed("buildah", code), is_full=is_full)

    def build(self, context: Path, dockerfile: Path, tag: str, options: Sequence[str] = ()) -> Iterator[str]:
        """Build an image; see `run` for what it raises."""
        # Docker's format: OCI's has no SHELL, so a Dockerfile that sets it would lose it between two lines.
        return self.run(
            "build",
            f"--signature-policy={self._policy}",
            *self._walls.options,
            # That of the walls: the only way out leads through their firewall.
            "--network=host",
            # Nobody builds with it, and it sends in anybody's name.
            "--cap-drop=CAP_NET_RAW",
            "--format=docker",
            *_LIMITS,
            f"--tag={tag}",
            f"--file={dockerfile}",
            *options,
            str(context),
        )

    def pull(self, image: str) -> Iterator[str]:
        """Pull an image; see `run` for what it raises."""
        return self.run("pull", f"--signature-policy={self._policy}", "--quiet", image)


class BuildahEngine(ContainerEngine):  # type: ignore[misc]  # repo2docker has no types
    """The engine that repo2docker calls: builds images, and runs none."""

    build_name = Unicode("build-by-hand", config=True, help="The build's name: its limits are kept under it.")
    store_key = Unicode("by-hand", config=True, help="Which repository's layer cache to use.")

    def build(
        self,
        *,
        buildargs: Mapping[str, str] | None = None,
        tag: str = "",
        dockerfile: str = "",
        fileobj: IO[bytes] | None = None,
        path: str = "",
        labels: Mapping[str, str] | None = None,
        volumes: Mapping[str, tuple[Path, ...]] | None = None,
        **unused: Any,  # noqa: ARG002  # repo2docker's signature
    ) -> Iterator[str]:
        """Build an image and write it as a layout to ``<workspace>/layout``.

        Args:
            buildargs: Build arguments.
            tag: The image's name in the storage.
            dockerfile: In the context.
            fileobj: The context as a tar file; otherwise `path` is it.
            path: The context's folder.
            labels: Of the image.
            volumes: Where RUN lines see folders of this machine, the upper ones first; what they write there is thrown
                away.
            unused: Push, load, platform, cache_from: repo2docker's, for engines that can.

        Raises:
            ArgosyError: As `Buildah.run`.
        """
        # Here, because an engine may also be made only to be asked for its name.
        from workflows.stores.exporter import Exporter  # noqa: PLC0415

        settings = load()
        volumes = volumes or {}
        context = _unpacked(fileobj, settings.workspace / "context") if fileobj else Path(path)
        options = [f"--build-arg={name}={value}" for name, value in (buildargs or {}).items()]
        options += [f"--label={name}={value}" for name, value in (labels or {}).items()]
        with build_store(settings, self.store_key) as store:
            overlays = _overlays(volumes, store)
            options += [f"--volume={each.target}:{target}" for each, target in zip(overlays, volumes, strict=True)]
            growth = Growth(settings, store)
            buildah = Buildah(
                self.build_name,
                settings,
                store,
                readable=(context, *chain(*volumes.values())),
                overlays=overlays,
                growth=growth,
            )
            if store.leaked:
                yield from Buildah(self.build_name, settings, store).run("rm", "--all")
            file = context / (dockerfile or "Dockerfile")
            yield from buildah.build(context, file, tag, ["--layers", *options])
            growth.check()
            lines: list[str] = []
            layout = settings.workspace / "layout"
            shutil.rmtree(layout, ignore_errors=True)
            Exporter(settings).export(store.graph, tag, layout, lines.append)
            yield "Wrote the image's layers.\n"

    def inspect_image(self, image: str) -> Image | None:  # noqa: ARG002  # repo2docker's signature
        """None: every build is asked of buildah, which knows by its layer cache what is to be done."""
        return None


def _pieces(output: IO[bytes] | None) -> Iterator[str]:
    """What is printed, as it comes: to read it line by line would take longer than printing it does.

    Source: buildah 1.28 ``run_common.go``: what it could not write at once as a command ends, it leaves out.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    rest = ""
    while data := output.read1(_PIECE_BYTES - len(rest)) if output else b"":  # type: ignore[attr-defined]
        whole, newline, rest = (rest + decoder.decode(data)).rpartition("\n")
        if newline:
            yield whole + newline
        elif len(rest) >= _PIECE_BYTES:
            yield rest
            rest = ""
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


def _overlays(volumes: Mapping[str, tuple[Path, ...]], store: BuildStore) -> tuple[Overlay, ...]:
    found = []
    for number, lowers in enumerate(volumes.values()):
        upper = store.scratch / f"volume-{number}"
        upper.mkdir()
        found.append(Overlay(lowers=lowers, upper=upper, target=Path(f"/volumes/{number}")))
    return tuple(found)


def _unpacked(archive: IO[bytes], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=archive) as tar:
        # Debian 12's Python has no filters; newer ones must be told to leave links and modes as they are.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(folder, members=_harmless(tar, folder.resolve()))  # noqa: S202  # checked one by one
    return folder


def _harmless(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """Each member, checked once all before it are unpacked: through none of their links does it lead out."""
    for member in tar:
        # A hard link's target is a place in the archive, as a name is.
        places = (member.name, member.linkname) if member.islnk() else (member.name,)
        if member.isdev() or not all((folder / place).resolve().is_relative_to(folder) for place in places):
            raise BuildError("A file of this repository would lie outside of it.", detail=f"context: {member.name}")
        member.mode &= 0o777
        yield member


def has_buildah() -> bool:
    """Whether the tools are there."""
    return all(shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") for tool in ("buildah", "runc"))
