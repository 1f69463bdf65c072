"""Writes what is generated into documents: the tables of settings, of the chart's values, and of what suites to run.

With ``--check`` it only says what is stale. The tables are made of the fields of `workflows.settings.Settings`, of the
comments in the chart's ``values.yaml`` and of `tools.affected.ROOMS`: what is not described there is described nowhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from tools import affected, values
from workflows.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A table that stands in a document, between two comments that name it.

    Args:
        document: Where it stands.
        name: What the comments call it.
        table: Makes it.
    """

    document: Path
    name: str
    table: Callable[[], str]

    @property
    def begin(self) -> str:
        """The comment before the table."""
        return f"<!-- {self.name}:begin -->"

    @property
    def end(self) -> str:
        """The comment after it."""
        return f"<!-- {self.name}:end -->"

    def rewritten(self, text: str) -> str:
        """`text` with the table between its comments.

        Raises:
            SystemExit: The comments are not there, once each and in order.
        """
        before, begin, rest = text.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end or self.begin in rest or self.end in after:
            raise SystemExit(f"{self.document.name} needs {self.begin} and then {self.end}, once each")
        return f"{before}{self.begin}\n{self.table()}{self.end}{after}"

    def is_stale(self) -> bool:
        """Whether the document holds another table."""
        text = self.document.read_text(encoding="utf-8")
        return self.rewritten(text) != text


def settings_table() -> str:
    """All settings as a table in Markdown, in the order of the source."""
    head = "| variable | default | meaning |\n|---|---|---|\n"
    return head + "".join(_row(name, field) for name, field in Settings.model_fields.items())


TABLES = (
    Generated(document=ROOT / "README.md", name="settings", table=settings_table),
    Generated(document=ROOT / "charts" / "argosy" / "README.md", name="values", table=values.table),
    Generated(document=ROOT / "CONTRIBUTING.md", name="suites", table=affected.table),
)


def main() -> int:
    """Writes or checks; the exit code is 1 where a check finds a table stale."""
    parser = argparse.ArgumentParser(description="Write what is generated into documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is stale")
    options = parser.parse_args()
    stale = [each for each in TABLES if each.is_stale()]
    for each in stale:
        if options.check:
            place = each.document.relative_to(ROOT)
            print(f"{place}: the table of {each.name} is stale; `make docs` writes it anew", file=sys.stderr)
        else:
            each.document.write_text(each.rewritten(each.document.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if options.check and stale else 0


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    # A default that depends on the machine is told in the description.
    if field.default_factory is not None or field.default is None or field.default == "":
        return ""
    return f"`{_as_variable(field.default)}`"


def _as_variable(value: Any) -> str:
    if isinstance(value, (str, Path)):
        return str(value)
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
