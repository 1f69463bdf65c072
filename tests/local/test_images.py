"""The images of a cluster, as `make images` builds them: what is in them, what is not, and as whom they run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.conftest import ROOT
from tests.storages import forget
from workflows.settings import Settings
from workflows.stores.containers import Containers


class Images:
    """Our images in a storage of this test's own."""

    def __init__(self, state: Path) -> None:
        self.containers = Containers(Settings(state=state))
        self.containers.prepare()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
        done = subprocess.run(
            [ROOT / "tools" / "images"], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        self.layouts = dict(line.split() for line in done.stdout.splitlines())

    def load(self, name: str) -> None:
        policy = ["--policy", str(self.containers.policy)]
        target = f"containers-storage:localhost/argosy/{name}:test"
        self._call("skopeo", *policy, "copy", "--quiet", f"{self.layouts[name]}:image", target)

    def run(self, name: str, *command: str) -> str:
        """What a command prints in a container of the image."""
        return self._call("podman", "run", "--rm", "--network=none", f"localhost/argosy/{name}:test", *command)

    def _call(self, *command: str) -> str:
        environment = os.environ | self.containers.environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    images = Images(tmp_path_factory.mktemp("images") / "state")
    for name in ("web", "steps"):
        images.load(name)
    yield images
    forget(images.containers)


@pytest.mark.parametrize("name", ["web", "steps"])
def test_an_image_runs_as_nobody_in_particular_and_has_neither_compiler_nor_pip(images: Images, name: str) -> None:
    assert images.run(name, "id", "-u").strip() == "1000"
    tools = images.run(name, "sh", "-c", "command -v gcc cc cpp make pip pip3; python -c 'import pip' 2>&1; true")
    assert "No module named 'pip'" in tools
    assert "/" not in tools.replace("No module named 'pip'", "").replace('File "<string>"', "")
    writable = images.run(name, "sh", "-c", "find /opt /usr -writable -not -type l -print -quit")
    assert not writable.strip()


@pytest.mark.parametrize(
    ("name", "module"), [("web", "web.server"), ("web", "flask"), ("steps", "workflows.steps.build")]
)
def test_modules_are_compiled_and_nothing_compiles_them_again(images: Images, name: str, module: str) -> None:
    code = f"import importlib.util as u, os; s = u.find_spec({module!r}); print(s.origin, os.path.exists(s.cached))"
    assert images.run(name, "python", "-I", "-c", code).split()[1] == "True"
    verbose = images.run(
        name, "sh", "-c", f"python -I -v -c 'import {module}' 2>&1 | grep -c 'wrote\\|could not create'; true"
    )
    assert verbose.strip() == "0"


def test_web_has_its_server(images: Images) -> None:
    assert "web.app" in images.run(
        "web", "python", "-I", "-c", "import web.server, web.wiring, psycopg, web.app as m; print(m.__name__)"
    )
    assert "git version" in images.run("web", "git", "--version")


def test_every_step_can_be_asked_what_it_does(images: Images) -> None:
    steps = images.run("steps", "python", "-I", "-m", "workflows.run", "--help")
    assert "fetch" in steps
    for tool in ("git", "git-lfs", "buildah", "skopeo", "grype", "syft", "uv"):
        assert images.run("steps", tool, "--version").strip(), tool
    assert "not in this installation" not in steps
