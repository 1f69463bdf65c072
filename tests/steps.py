"""One build's steps after ``build``, by their own run()."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from tests.images import DEBIAN, python_package, write_layout
from workflows.image import BuildName, ImageName
from workflows.settings import Settings

BUILD = BuildName("build-demo-1a2b3c4-01234567")
VULNERABLE = DEBIAN | python_package("requests", "2.19.0")


class Build:
    """One build's two workspaces and the steps after ``build``."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.image = ImageName(f"{settings.image_prefix}demo-abc123:1a2b3c4")
        self.settings = settings.model_copy(update={"workspace": folder / "strangers"})
        self.ours = settings.model_copy(update={"workspace": folder / "ours"})
        for each in (self.settings, self.ours):
            each.workspace.mkdir()

    def write(self, files: dict[str, str]) -> str:
        return write_layout(self.settings.workspace / "layout", files, name="localhost/a-strangers/name:1")

    def run(self, step: str, settings: Settings | None = None, **changes: str) -> None:
        module = importlib.import_module(f"workflows.steps.{step}")
        parser = argparse.ArgumentParser()
        module.arguments(parser)
        given = {
            "build": BUILD,
            "image": self.image,
            "provider": "git",
            "spec": "x/main",
            "commit": "1a2b3c4",
            "repo-url": "https://example.org/x",
        } | changes
        wanted = [option.removeprefix("--") for option in parser._option_string_actions]
        options = parser.parse_args([f"--{name}={given[name]}" for name in wanted if name in given])
        module.run(options, settings or (self.settings if step == "stage" else self.ours))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]
