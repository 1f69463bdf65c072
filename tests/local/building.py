"""The step `build` as a process, on cases of `tests/cases` and on files that a test makes up."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "cases"
COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One folder of `tests/cases`."""

    name: str
    reason: str
    contains: list[str]
    make: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    prints: str = ""
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Built:
    """How a build ended."""

    code: int
    log: str
    operator: str
    workspace: Path

    @property
    def messages(self) -> str:
        """What repo2docker said, out of its JSON lines."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        return "".join(str(json.loads(line)["message"]) for line in lines)


class Building:
    """A state folder with a base image in it, in which tests build."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.base = self._make_base()
        self._folder = folder
        self._count = 0
        self._names = itertools.count()

    def case(self, name: str) -> Case:
        return Case(name=name, **tomllib.loads((CASES / name / "case.toml").read_text()))

    def build_case(self, case: Case, more: Mapping[str, bytes] | None = None) -> Built:
        """Build a case, with further files."""
        source = self.checkout(CASES / case.name / "repository")
        for name, content in (more or {}).items():
            (source / name).write_bytes(content)
            (source / name).chmod(0o755)
        if case.make:
            subprocess.run([*tool(case.make), *case.make[1:]], cwd=source, check=True)
        return self.build(source, case.name, **case.settings)

    def checkout(self, repository: Path) -> Path:
        """A workspace whose source is a copy of `repository`."""
        self._count += 1
        source = self._folder / f"workspace-{self._count}" / "source"
        shutil.copytree(repository, source, symlinks=True)
        return source

    def command(self, repository: str, options: Mapping[str, Any] | None = None) -> list[str]:
        # No two builds have one name: each ends what an earlier one of its name has left.
        key = hashlib.sha256(f"{self._folder}{repository}{next(self._names)}".encode()).hexdigest()[:8]
        wanted = {"build_args": [["BASE", self.base]]} | (options or {})
        return [
            *(sys.executable, "-I", "-m", "workflows.run", "build"),
            *(f"--build=build-{repository}-1234567-{key}", f"--repo-url=http://example.test/{repository}"),
            *(f"--commit={COMMIT}", f"--image=localhost/argosy/{repository}:{COMMIT}"),
            f"--options={json.dumps(wanted)}",
        ]

    def environment(self, source: Path, **settings: str) -> dict[str, str]:
        own = {"state": str(self.state), "base_image": self.base, "workspace": str(source.parent)} | settings
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | {f"ARGOSY_{key.upper()}": own[key] for key in own}

    def build(
        self, source: Path, repository: str = "any", options: Mapping[str, Any] | None = None, **settings: str
    ) -> Built:
        """Build a checkout as the engine would."""
        command, environment = self.command(repository, options), self.environment(source, **settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return Built(code=done.returncode, log=done.stdout, operator=done.stderr, workspace=source.parent)

    def _make_base(self) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
        environment |= {"ARGOSY_STATE": str(self.state), "ARGOSY_BASE_IMAGE": "localhost/argosy/base:any"}
        command = [sys.executable, str(ROOT / "tools" / "base-image")]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()[-1]


def tool(command: list[str]) -> list[str]:
    """A tool that was installed beside this Python."""
    return [str(Path(sys.executable).with_name(command[0]))]
