"""How strangers' pods are kept apart: what the API server lets pass, and a build where no pod has users of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.cluster.farm import Farm
from tests.cluster.namespace import Object, RefusedError, eventually
from tests.visitor import Visitor, git_spec

FROM = "FROM localhost/argosy/base:bookworm\n"
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "strangers", "labels": {"argosy/half": "strangers"}},
    "spec": {
        "hostUsers": False,
        "automountServiceAccountToken": False,
        "containers": [
            {"name": "fetch", "image": "x", "securityContext": RESTRICTED},
            {
                "name": "build",
                "image": "x",
                "securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}},
            },
        ],
    },
}
"""As a build's is; what a test asks for is tried out alone, and nothing is made."""

REFUSED: dict[str, tuple[Callable[[Object], object], str]] = {
    "the node's users": (lambda spec: spec.pop("hostUsers"), "user namespace of its pod's own"),
    "the node's processes": (lambda spec: spec.update(hostPID=True, hostUsers=True), "shares no namespace"),
    "the node's network": (lambda spec: spec.update(hostNetwork=True, hostUsers=True), "shares no namespace"),
    "the node's files": (
        lambda spec: spec.update(volumes=[{"name": "x", "hostPath": {"path": "/"}}]),
        "mounts nothing of it",
    ),
    "a privileged build": (lambda spec: securing(spec, 1, privileged=True), "is privileged"),
    "more than SYS_ADMIN": (
        lambda spec: securing(spec, 1, capabilities={"add": ["SYS_ADMIN", "NET_ADMIN"]}),
        "SYS_ADMIN added and nothing else",
    ),
    "root beside the build": (lambda spec: securing(spec, 0, runAsNonRoot=False, runAsUser=0), "but `build` meets"),
    "capabilities beside the build": (
        lambda spec: securing(spec, 0, capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        "but `build` meets",
    ),
    "a build that is no stranger's": (lambda spec: spec["containers"][0].update(securityContext={}), "but `build`"),
}


@pytest.fixture(scope="module", autouse=True)
def _policy(running: Farm) -> None:
    """A policy counts a moment after it was made."""
    pod = copy.deepcopy(POD)
    del pod["spec"]["hostUsers"]
    eventually(lambda: passes(running, POD) and not passes(running, pod))


def securing(spec: Object, container: int, **changes: object) -> None:
    context = spec["containers"][container]["securityContext"]
    spec["containers"][container]["securityContext"] = context | changes


def test_a_pod_as_builds_have_it_is_accepted(running: Farm) -> None:
    running.release.builds.try_out(POD)


@pytest.mark.parametrize("what", REFUSED)
def test_a_pod_that_is_kept_apart_by_less_is_refused_whoever_makes_it(running: Farm, what: str) -> None:
    change, sentence = REFUSED[what]
    pod = copy.deepcopy(POD)
    change(pod["spec"])
    with pytest.raises(RefusedError, match=sentence):
        running.release.builds.try_out(pod)


def test_the_name_build_alone_is_no_excuse(running: Farm) -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["labels"] = {"argosy/half": "ours"}
    with pytest.raises(RefusedError, match="but `build` meets"):
        running.release.builds.try_out(pod)


def test_a_cluster_without_user_namespaces_builds_in_one_that_buildah_makes(running: Farm) -> None:
    running.githost.create("isolation/nested", {"Dockerfile": f"{FROM}RUN id -u && touch /made\n"})
    running.install(builds__isolation="nested")
    try:
        eventually(lambda: not passes(running, POD))
        click = Visitor(running.url).click(git_spec(f"{running.githost.url}/isolation/nested"), build_only=True)
    finally:
        running.install(builds__isolation="userns")
        eventually(lambda: passes(running, POD))
    assert click.last["phase"] == "ready", f"{click.log}\n{running.logs()}"


def passes(running: Farm, pod: Object) -> bool:
    try:
        running.release.builds.try_out(pod)
    except RefusedError:
        return False
    return True
