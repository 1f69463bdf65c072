"""Network policies, by simulation: every arrow that is needed is there, and none that is not."""

from __future__ import annotations

import pytest

from tests.chart.helm import CHART, pick, render
from tests.chart.policies import Place, allows

OBJECTS = render(CHART / "ci" / "replicas.yaml")
POLICIES = [each for each in OBJECTS if each["kind"] == "NetworkPolicy"]

WEB = Place(
    ip="10.2.0.1", namespace="argosy", labels=pick(OBJECTS, "Deployment")["spec"]["template"]["metadata"]["labels"]
)
MIGRATION = Place(
    ip="10.2.0.2",
    namespace="argosy",
    labels=pick(OBJECTS, "Job", "argosy-ledger-migration")["spec"]["template"]["metadata"]["labels"],
)
STRANGERS, OURS, RESOLVE = (
    Place(ip=f"10.2.1.{number}", namespace="argosy-builds", labels={"argosy/half": half})
    for number, half in enumerate(("strangers", "ours", "resolve"))
)
RETIRE = Place(
    ip="10.2.1.8",
    namespace="argosy-builds",
    labels=pick(OBJECTS, "Job", "argosy-retire")["spec"]["template"]["metadata"]["labels"],
)
NOBODY = Place(ip="10.2.1.9", namespace="argosy-builds")
HUB = Place(ip="10.2.2.1", namespace="jupyterhub", labels={"component": "hub"})
VISITOR = Place(ip="10.2.2.2", namespace="jupyterhub", labels={"component": "singleuser-server"})
BROWSER = Place(ip="198.51.100.7")
INTERNET = Place(ip="198.51.100.80")
INTERNET_6 = Place(ip="2001:db8::1")
API_SERVER = Place(ip="203.0.113.10")
REGISTRY = Place(ip="10.1.2.3")
DATABASE = Place(ip="10.1.2.4")
DNS = Place(ip="10.2.3.1", namespace="kube-system", labels={"k8s-app": "kube-dns"})
METADATA = [Place(ip=ip) for ip in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")]
EVERYBODY = [WEB, MIGRATION, STRANGERS, OURS, RESOLVE, RETIRE, NOBODY]


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (BROWSER, WEB, 8585),
        (HUB, WEB, 8585),
        (WEB, HUB, 8081),
        (WEB, INTERNET, 443),
        (WEB, INTERNET_6, 443),
        (WEB, REGISTRY, 443),
        (WEB, DATABASE, 5432),
        (WEB, API_SERVER, 6443),
        (MIGRATION, DATABASE, 5432),
        (STRANGERS, INTERNET, 443),
        (STRANGERS, INTERNET, 9418),
        (STRANGERS, REGISTRY, 443),
        (STRANGERS, API_SERVER, 6443),
        (OURS, REGISTRY, 443),
        (OURS, API_SERVER, 443),
        (RESOLVE, INTERNET, 443),
        (RESOLVE, REGISTRY, 443),
        (RESOLVE, API_SERVER, 443),
        (RETIRE, API_SERVER, 443),
    ],
)
def test_an_arrow_that_is_needed_is_there(source, target, port):
    assert allows(POLICIES, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (STRANGERS, WEB, 8585),
        (STRANGERS, HUB, 8081),
        (STRANGERS, VISITOR, 8888),
        (STRANGERS, OURS, 80),
        (STRANGERS, STRANGERS, 80),
        (STRANGERS, DATABASE, 5432),
        (STRANGERS, REGISTRY, 80),
        (STRANGERS, API_SERVER, 10250),
        (STRANGERS, INTERNET, 25),
        (STRANGERS, INTERNET_6, 25),
        (OURS, WEB, 8585),
        (OURS, STRANGERS, 80),
        (OURS, DATABASE, 5432),
        (RESOLVE, WEB, 8585),
        (RESOLVE, HUB, 8081),
        (RETIRE, INTERNET, 443),
        (RETIRE, REGISTRY, 443),
        (NOBODY, INTERNET, 443),
        (NOBODY, API_SERVER, 443),
        (WEB, STRANGERS, 80),
        (HUB, STRANGERS, 80),
        (BROWSER, OURS, 80),
        (BROWSER, MIGRATION, 80),
        (BROWSER, WEB, 22),
    ],
)
def test_an_arrow_that_is_not_needed_is_not_there(source, target, port):
    assert not allows(POLICIES, source, target, port)


@pytest.mark.parametrize("source", EVERYBODY)
@pytest.mark.parametrize("target", METADATA, ids=lambda place: place.ip)
def test_nobody_ever_reaches_a_metadata_service(source, target):
    for port in (80, 443, 6443, 8080):
        assert not allows(POLICIES, source, target, port)


@pytest.mark.parametrize("source", [WEB, MIGRATION, STRANGERS, OURS, RESOLVE, RETIRE])
def test_names_are_resolved(source):
    assert allows(POLICIES, source, DNS, 53, protocol="UDP")
    assert allows(POLICIES, source, DNS, 53)


def test_other_pods_of_the_releases_namespace_are_none_of_our_business():
    other = Place(ip="10.2.0.9", namespace="argosy", labels={"app": "another"})
    assert allows(POLICIES, other, INTERNET, 25)
    assert allows(POLICIES, BROWSER, other, 80)


def test_who_may_reach_web_can_be_narrowed():
    policies = [each for each in render(CHART / "ci" / "gateway.yaml") if each["kind"] == "NetworkPolicy"]
    gateway = Place(ip="10.2.5.1", namespace="gateways")
    assert allows(policies, gateway, WEB, 8585)
    assert not allows(policies, HUB, WEB, 8585)
    assert not allows(policies, BROWSER, WEB, 8585)


def test_the_pods_of_the_pipeline_carry_the_labels_that_policies_select_by():
    template = next(each for each in OBJECTS if each["kind"] == "WorkflowTemplate")
    labels = [each.get("metadata", {}).get("labels", {}) for each in template["spec"]["templates"]]
    halves = {each["argosy/half"] for each in labels if each}
    selected = {each["spec"]["podSelector"].get("matchLabels", {}).get("argosy/half") for each in POLICIES} - {None}
    assert halves == selected == {"strangers", "ours", "resolve"}
