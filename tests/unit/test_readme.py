from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import docs, values
from workflows.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = docs.TABLES[0]


def test_the_readme_lists_exactly_the_settings():
    listed = re.findall(rf"^\| `{PREFIX}([A-Z0-9_]+)` \|", README, flags=re.MULTILINE)
    assert [name.lower() for name in listed] == list(Settings.model_fields)


@pytest.mark.parametrize("each", docs.TABLES, ids=lambda each: each.name)
def test_the_tables_in_the_readmes_are_fresh(each):
    assert not each.is_stale(), "run `make docs`"


def test_every_value_of_the_chart_is_described_in_sentences():
    for name, _, meaning in values.rows():
        assert meaning.endswith("."), name


def test_a_value_without_a_comment_is_noticed(tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("a:\n  # Said.\n  b: 1\n  c: 2\n")
    with pytest.raises(SystemExit, match=r"a\.c has no comment"):
        list(values.rows(path))


def test_every_setting_is_described_in_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("field", [name for name in Settings.model_fields if name.endswith(("_bytes", "_seconds"))])
def test_a_setting_with_a_unit_says_the_unit(field):
    unit = "Bytes" if field.endswith("_bytes") else "Seconds"
    assert Settings.model_fields[field].description.startswith(unit)


def test_a_stale_table_is_noticed_and_mended():
    stale = re.sub(r"^\| `ARGOSY_PORT`.*\n", "", README, flags=re.MULTILINE)
    assert stale != README
    assert SETTINGS.rewritten(stale) == README


@pytest.mark.parametrize(
    "text",
    ["", SETTINGS.begin, SETTINGS.end + SETTINGS.begin, (SETTINGS.begin + SETTINGS.end) * 2],
)
def test_markers_that_are_not_right_are_said(text):
    with pytest.raises(SystemExit):
        SETTINGS.rewritten(text)


def test_the_check_ends_in_0_where_all_is_fresh():
    assert subprocess.run([sys.executable, str(ROOT / "tools" / "docs.py"), "--check"], check=False).returncode == 0


def test_every_link_into_the_tree_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_prints_every_target_that_the_documents_name():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for document in documents:
        named = set(re.findall(r"`make ([a-z-]+)`", document.read_text(encoding="utf-8")))
        assert named <= targets, document.name
