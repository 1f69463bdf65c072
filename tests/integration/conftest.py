"""What tests with real tools, but without containers, share."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a state folder and a workspace of this test's own; nothing is in either."""
    made = Settings(state=tmp_path / "state", workspace=tmp_path / "workspace")
    made.workspace.mkdir()
    return made


@pytest.fixture
def to_registry(settings: Settings, registry: str) -> Settings:
    """The same, of a farm whose images go to an open registry."""
    given = {"image_store": "registry", "registry_insecure": True, "image_prefix": f"{registry}/argosy/"}
    return settings.model_copy(update=given)
