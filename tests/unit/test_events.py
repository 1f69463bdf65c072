from __future__ import annotations

import json

import pytest

from workflows.events import Phase, encode, event, event_of_line, printable

# A line as repo2docker prints it, and what comes of it: letter by letter the same.
REPO2DOCKER = [
    '{"message": "Picked Git content provider.\\n"}',
    '{"message": "Step 1/2 : FROM x\\n", "phase": "building"}',
    '{"message": "HEAD is now at 1", "phase": "fetching"}',
    '{"message": "", "phase": "pushing", "progress": {"layer1": {"current": 1, "total": 2}, "layer2": "Pushed"}}',
    '{"message": "null", "phase": null}',
]


@pytest.mark.parametrize("line", REPO2DOCKER)
def test_lines_of_repo2docker_pass_as_they_are(line):
    assert json.dumps(event_of_line(line)) == line


@pytest.mark.parametrize(
    "line", ["hello", "", "{", '{"phase": "building"}', '{"message": 1}', '["message"]', "{}", "null"]
)
def test_any_other_line_becomes_its_own_message(line):
    assert event_of_line(line) == {"phase": "unknown", "message": line + "\n"}
    assert event_of_line(line, Phase.FETCHING) == {"phase": "fetching", "message": line + "\n"}


@pytest.mark.parametrize(
    "phase", ["ready", "failed", "built", "launching", "waiting", "READY", "", 1, True, [], {}, [1], {"a": 1}]
)
def test_a_line_cannot_claim_what_only_the_service_can_tell(phase):
    line = json.dumps({"message": "x", "phase": phase, "url": "https://evil.example", "token": "t", "imageName": "i"})
    assert event_of_line(line, Phase.BUILDING) == {"message": "x", "phase": "building"}


@pytest.mark.parametrize(
    "line",
    [
        '{"message": "x", "progress": Infinity}',
        '{"message": "x", "progress": {"a": NaN}}',
        '{"message": "x", "progress": {"a": 1e999}}',
        '{"message": "x", "progress": ' + '{"a":' * 100_000,
        '{"message": "x", "progress": ' + '{"a":' * 2000 + "1" + "}" * 2000 + "}",
        '{"message": "x", "progress": ' + "1" * 10_000 + "}",
        '{"message": "\\ud800"}',
        '{"message": "x", "progress": [1]}',
    ],
)
def test_no_line_makes_an_event_that_a_client_cannot_read(line):
    made = event_of_line(line, step="build")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = encode(made, "1.build.1")
    head, _, rest = data.partition(b"\n")
    assert head == b"id: 1.build.1"
    assert json.loads(rest.removeprefix(b"data: "), parse_constant=refuse)["step"] == "build"
    made["message"].encode()


def test_extra_keys_go_along_and_are_never_taken_from_the_line():
    line = '{"message": "x", "phase": "building", "step": "push", "reason": "build"}'
    assert event_of_line(line, step="build") == {"message": "x", "phase": "building", "step": "build"}


def test_an_event_of_ours_ends_in_a_newline_and_leaves_out_what_is_none():
    assert event(Phase.WAITING, "Wait", queue_position=None, build="b") == {
        "phase": "waiting",
        "message": "Wait\n",
        "build": "b",
    }
    assert event(Phase.WAITING, "Wait\n")["message"] == "Wait\n"


def test_an_event_is_one_line_of_data_whatever_it_holds():
    data = encode(event(Phase.UNKNOWN, "a\r\n\ndata: b\u2028\x1b"))
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    assert data.isascii()


def test_phases_are_binderhubs():
    assert {phase.value for phase in Phase} == {
        "waiting",
        "fetching",
        "building",
        "pushing",
        "built",
        "launching",
        "ready",
        "failed",
        "unknown",
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x1b[2Jb\x1b[1;1Hc", "abc"),
        ("a\x00b\x9bc", "a\ufffdb\ufffdc"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
    ],
)
def test_nothing_printable_drives_a_terminal(text, clean):
    assert printable(text) == clean
