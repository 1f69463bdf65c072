"""What each account may do, asked of the real API server, is what the table in the chart's README says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.chart.test_accounts import table
from tests.cluster.namespace import kubectl
from tests.cluster.release import Release, release

ACCOUNTS = (
    "argosy-executor",
    "argosy-ours",
    "argosy-resolve",
    "argosy-retire",
    "argosy-strangers",
    "argosy-web",
    "hub",
)


@pytest.fixture(scope="module")
def farm() -> Iterator[Release]:
    with release("chart-accounts") as made:
        made.web.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hub"}})
        made.install()
        yield made


def rights(account: str, namespace: str) -> set[tuple[str, str]]:
    """Resources and verbs, without those that everybody has."""
    listed = kubectl("auth", "can-i", "--list", "--no-headers", "--as", account, "--namespace", namespace)
    found = set()
    for line in listed.splitlines():
        resource, *_, verbs = re.match(r"(\S*)\s+(\[.*?\])\s+(\[.*?\])\s+\[(.*)\]$", line).groups()
        found.add((resource, " ".join(sorted(verbs.split()))))
    return found


def test_every_account_may_do_what_the_table_says_and_nothing_else(farm):
    places = {"argosy": farm.web.name, "argosy-builds": farm.builds.name, "argosy-images": farm.catalogue.name}
    seen = set()
    for account in ACCOUNTS:
        home = farm.web.name if account in {"argosy-web", "hub"} else farm.builds.name
        for written, namespace in [*places.items(), ("default", "default"), ("kube-system", "kube-system")]:
            # An account without any rule shows what the cluster gives to all.
            of_all = rights(f"system:serviceaccount:{home}:nobody", namespace)
            mine = rights(f"system:serviceaccount:{home}:{account}", namespace) - of_all
            seen |= {(account, written, resource, verbs) for resource, verbs in mine}
    assert seen == table()


def test_no_pod_of_a_build_has_the_rights_of_the_default_account(farm):
    everybody = rights(f"system:serviceaccount:{farm.builds.name}:nobody", farm.builds.name)
    assert rights(f"system:serviceaccount:{farm.builds.name}:default", farm.builds.name) == everybody
