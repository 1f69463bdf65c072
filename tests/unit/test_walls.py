"""The walls of a build in a pod: what its own control group says of a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.builder import pod
from workflows.builder.pod import Pod


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n"),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
    ],
    ids=["version 2", "version 1"],
)
def test_a_kill_for_want_of_memory_counts_from_the_start_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    events = tmp_path / "events"
    monkeypatch.setattr(pod, "_KILLS", (tmp_path / "absent", events))
    events.write_text(before)
    with Pod() as walls:
        assert not walls.ran_out_of_memory()
        events.write_text(after)
        assert walls.ran_out_of_memory()


def test_a_container_without_control_groups_ran_out_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "_KILLS", (Path("/nonexistent"),))
    with Pod() as walls:
        assert not walls.ran_out_of_memory()
