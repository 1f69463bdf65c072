"""stage: hands the strangers' image over to our half, in the staging place of its build."""

from __future__ import annotations

import argparse

from workflows.image import BuildName
from workflows.settings import Settings
from workflows.stores.staging import Staging


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build, after which the staging place is named")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Stage ``<workspace>/layout``.

    Raises:
        BuildError: There is no usable image in it.
        TooLargeError: It is larger than the setting ``max_image_bytes``.
        ConfigError: The registry refuses our credentials.
        TransientError: Network, registry or disk.
    """
    build = BuildName(options.build)
    Staging(settings).put(build, settings.workspace / "layout", _say)
    _say(f"staged {build}")


def _say(line: str) -> None:
    print(line, flush=True)
