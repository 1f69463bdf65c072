"""What a runner executes: the plan, filled in, and the environment of each step.

Written by the engine, which has the settings, and read by the runner, which does not wait for them to be imported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflows.pipeline import Half, Step

WORKSPACE = "ARGOSY_WORKSPACE"
"""The setting that tells a step its workspace, and that marks every process of an attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a runner executes.

    Args:
        steps: In pipeline order.
        command: What stands before a step's name and arguments.
        parameters: What the steps' arguments are filled with.
        environments: Of each step, by its name.
        timeout_seconds: Of the whole attempt.
    """

    steps: tuple[Step, ...]
    command: tuple[str, ...]
    parameters: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    timeout_seconds: float

    def to_json(self) -> str:
        """This job as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        given: dict[str, Any] = json.loads(text)
        return cls(
            steps=tuple(_step(step) for step in given["steps"]),
            command=tuple(given["command"]),
            parameters=given["parameters"],
            environments=given["environments"],
            timeout_seconds=given["timeout_seconds"],
        )


def _step(given: dict[str, Any]) -> Step:
    names = ("parameters", "needs", "outputs", "secrets", "limits")
    return Step(**(given | {"half": Half(given["half"])} | {name: tuple(given.get(name, ())) for name in names}))
