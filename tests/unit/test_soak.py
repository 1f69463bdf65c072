"""What `make soak` calls flat."""

from __future__ import annotations

import dataclasses

import pytest

from tests.benchmarks.measure import Measured, compare

MEMORY = Measured(name="web", unit="MiB", value=100, more=10)
ROWS = Measured(name="ledger", unit="rows", value=5, limit=20)


@pytest.mark.parametrize(
    ("memory", "rows", "growing"), [(110, 20, []), (111, 20, ["web (MiB)"]), (90, 21, ["ledger (rows)"])]
)
def test_what_grows_by_more_than_it_may_and_beyond_its_limit_is_named(memory, rows, growing, capsys):
    after = [dataclasses.replace(MEMORY, value=memory), dataclasses.replace(ROWS, value=rows)]
    assert compare([MEMORY, ROWS], after) == growing
    assert capsys.readouterr().out.count("NOT FLAT") == len(growing)
