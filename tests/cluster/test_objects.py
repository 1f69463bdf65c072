"""Every object that the chart renders is accepted by the real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.helm import CI, Object, render
from tests.cluster.namespace import Namespace, kubectl, namespace

ELSEWHERE = {"HTTPRoute", "PrometheusRule"}
"""Kinds whose definitions this cluster need not have."""

RUNTIME: Object = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "gvisor"},
    "handler": "runsc",
}
"""The one that `ci/gateway.yaml` names: no pod is accepted whose runtime class is not there."""


@pytest.fixture(autouse=True, scope="module")
def _runtime_class() -> Iterator[None]:
    is_there = bool(kubectl("get", "runtimeclass", "gvisor", "--ignore-not-found"))
    if not is_there:
        kubectl("create", "--filename", "-", document=RUNTIME)
    yield
    if not is_there:
        kubectl("delete", "runtimeclass", "gvisor")


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_the_api_server_accepts_every_object(values):
    with namespace("chart-objects") as place:
        objects = [_within(each, place) for each in render(values)]
        known = {line.split()[-1] for line in kubectl("api-resources", "--no-headers").splitlines()}
        asked = [each for each in objects if each["kind"] in known]
        assert {each["kind"] for each in objects} - {each["kind"] for each in asked} <= ELSEWHERE
        said = kubectl("apply", "--server-side", "--dry-run=server", "--filename", "-", document=asked)
        assert said.count("(server dry run)") == len(asked)


def _within(each: Object, place: Namespace) -> Object:
    # A server's dry run does not make the namespaces that others are in; names stay.
    if each["kind"] == "Namespace":
        return each
    return each | {"metadata": each["metadata"] | {"namespace": place.name}}
