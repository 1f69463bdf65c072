"""Values, schema and templates: the same keys in all three, and what contradicts itself is refused with the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.chart.helm import CHART, CI, lint, pick, refusal, render
from workflows.settings import Settings

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
TEMPLATES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").rglob("*")) if path.is_file()
)
OF_ONE_MACHINE = {
    "base_limit_bytes",
    "base_store",
    "build_cache_limit_bytes",
    "build_pids",
    "hub_token_file",
    "image_limit_bytes",
    "min_free_bytes",
    "registry_ca_file",
    "scan_ignore_file",
    "visitor_cpus",
    "visitor_idle_seconds",
    "visitor_limit",
    "visitor_max_age_seconds",
    "visitor_memory_bytes",
    "wheel_limit_bytes",
    "workspace",
}
"""Settings that say nothing in a cluster, or that a step's own environment sets."""


def leaves(tree: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the values that have no further keys of the chart's own."""
    for key, value in tree.items():
        below = resolved(schema["properties"][key]) if key in schema.get("properties", {}) else {}
        if isinstance(value, dict) and below.get("properties") and value:
            yield from leaves(value, below, (*path, key))
        else:
            yield (*path, key)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return SCHEMA["$defs"][reference.rpartition("/")[2]] if reference else schema


def schema_keys(schema: dict[str, Any], values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, below in resolved(schema).get("properties", {}).items():
        deeper = resolved(below)
        inside = values.get(key) if isinstance(values, dict) else None
        if deeper.get("properties") and isinstance(inside, dict) and inside:
            yield from schema_keys(deeper, inside, (*path, key))
        else:
            yield (*path, key)


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for below in schema.values():
            yield from objects_of(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from objects_of(below)


def test_values_and_schema_hold_the_same_keys():
    partly = {("web", "resources", "limits")}  # what a list of quantities may hold and does not
    ours = {path for path in leaves(VALUES, SCHEMA) if path[:3] not in partly}
    theirs = {path for path in schema_keys(SCHEMA, VALUES) if path[:3] not in partly and path != ("global",)}
    optional = {("web", "resources", "requests", "ephemeral-storage")}
    assert ours == theirs - optional


CANDIDATES = (
    *("other", "other:1", "https://other.example.org/", "other.example.org/x/", "3Gi", "3", "s3://other/x"),
    *("postgresql://other/x", {"other": "x"}, ["other"], [9999], ["https"], [{"name": "other"}]),
    *([{"key": "other", "operator": "Exists"}], [{"cidr": "10.9.8.0/24", "ports": [1]}], ["10.9.8.0/24"]),
    *(
        ["169.254.0.0/16"],
        [{"ipBlock": {"cidr": "10.9.8.0/24"}}],
        {"limits": {"memory": "3Gi"}},
        {"launch_attempts": 9},
    ),
)
"""Values of every kind; the schema says which of them a value may have."""


def another(path: tuple[str, ...]) -> Any:
    """A value that the schema allows and that is not the default."""
    default, schema = VALUES, SCHEMA
    for key in path:
        default, schema = default[key], resolved(schema["properties"][key])
    if isinstance(default, bool):
        return not default
    number = [] if isinstance(default, str) else [default + 1 if isinstance(default, int) else default]
    for candidate in (*number, *schema.get("enum", ()), *CANDIDATES):
        known = {**schema, "$defs": SCHEMA["$defs"]}
        if candidate != default and Draft202012Validator(known).is_valid(candidate):
            return candidate
    raise AssertionError(f"no other value of {'.'.join(path)}")


def outcome(values, **changes):
    """What comes of values: objects, or a refusal. What is made at random is left out."""
    try:
        objects = render(values, **changes)
    except AssertionError as error:
        return str(error)
    return [each for each in objects if not each["metadata"]["name"].endswith("-launch-key")] + [
        each["metadata"] for each in objects
    ]


@pytest.mark.parametrize("path", sorted(leaves(VALUES, SCHEMA)), ids=".".join)
def test_every_value_does_something(path):
    changes = {"__".join(path): another(path)}
    # The one with the most parts first: most values are seen there.
    assert any(outcome(values, **changes) != outcome(values) for values in reversed(CI))


def test_templates_use_no_value_that_is_not_there():
    used = set(re.findall(r"\.Values((?:\.\w+)+)", TEMPLATES))
    known = {".".join(("", *path[:length])) for path in leaves(VALUES, SCHEMA) for length in range(1, len(path) + 1)}
    assert used - known == set()


def test_the_schema_is_closed_everywhere():
    for each in objects_of(SCHEMA):
        if each.get("properties") is None and "additionalProperties" not in each:
            assert each == {"type": "object"}  # Helm's own `global`
        else:
            assert "additionalProperties" in each, each


def test_every_setting_is_set_by_a_value_or_may_be_set_under_settings_or_is_of_one_machine():
    rendered = set(re.findall(r"^ARGOSY_([A-Z_]+):", TEMPLATES, flags=re.MULTILINE)) | {"LEDGER_URL"}
    by_values = {name.lower() for name in rendered}
    passed_on = set(SCHEMA["properties"]["settings"]["propertyNames"]["enum"])
    assert by_values & passed_on == set()
    assert OF_ONE_MACHINE & (by_values | passed_on) == set()
    assert by_values | passed_on | OF_ONE_MACHINE >= set(Settings.model_fields), (
        "a new setting: add it to values.schema.json under settings.propertyNames, or render it"
    )
    assert passed_on <= set(Settings.model_fields)


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_helm_lints_and_renders(values):
    assert "0 chart(s) failed" in lint(values)
    assert pick(render(values), "Deployment")


def test_sizes_become_bytes_and_lists_become_json():
    data = pick(
        render(limits__source="3Gi", limits__image="512Mi", settings__repo2docker_args=["--debug"]),
        "ConfigMap",
        "argosy-web",
    )["data"]
    assert data["ARGOSY_MAX_SOURCE_BYTES"] == str(3 * 1024**3)
    assert data["ARGOSY_MAX_IMAGE_BYTES"] == str(512 * 1024**2)
    assert data["ARGOSY_REPO2DOCKER_ARGS"] == '["--debug"]'


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"images__web": ""}, "Set images.web"),
        ({"hub__tokenSecret": ""}, "Set hub.tokenSecret"),
        ({"hub__url": "https://argosy.example.org:8443/"}, "Give the Hub a host name of its own"),
        ({"web__replicas": 2}, "Set ledger.secret"),
        ({"web__autoscaling__enabled": True}, "web.autoscaling.enabled to false"),
        ({"web__replicas": 2, "ledger__secret": "db"}, "Set archive.url"),
        ({"archive__url": "s3://b/a", "archive__claim": "c"}, "Set one of them"),
        ({"ledger__secret": "db", "ledger__url": "postgresql://db/argosy"}, "Set one of them"),
        ({"hub__token": "t"}, "Set one of them"),
        ({"registry__write__username": "u"}, "Set both"),
        ({"scan__policy": "enforce", "scan__database__download": False}, "Set scan.database.claim"),
        ({"scan__database__download": False}, "Set scan.database.claim"),
        ({"web__httpRoute__enabled": True}, "Set web.httpRoute.parents"),
        ({"builds__isolation": "sandbox"}, "Set builds.runtimeClassName"),
        ({"builds__namespace": "argosy"}, "need a namespace each"),
        ({"hub__url": "https://hub.example.org"}, "slash at its end"),
        ({"networkPolicy__apiServer": []}, "Set networkPolicy.apiServer"),
        ({"limits__builds": 1, "limits__buildsPerOwner": 2}, "as many or fewer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_values_that_contradict_each_other_are_refused_with_the_remedy(changes, remedy):
    assert remedy in refusal(**changes)


def test_all_faults_are_said_at_once():
    said = refusal(CHART / "values.yaml")
    assert said.count("\n- ") >= 8


@pytest.mark.parametrize(
    "changes",
    [
        {"web__replica": 2},
        {"settings__image_prefix": "x/"},
        {"settings__no_such_setting": 1},
        {"builds__isolation": "privileged"},
        {"networkPolicy__never": []},
        {"limits__build__memory": "2G"},
        {"registry__prefix": "registry.example.org"},
    ],
    ids="-".join,
)
def test_the_schema_refuses_what_is_no_value(changes):
    assert "schema" in refusal(**changes)
