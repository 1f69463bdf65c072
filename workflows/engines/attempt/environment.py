"""What a runner and a step see of the environment: an allow-list, and no secret that is not the step's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from workflows.engines.attempt.job import WORKSPACE
from workflows.pipeline import Half, Step, withheld
from workflows.settings import PREFIX, Settings, environment_of

_PASSED = frozenset({
    "LANG",
    "LC_ALL",
    "TZ",
    "XDG_RUNTIME_DIR",  # where containers of a user who is not root keep what runs
    # How this machine reaches the network.
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
})  # fmt: skip
"""What a step sees of the environment of whoever started the engine, which may hold anything."""
_RUNNERS_OWN = frozenset({"COVERAGE_PROCESS_CONFIG", "HOME"})
"""What a runner sees besides. By the first one coverage.py measures what runners execute in tests."""


def engine_environment(settings: Settings) -> dict[str, str]:
    """The environment of a runner: what every step may see, and all settings."""
    own = {name: value for name, value in os.environ.items() if name in _RUNNERS_OWN}
    return _passed() | own | environment_of(settings)


def step_environment(step: Step, workspace: Path, settings: Settings) -> dict[str, str]:
    """The environment of one step: an allow-list, the settings without others' secrets, its own places."""
    hidden = {f"{PREFIX}{name.upper()}" for name in withheld(step)}
    told = {name: value for name, value in environment_of(settings).items() if name not in hidden}
    # A home may hold credentials (git's, a registry's), so the strangers' half has one of its own.
    home = str(workspace) if step.half is Half.STRANGERS else os.environ.get("HOME", str(workspace))
    places = {"HOME": home, "TMPDIR": str(workspace / "tmp"), WORKSPACE: str(workspace)}
    return _passed() | told | places


def _passed() -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in _PASSED}
    # Tools that were installed beside this Python come first.
    return passed | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
