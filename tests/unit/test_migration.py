"""``python -m web.ledger``: the chart's migration Job."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from web.ledger.__main__ import main


def test_the_tables_are_there_afterwards_also_a_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("ARGOSY_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert main() == 0
    assert main() == 0
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"builds", "alembic_version"} <= tables


def test_a_wrong_url_is_the_farms_fault_and_its_password_is_not_said(monkeypatch, capsys):
    monkeypatch.setenv("ARGOSY_LEDGER_URL", "mysql://argosy:hidden@database/argosy")
    assert main() == 78
    said = capsys.readouterr().err
    assert "ledger's URL" in said
    assert "hidden" not in said
