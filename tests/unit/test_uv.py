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
