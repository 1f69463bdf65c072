"""build: the checkout becomes an image, by repo2docker with our engine, in an OCI layout."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repo2docker.__main__ import make_r2d
from repo2docker.buildpacks import PythonBuildPack
from repo2docker.engine import ContainerEngineException
from traitlets.config import Config

from workflows.build import BuildOptions
from workflows.builder import isolation
from workflows.builder.foundation import UID, USER, Bases
from workflows.builder.store import key_of
from workflows.builder.uv import with_uv
from workflows.errors import ArgosyError, BuildError, ConfigError, OutOfMemoryError, PolicyError, TooLargeError
from workflows.image import ImageName
from workflows.settings import MIB, Settings
from workflows.stores.layout import manifest_of

_ALLOWED = ("--subdir=", "--target-repo-dir=")
"""repo2docker's arguments that a request may bring; others would reach this machine (``--volume``, ``--engine``)."""

_OWN_BYTES = 512 * MIB
"""What repo2docker and the tools that it starts need in any case."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build")
    parser.add_argument("--repo-url", required=True, help="the repository's address, for the image's labels")
    parser.add_argument("--commit", required=True, help="the commit, for the image's labels")
    parser.add_argument("--image", required=True, help="name and tag that the image is to have")
    parser.add_argument("--options", default="", help="what differs from the farm's defaults, as JSON")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Build ``<workspace>/source`` into ``<workspace>/layout``; repo2docker's JSON lines go to stdout as they are.

    Raises:
        BuildError: The repository's environment does not build.
        OutOfMemoryError: It needed more memory than it may have.
        TooLargeError: The image is larger than the setting ``max_image_bytes``.
        PolicyError: The request brings arguments that it may not.
        ConfigError: The farm is set up wrongly.
        TransientError: Network or disk.
    """
    wanted = BuildOptions.parse(options.options)
    source = (settings.workspace / "source").absolute()
    _check(wanted, source)
    isolation.sweep(options.build)
    if settings.engine == "local":
        _limit_memory(max(settings.build_memory_bytes, _OWN_BYTES))
    layout = settings.workspace / "layout"
    try:
        with _in_empty_folder(settings.workspace):
            _build(_repo2docker(options, wanted, source, settings), settings)
    finally:
        for name in ("context", "empty"):
            shutil.rmtree(settings.workspace / name, ignore_errors=True)
    manifest = manifest_of(layout)
    if sum(part["size"] for part in (manifest["config"], *manifest["layers"])) > settings.max_image_bytes:
        shutil.rmtree(layout, ignore_errors=True)
        raise TooLargeError(
            f"The image is larger than the {settings.max_image_bytes // MIB} MiB that are allowed here."
        )


def _limit_memory(size_bytes: int) -> None:
    """Bound what this process may have: repo2docker reads files of the repository here, outside the build's walls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [size_bytes, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))


def _check(wanted: BuildOptions, source: Path) -> None:
    for argument in wanted.repo2docker_args:
        if not argument.startswith(_ALLOWED):
            raise PolicyError("A build may not be given this argument of repo2docker.", detail=argument)
        name, _, value = argument.partition("=")
        if name == "--subdir" and not (source / value).resolve().is_relative_to(source.resolve()):
            raise BuildError("The subdirectory lies outside the repository.")


def _repo2docker(options: argparse.Namespace, wanted: BuildOptions, source: Path, settings: Settings) -> Any:
    arguments = [*settings.repo2docker_args, *wanted.repo2docker_args]
    arguments += ["--json-logs", "--no-run", "--no-push", f"--user-id={UID}", f"--user-name={USER}", "--engine=argosy"]
    arguments += [f"--build-arg={name}={value}" for name, value in wanted.build_args]
    arguments += [f"--label=repo2docker.repo={options.repo_url}", f"--label=repo2docker.ref={options.commit}"]
    try:
        # A local name, because the final one may stand for something else in the registry.
        app = make_r2d([*arguments, f"--image-name=localhost/argosy/build:{options.commit[:40]}", str(source)])
    except SystemExit as error:
        raise ConfigError(detail=f"repo2docker refuses its arguments: {arguments}") from error
    app.update_config(
        Config(BuildahEngine={"build_name": options.build, "store_key": key_of(ImageName(options.image))})
    )
    app.base_image = wanted.base_image or settings.base_image
    app.appendix = "\n".join(filter(None, (settings.appendix, wanted.appendix)))
    app.buildpacks = with_uv(app.buildpacks, PythonBuildPack, fast_python=settings.fast_python)
    app.initialize([])
    # Its lines are the build's log, for visitors; they are not the operator's too.
    app.log.propagate = False
    for handler in app.log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stdout)
    return app


def _build(app: Any, settings: Settings) -> None:
    try:
        if not (Path(app.repo) / app.subdir / "Dockerfile").exists():
            Bases(settings, app.log.info).ensure(app.base_image)
        app.build()
    except ArgosyError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError("A file of this repository is too large to be read.") from error
    except ContainerEngineException as error:
        raise ConfigError(detail=f"repo2docker: {error}") from error
    except SystemExit as error:
        raise BuildError("repo2docker finds nothing to build in this repository.") from error
    except Exception as error:
        # repo2docker says what is wrong with a repository's files by whatever exception comes to hand.
        raise BuildError(f"repo2docker cannot read this repository: {error}"[:300], detail=repr(error)) from error


@contextlib.contextmanager
def _in_empty_folder(workspace: Path) -> Iterator[None]:
    """repo2docker reads a configuration from the folder in which it runs: let that be none of the repository's."""
    before, empty = Path.cwd(), workspace / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir(parents=True)
    os.chdir(empty)
    try:
        yield
    finally:
        os.chdir(before)
