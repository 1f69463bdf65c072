from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from workflows import errors
from workflows.errors import DISK_FULL, EXIT_CODES, SENTENCES, ArgosyError, Reason, of_disk, reason_of_exit

FROM_OUTSIDE = {
    Reason.EVICTED,
    Reason.START_TIMEOUT,
    Reason.QUEUE_TIMEOUT,
    Reason.CANCELLED,
    Reason.SUPERSEDED,
}


def tree(root: type[ArgosyError] = ArgosyError) -> list[type[ArgosyError]]:
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


@pytest.mark.parametrize("error", tree())
def test_every_error_has_an_exit_code_a_sentence_and_a_status(error):
    raised = error()
    assert EXIT_CODES[raised.reason] == raised.exit_code
    assert str(raised) == SENTENCES[raised.reason]
    assert str(raised).endswith((".", "!"))
    assert 400 <= error.http_status < 600


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, DISK_FULL), (errno.EDQUOT, DISK_FULL), (errno.EIO, SENTENCES[Reason.TRANSIENT])],
)
def test_a_full_disk_is_told_and_any_other_trouble_with_it_is_not_called_so(number: int, sentence: str):
    error = of_disk(OSError(number, "What the system said"), "cannot write /etc/secret")
    assert (str(error), error.reason) == (sentence, Reason.TRANSIENT)
    assert error.detail == "cannot write /etc/secret: What the system said"


@pytest.mark.parametrize("error", tree())
def test_a_message_is_what_the_visitor_reads_and_a_detail_is_not(error):
    raised = error("Somebody's sentence.", detail="/etc/secret")
    assert str(raised) == "Somebody's sentence."
    assert "secret" not in str(raised)
    assert raised.detail == "/etc/secret"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"(\w+Error) +([a-z-]+)  ", errors.__doc__)
    assert dict(drawn) == {error.__name__: error.reason.value for error in tree() if error is not ArgosyError}


def test_every_reason_has_its_sentence():
    assert set(SENTENCES) == set(Reason)


def test_exit_codes_are_one_to_one_and_keep_away_from_argo():
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert not {0, 64, 65} & set(EXIT_CODES.values())
    assert set(Reason) - set(EXIT_CODES) == FROM_OUTSIDE


@pytest.mark.parametrize(("reason", "code"), EXIT_CODES.items())
def test_a_reason_comes_back_from_its_exit_code(reason, code):
    assert reason_of_exit(code) is reason


@pytest.mark.parametrize("code", [0, 64])
def test_a_step_that_is_done_or_was_left_out_has_no_reason(code):
    assert reason_of_exit(code) is None


@pytest.mark.parametrize("code", [1, 2, 65, 137, -9, 255])
def test_a_code_outside_the_contract_is_our_bug(code):
    assert reason_of_exit(code) is Reason.INTERNAL


def test_the_table_of_the_contract_holds():
    # Source: ../shared/design.md, *The pipeline is data*
    assert {code: reason.value for reason, code in EXIT_CODES.items()} == {
        10: "build",
        66: "not-found",
        67: "too-large",
        70: "internal",
        71: "out-of-memory",
        72: "timeout",
        73: "silent",
        75: "transient",
        77: "policy",
        78: "config",
    }


def test_nobody_raises_errors_that_are_not_in_the_tree():
    own = re.compile(r"^class (\w+)\((?:Exception|RuntimeError|ValueError|OSError)\)", re.MULTILINE)
    root = Path(errors.__file__).parents[1]
    found = {
        name: path
        for folder in ("workflows", "web")
        for path in (root / folder).rglob("*.py")
        for name in own.findall(path.read_text(encoding="utf-8"))
    }
    assert list(found) == ["ArgosyError"]
