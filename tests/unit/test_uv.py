"""The lines that the buildpack of uv writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.builder.uv import UvBuildPack

LINE = 'uv pip install --python /srv/venv/bin/python -r "requirements.txt"'


@pytest.mark.parametrize(
    ("index", "wheels", "before"),
    [
        ("", "true", "UV_CACHE_DIR=/var/cache/uv"),
        ("", "false", "UV_NO_CACHE=1"),
        ("http://proxy.test/simple", "true", "UV_CACHE_DIR=/var/cache/uv UV_DEFAULT_INDEX=http://proxy.test/simple"),
    ],
)
def test_packages_come_from_the_farms_index_and_wheels_and_the_image_does_not_remember_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str, wheels: str, before: str
) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARGOSY_INDEX_URL", index)
    monkeypatch.setenv("ARGOSY_WHEEL_CACHE", wheels)
    buildpack = UvBuildPack("localhost/base:any")
    assert buildpack.get_preassemble_scripts() == [("${NB_USER}", f"{before} {LINE}")]
    assert "ENV UV_DEFAULT_INDEX" not in buildpack.render()


LOCK = """\
version = 1

[[package]]
name = "class"
{project}

[[package]]
name = "jsonschema"
[package.optional-dependencies]
format-nongpl = [{{ name = "rfc3987-syntax" }}]

[[package]]
name = "jupyter-events"
dependencies = [{{ name = "jsonschema", extra = ["format-nongpl"] }}]

[[package]]
name = "rfc3987-syntax"
"""


@pytest.mark.parametrize(
    ("project", "is_left_out"),
    [
        ('dependencies = [{ name = "jupyter-events" }]', True),
        ('dependencies = [{ name = "jupyter-events" }, { name = "jsonschema" }]', True),
        ('dependencies = [{ name = "jsonschema", extra = ["format-nongpl"] }]', False),
        ('dependencies = [{ name = "rfc3987-syntax" }]', False),
        ('dev-dependencies = { dev = [{ name = "rfc3987-syntax" }] }', False),
        ('optional-dependencies = { check = [{ name = "jsonschema", extra = ["format-nongpl"] }] }', False),
        ("dependencies = 7", False),
    ],
)
def test_a_lock_loses_the_check_that_jupyter_never_uses_where_nobody_else_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str, *, is_left_out: bool
) -> None:
    (tmp_path / "uv.lock").write_text(LOCK.format(project=project))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "class"\n[build-system]\nrequires = []\n')
    monkeypatch.chdir(tmp_path)
    buildpack = UvBuildPack("localhost/base:any")
    scripts = [*buildpack.get_preassemble_scripts(), *buildpack.get_assemble_scripts()]
    assert len(scripts) == 2
    assert [script.count("--no-install-package rfc3987-syntax") for _, script in scripts] == [is_left_out] * 2
