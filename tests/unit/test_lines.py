"""Which lines of a container's log a visitor may read."""

from __future__ import annotations

import pytest

from workflows.engines.argo.reading.lines import is_end, own

ARGOS = 'time="2026-11-24T21:52:11.441Z" level=info msg="capturing logs" argo=true'
EXITED = 'time="2026-11-24T21:52:11.442Z" level=info msg="sub-process exited" argo=true error="<nil>"'


def shown(*lines: str) -> list[str]:
    return [line for line, is_own in own(lines) if is_own]


def test_a_steps_own_lines_stand_between_the_executors() -> None:
    lines = (ARGOS, "one", "", "two", EXITED, 'time="x" level=info msg="not saving" argo=true', "Error: exit status 10")
    assert shown(*lines) == ["one", "", "two"]


def test_lines_that_come_after_the_executors_last_word_are_the_steps_all_the_same() -> None:
    assert shown(ARGOS, EXITED, "Error: exit status 10", "one", "two") == ["one", "two"]


def test_the_end_of_a_steps_program_is_the_executors_own_word() -> None:
    assert is_end(EXITED)
    assert not is_end(ARGOS)
    assert not is_end("sub-process exited")


def test_the_operators_lines_are_not_for_visitors() -> None:
    assert shown("[operator] /secret/path", "one", " [operator] is fine here") == ["one", " [operator] is fine here"]


@pytest.mark.parametrize(
    "line",
    [
        '{"time":"2026-11-24T21:52:11Z","level":"info","msg":"waiting","argo":true}',
    ],
)
def test_the_executors_other_ways_to_speak(line: str) -> None:
    assert shown("one", line, "two") == ["one", "two"]


@pytest.mark.parametrize(
    "line",
    [
        'time="x" level=info msg="y"',
        "the flag argo=true is set",
        '{"message": "Step 1/2", "phase": "building"}',
        '{"argo":true',
        '{"argo":true, "message": "x"}',
        "Error: exit status 1",
    ],
)
def test_what_only_looks_like_it_is_shown(line: str) -> None:
    assert shown(line) == [line]
