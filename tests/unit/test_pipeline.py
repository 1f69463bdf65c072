from __future__ import annotations

import argparse
import importlib

import pytest

from workflows.build import BuildRequest
from workflows.errors import EXIT_CODES, Reason
from workflows.image import CommitSHA, ImageName
from workflows.pipeline import STEPS, Half, plan, reason_of
from workflows.settings import Settings

PLANS = [
    plan(policy=policy, attach=attach, warm=warm, resolve=resolve)
    for policy in ("off", "report", "enforce")
    for attach in (False, True)
    for warm in (False, True)
    for resolve in (False, True)
]
REQUEST = BuildRequest(
    image=ImageName("x:y"),
    provider="git",
    spec="--help/$(id)",
    ref="main",
    commit=CommitSHA("1" * 40),
    repo_url="https://h/o",
    clone_url="https://h/o",
    slug="s",
    owner="h/o",
)


def names(steps):
    return [step.name for step in steps]


def test_a_report_publishes_before_it_scans():
    assert names(plan(policy="report")) == ["fetch", "build", "stage", "push", "publish", "scan"]
    assert names(plan(policy="report", warm=True))[-1] == "warm"


def test_enforced_rules_scan_before_anything_is_pushed():
    steps = plan(policy="enforce", attach=True, warm=True)
    assert names(steps) == ["fetch", "build", "stage", "scan", "push", "publish", "attach", "warm"]
    needs = {step.name: step.needs for step in steps}
    assert (needs["scan"], needs["push"], needs["publish"]) == (("stage",), ("scan",), ("push",))
    assert [step.name for step in steps if not step.gates] == ["attach", "warm"]


def test_no_visitor_waits_for_a_report():
    steps = plan(policy="report", attach=True, warm=True)
    assert [step.name for step in steps if not step.gates] == ["scan", "attach", "warm"]
    needs = {step.name: step.needs for step in steps}
    assert (needs["push"], needs["publish"], needs["scan"]) == (("stage",), ("push",), ("publish",))


@pytest.mark.parametrize("steps", PLANS)
def test_no_step_that_may_fail_runs_beside_one_that_must_not(steps):
    """Argo ends a pod's other containers as soon as one of them fails."""
    before: dict[str, set[str]] = {}
    for step in steps:
        before[step.name] = set(step.needs).union(*(before[need] for need in step.needs))
    gating = {step.name for step in steps if step.gates}
    for step in steps:
        if not step.gates:
            assert gating <= before[step.name] | {"resolve"}, step.name


def test_an_sbom_is_attached_where_there_is_a_registry_and_a_scan():
    assert "attach" in names(plan(policy="report", attach=True))
    assert "attach" not in names(plan(policy="report"))
    assert "attach" not in names(plan(policy="off", attach=True, warm=True))


def test_what_reads_strangers_files_writes_to_no_registry():
    secrets = {step.name: step.secrets for step in STEPS}
    assert "registry-write" not in secrets["scan"]
    assert "registry-write" in secrets["attach"]


def test_without_a_policy_there_is_no_scan():
    assert names(plan(policy="off")) == ["fetch", "build", "stage", "push", "publish"]


def test_what_nobody_resolved_is_resolved_first():
    assert names(plan(policy="off", resolve=True))[0] == "resolve"


def test_there_are_no_other_policies():
    with pytest.raises(ValueError, match="strict"):
        plan(policy="strict")


@pytest.mark.parametrize("steps", PLANS)
def test_every_step_stands_after_what_it_needs(steps):
    for position, step in enumerate(steps):
        assert set(step.needs) <= set(names(steps[:position]))


@pytest.mark.parametrize("steps", PLANS)
def test_our_half_comes_after_the_strangers(steps):
    halves = [step.half for step in steps]
    assert halves == sorted(halves, key=[Half.STRANGERS, Half.OURS].index)


def test_the_step_that_runs_strangers_code_holds_no_secret():
    assert next(step for step in STEPS if step.name == "build").secrets == ()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_value_can_never_be_an_option_of_its_own(step):
    command = step.command(REQUEST.parameters())
    assert command[0] == step.name
    assert all(argument.startswith("--") and "=" in argument for argument in command[1:])
    assert [argument.format(**REQUEST.parameters()) for argument in step.argv[5:]] == command[1:]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_steps_limits_are_settings(step):
    assert set(step.limits) <= set(Settings.model_fields)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_steps_command_takes_exactly_its_parameters(step):
    module = importlib.import_module(f"workflows.steps.{step.name}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.arguments(parser)
    options = vars(parser.parse_args(step.command(REQUEST.parameters())[1:]))
    assert sorted(options) == sorted(name.replace("-", "_") for name in step.parameters)
    for name in step.parameters:
        assert options[name.replace("-", "_")] == REQUEST.parameters()[name]


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ({}, None),
        ({"fetch": 0, "build": 0}, None),
        ({"fetch": 66, "build": 64, "stage": 64}, Reason.NOT_FOUND),
        ({"build": 10, "fetch": 0}, Reason.BUILD),
        ({"stage": 75, "fetch": 64, "build": 64}, Reason.TRANSIENT),
        ({"stage": 75, "build": 71}, Reason.OUT_OF_MEMORY),
        ({"fetch": 0, "build": 137}, Reason.INTERNAL),
        ({"fetch": 0, "scan": 70, "warm": 75}, None),
        ({"publish": 70, "scan": 75}, Reason.INTERNAL),
    ],
)
def test_a_build_fails_for_its_first_failure_in_pipeline_order(codes, reason):
    assert reason_of(codes, plan(policy="report", warm=True)) is reason


@pytest.mark.parametrize(("code", "reason"), [(77, Reason.POLICY), (78, Reason.CONFIG)])
def test_what_enforced_rules_refuse_is_the_builds_reason(code, reason):
    left_out = {"push": 64, "publish": 64, "attach": 64, "warm": 64}
    assert reason_of({"stage": 0, "scan": code} | left_out, plan(policy="enforce", attach=True, warm=True)) is reason


@pytest.mark.parametrize(("reason", "code"), EXIT_CODES.items())
def test_every_exit_code_of_a_step_that_gates_is_the_builds_reason(reason, code):
    for step in plan(policy="off"):
        assert reason_of({step.name: code}, plan(policy="off")) is reason
