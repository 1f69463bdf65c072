"""What becomes of a step's output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from workflows.run.output import Output


@pytest.fixture
def relay(tmp_path: Path):
    def relay(data: bytes, *, cap: int = 1 << 20, say: str = "", chunk: int = 1 << 16) -> str:
        path = tmp_path / "log"
        sink = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        output = Output(sink, cap)
        chunk = min(chunk, output.chunk_bytes)
        for start in range(0, len(data), chunk):
            output.feed(data[start : start + chunk])
        if say:
            output.say(say)
        output.close()
        os.close(sink)
        return path.read_text(encoding="utf-8")

    return relay


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 16])
def test_lines_come_out_the_same_however_they_came_in(relay, chunk: int):
    text = "one\r\ntwo\n\n10%\r20%\rdone\nä€😀\nlast"
    assert relay(text.encode(), chunk=chunk) == "one\ntwo\n\n10%\n20%\ndone\nä€😀\nlast\n"


def test_escape_sequences_and_control_characters_cannot_drive_a_terminal(relay):
    data = b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\tab\there \x00\x08\x9b\xc2\x9b \xe2\x80\xae\n"
    text = relay(data)
    assert "red tab\there " in text
    assert not any(character in text for character in "\x1b\x00\x08\x9b\u202e\x07")


def test_a_json_line_stays_as_it_is(relay):
    line = json.dumps({"phase": "building", "message": "\x1b[0mStep 1\r\n\u202e"})
    assert relay(f"{line}\n".encode()) == f"{line}\n"


def test_bytes_that_are_no_utf_8_are_replaced(relay):
    assert relay(b"a\xff\xfeb\n") == "a��b\n"


def test_what_we_say_stands_on_a_line_of_its_own(relay):
    assert relay(b"unfinished", say="The end.") == "unfinished\nThe end.\n"


@pytest.mark.parametrize("cap", [4096, 10_000, 100_000])
@pytest.mark.parametrize("width", [1, 80, 3000])
def test_much_output_keeps_whole_lines_of_head_and_tail_within_the_cap(relay, cap: int, width: int):
    lines = [f"{number:06}" + "x" * width for number in range(2_000_000 // (width + 7))]
    text = relay("\n".join(lines).encode(), cap=cap, say="The end.")
    kept = text.splitlines()
    assert len(text) <= cap + 300
    assert kept[-1] == "The end."
    shortest = min(width, cap // 8 - 6)
    ours = [line for line in kept if line.startswith("[") or " bytes of this line" in line or line == "The end."]
    numbers = [int(line[:6]) for line in kept if line[:6].isdigit()]
    assert numbers == sorted(set(numbers))
    assert all(len(line) >= shortest for line in kept if line not in ours)
    left_out = next(line for line in ours if "are left out here" in line)
    assert len(numbers) + int(left_out.split()[3]) == len(lines)


def test_control_characters_cannot_blow_a_line_up_over_the_cap(relay):
    text = relay(b"\x01" * 100_000 + b"\n", cap=4096, say="The end.")
    assert len(text.encode()) < 4096 + 300
    assert text.endswith("The end.\n")


def test_a_log_that_cannot_be_written_is_no_reason_to_fail():
    reading, writing = os.pipe()
    os.close(reading)
    output = Output(writing, 4096)
    output.feed(b"line\n")
    output.close()
    os.close(writing)


def test_what_a_full_disk_does_not_take_is_written_once_it_does() -> None:
    # A pipe that nobody reads stands for the disk: it takes so much and then refuses.
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    output = Output(sink, 1 << 20)
    lines = [f"line {number:05}\n".encode() for number in range(20_000)]
    for line in lines:
        output.feed(line)
    read = os.read(source, 1 << 17)
    output.close()
    os.close(sink)
    with os.fdopen(source, "rb") as rest:
        read += rest.read()
    assert 1 << 16 < len(read) < len(b"".join(lines)), "there was room for a part, and then for another"
    assert read == b"".join(lines)[: len(read)], "in order, and nothing twice"
