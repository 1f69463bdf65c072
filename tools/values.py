"""The chart's values as a table in Markdown: each with its default, and what the comment above it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).parent.parent / "charts" / "argosy" / "values.yaml"

_LINE = re.compile(r"^(?P<indent> *)(?:# ?(?P<comment>.*)|(?P<key>[A-Za-z][A-Za-z0-9]*):(?P<value>.*))$")
_LEVEL = 2
"""Spaces by which a key stands further right than the one that holds it."""


def table(path: Path = VALUES) -> str:
    """All values as a table, in the order of the file."""
    head = "| value | default | meaning |\n|---|---|---|\n"
    return head + "".join(f"| `{name}` | {default} | {meaning} |\n" for name, default, meaning in rows(path))


def rows(path: Path = VALUES) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each value that has a comment and is no mere group.

    Raises:
        SystemExit: A value has no comment.
    """
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    for keys, comment in _keys(text):
        default = _at(values, keys)
        is_group = isinstance(default, dict) and any(other[:-1] == keys for other, _ in _keys(text))
        if not comment and not is_group:
            raise SystemExit(f"{path.name}: {'.'.join(keys)} has no comment")
        if comment:
            shown = "" if is_group or default == "" else f"`{_shown(default)}`"
            yield ".".join(keys), shown, comment.replace("|", "\\|")


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each key with all that hold it, and the comment right above it."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            comment = []  # an empty line, or a value that goes on
        elif found["key"] is None:
            comment.append(found["comment"].strip())
        else:
            path[len(found["indent"]) // _LEVEL :] = [found["key"]]
            yield tuple(path), " ".join(comment)
            comment = []


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = values[key]
    return values


def _shown(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)
