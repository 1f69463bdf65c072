"""Two replicas of web, one PostgreSQL: one build for all who ask, and nothing is lost where one of them is killed."""

from __future__ import annotations

from itertools import cycle, islice

import requests

from tests.cluster.crowd import Follower, numbers_in, steps_of
from tests.cluster.farm import Farm
from tests.cluster.namespace import eventually, kubectl
from tests.visitor import git_spec

VISITORS, LINES = 200, 400
FILES = {"Dockerfile": f"FROM localhost/argosy/base:bookworm\n{steps_of(LINES, 0.12)}"}


def test_two_hundred_have_one_build_and_miss_nothing_of_it_where_a_replica_is_killed(running: Farm) -> None:
    running.githost.create("crowd/one", FILES)
    filing = recording(running)
    replicas = running.replicas
    assert len(replicas) == 2
    spec = git_spec(f"{running.githost.url}/crowd/one") + "?build_only=true"
    # Half of them begin at the one, half at the other.
    orders = [[replicas[name], *(url for other, url in replicas.items() if other != name)] for name in replicas]
    crowd = [Follower(urls, spec) for urls in islice(cycle(orders), VISITORS)]
    eventually(lambda: all(each.numbers for each in crowd), seconds=180, what=running.logs)
    assert not any(each.is_over for each in crowd), "the build is too short for this machine"

    # The one that files: what it would have archived is the other's to do.
    kubectl("delete", "pod", filing, "--namespace", running.release.web.name, "--force", "--grace-period=0")

    for each in crowd:
        each.join(240)
    assert sum(each.breaks > 0 for each in crowd) >= VISITORS // 2, "nobody lost a stream"
    builds = {event["build"] for each in crowd for event in each.events if event.get("build")}
    (build,) = builds
    assert {each.events[-1]["phase"] for each in crowd} == {"ready"}, crowd[0].events[-1]
    for each in crowd:
        assert each.numbers == list(range(1, LINES + 1))
        assert each.places == sorted(set(each.places))
    assert len({tuple(each.places) for each in crowd}) == 1
    workflows = running.release.builds.list("workflows", "argosy/pipeline")
    assert [each["metadata"]["name"] for each in workflows if "crowd" in each["metadata"]["name"]] == [build]

    # Once it is filed nobody asks the pods any more: what a page has then is the archive's.
    eventually(lambda: is_filed(running, build), seconds=120, what=running.logs)
    running.wait()
    for url in running.replicas.values():
        log = requests.get(f"{url}/builds/{build}/log", timeout=60).text
        assert numbers_in(log) == list(range(1, LINES + 1))
        for step in ("fetch", "build", "stage", "push", "publish", "scan"):
            assert f"===== {step} =====" in log


def recording(running: Farm) -> str:
    """The pod of the replica that files."""

    def look() -> str:
        holder = running.release.builds.get("lease", "argosy-recording")["spec"].get("holderIdentity", "")
        return next((name for name in running.replicas if holder.startswith(name)), "")

    return str(eventually(look, what=running.logs))


def is_filed(running: Farm, build: str) -> bool:
    return running.release.builds.labels("workflow", build).get("argosy/recorded") == "true"
