from __future__ import annotations

import dataclasses
import json

import pytest

from workflows.build import BuildOptions, BuildRequest, BuildStatus, Lane, State, StepStatus
from workflows.errors import Reason
from workflows.image import CommitSHA, ImageDigest, ImageName
from workflows.repo import Repository

REQUEST = BuildRequest(
    image=ImageName("localhost/argosy/o-2dr-123456:" + "1" * 40),
    provider="gh",
    spec="o/r/main",
    ref="main",
    commit=CommitSHA("1" * 40),
    repo_url="https://github.com/o/r",
    clone_url="https://github.com/o/r",
    slug="o-r",
    owner="github.com/o",
)
OPTIONS = BuildOptions(
    base_image="debian:12",
    appendix='RUN echo "é"\n',
    build_args=(("A", "1"), ("B", "")),
    repo2docker_args=("--debug",),
)


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        dataclasses.replace(REQUEST, options=OPTIONS, lane=Lane.PREBUILD, network="192.0.2.0/24", attempt=3),
    ],
)
def test_a_request_survives_the_way_through_json(request_):
    assert BuildRequest.from_json(request_.to_json()) == request_


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", [None, *Reason])
def test_a_status_survives_the_way_through_json(state, reason):
    steps = (StepStatus(name="fetch", started=1.5, ended=2.5, exit_code=0), StepStatus(name="build"))
    status = BuildStatus(
        request=dataclasses.replace(REQUEST, options=OPTIONS),
        state=state,
        reason=reason,
        message="A sentence.\n",
        queue_position=2,
        created=1.0,
        started=1.25,
        ended=3,
        published=2.75,
        steps=steps,
    )
    assert BuildStatus.from_json(status.to_json()) == status


@pytest.mark.parametrize(
    "options", [BuildOptions(), OPTIONS, BuildOptions(appendix="x"), BuildOptions(build_args=(("x", "y"),))]
)
def test_options_survive_the_way_through_their_canonical_form(options):
    assert BuildOptions.parse(options.canonical()) == options


def test_the_farms_defaults_have_no_canonical_form():
    assert BuildOptions().canonical() == ""
    assert "appendix" not in BuildOptions(base_image="x").canonical()


def test_options_make_another_build_and_attempts_do_not_change_it():
    other = dataclasses.replace(REQUEST, options=OPTIONS)
    assert other.name != REQUEST.name
    assert dataclasses.replace(REQUEST, attempt=2).name == f"{REQUEST.name}-2"


def test_who_asked_makes_no_other_build():
    same = dataclasses.replace(REQUEST, lane=Lane.API, network="192.0.2.0/24", spec="o/r/v1", ref="v1")
    assert same.name == REQUEST.name


def test_lanes_stand_first_to_last():
    assert [lane.value for lane in Lane] == ["launch", "api", "prebuild"]


@pytest.mark.parametrize(
    ("state", "ended"), [("queued", False), ("running", False), ("succeeded", True), ("failed", True)]
)
def test_a_state_knows_whether_it_is_the_end(state, ended):
    assert State(state).ended is ended


def test_what_a_newer_version_adds_is_left_out_and_not_stumbled_over():
    status = BuildStatus(request=REQUEST, state=State.RUNNING, steps=(StepStatus(name="fetch"),))
    given = json.loads(status.to_json()) | {"colour": "blue"}
    given["request"] = json.dumps(json.loads(given["request"]) | {"colour": "blue"})
    given["steps"][0]["colour"] = "blue"
    assert BuildStatus.from_json(json.dumps(given)) == status


def test_no_argument_is_a_place_that_argo_would_fill_in():
    options = BuildOptions(
        appendix="RUN echo {{workflow.parameters.image}} {{=sprig.env('HOME')}} {{{", build_args=(("A", "{{x}}"),)
    )
    given = dataclasses.replace(REQUEST, options=options).parameters()
    assert not [value for value in given.values() if "{{" in value]
    assert BuildOptions.parse(given["options"]) == options


def test_a_name_that_somebody_gave_is_the_attempts():
    given = dataclasses.replace(REQUEST, named="nightly-1795555500")
    assert given.name == "nightly-1795555500"
    assert given.parameters()["build"] == "nightly-1795555500"
    assert BuildRequest.from_json(given.to_json()) == given


def test_what_is_held_makes_no_other_build():
    held = dataclasses.replace(REQUEST, held=ImageDigest("sha256:" + "0" * 64))
    assert held.name == REQUEST.name


def test_a_request_of_a_repository_has_binderhubs_image_name():
    repository = Repository(
        provider="gh",
        spec="binder-examples/requirements/main",
        ref="main",
        commit=CommitSHA("1" * 40),
        repo_url="https://github.com/binder-examples/requirements",
        clone_url="https://github.com/binder-examples/requirements",
        ref_url="",
        resolved_spec="",
        slug="binder-examples/requirements",
        owner="github.com/binder-examples",
    )
    made = BuildRequest.of(repository, "reg.example/r2d-", lane=Lane.API)
    assert made.image == f"reg.example/r2d-binder-2dexamples-2frequirements-{made.image[-47:-41]}:{'1' * 40}"
    assert (made.lane, made.slug, made.options.canonical()) == (Lane.API, "binder-examples/requirements", "")
