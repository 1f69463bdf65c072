from __future__ import annotations

import io

import pytest

from web.recording import transcript
from workflows.build import LogLine
from workflows.errors import InternalError


def written(lines: list[LogLine]) -> bytes:
    target = io.BytesIO()
    transcript.write(lines, target)
    return target.getvalue()


def lines_of(step: str, *texts: str) -> list[LogLine]:
    return [LogLine(step=step, number=number, text=text) for number, text in enumerate(texts, start=1)]


def test_a_log_is_a_text_with_a_heading_for_each_step():
    text = written(lines_of("fetch", "Cloning", "done") + lines_of("build", "RUN"))
    assert text == b"===== fetch: 2 lines =====\nCloning\ndone\n===== build: 1 lines =====\nRUN\n"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_it_reads_back_line_by_line_however_it_is_cut(size):
    lines = (
        lines_of("fetch", "", "ü", "===== push: 7 lines =====", "a\rb\u2028c")
        + lines_of("build", *(f"line {n}" for n in range(500)))
        + lines_of("push", "")
    )
    text = written(lines)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(transcript.read(pieces)) == lines


def test_steps_that_speak_at_the_same_time_are_told_one_after_the_other():
    push, scan = lines_of("push", "a", "b"), lines_of("scan", "x", "y")
    mixed = [push[0], scan[0], push[1], scan[1]]
    assert list(transcript.read([written(mixed)])) == push + scan


def test_a_line_never_becomes_two():
    assert [line.text for line in transcript.read([written(lines_of("build", "a\nb \udc80"))])] == ["a\rb ?"]


def test_no_lines_are_no_text():
    assert written([]) == b""
    assert list(transcript.read([b""])) == []


@pytest.mark.parametrize("text", [b"Cloning\n", b"===== fetch: 2 lines =====\none\n", b"===== Fetch: 1 lines =====\n"])
def test_what_is_no_such_text_is_refused(text):
    with pytest.raises(InternalError):
        list(transcript.read([text]))
