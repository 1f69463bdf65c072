"""Accounts and their rules, as the table in the README says them."""

from __future__ import annotations

import re

from tests.chart.helm import CHART, pick, render

README = (CHART / "README.md").read_text(encoding="utf-8")
NAMES = {"web's": "argosy-web", "the Hub's": "hub"}
NAMESPACES = {"builds": "argosy-builds", "catalogue": "argosy-images"}


def table():
    """Account, namespace, resource and verbs as the README has them."""
    rows = set()
    section = README.partition("## Who may do what")[2].partition("\n## ")[0]
    account = ""
    for line in section.splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) != 5 or cells[0] in {"account", "---"}:
            continue
        account = NAMES.get(cells[0], cells[0]) or account
        if cells[2]:
            rows.add((account, NAMESPACES[cells[1]], cells[2], cells[3]))
    return rows


def rendered(objects):
    rules = {
        (each["metadata"]["name"], each["metadata"]["namespace"]): each["rules"]
        for each in objects
        if each["kind"] == "Role"
    }
    for binding in (each for each in objects if each["kind"] == "RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        (subject,) = binding["subjects"]
        for rule in rules[binding["roleRef"]["name"], namespace]:
            (group,), (resource,) = rule["apiGroups"], rule["resources"]
            yield subject["name"], namespace, f"{resource}.{group}".rstrip("."), " ".join(sorted(rule["verbs"]))


def test_the_readmes_table_is_what_is_rendered():
    assert table() == set(rendered(render()))


def test_no_rule_is_of_the_whole_cluster_or_holds_a_wildcard():
    objects = render()
    assert not [each for each in objects if each["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    assert not re.search(r"'\*'", str([each["rules"] for each in objects if each["kind"] == "Role"]))


def test_every_account_of_the_pipeline_exists_and_mounts_no_token_by_itself():
    objects = render()
    template = str(next(each for each in objects if each["kind"] == "WorkflowTemplate"))
    used = set(re.findall(r"'serviceAccountName': '([a-z-]+)'", template))
    assert used == {"argosy-executor", "argosy-ours", "argosy-resolve", "argosy-strangers"}
    for name in used:
        assert pick(objects, "ServiceAccount", name)["automountServiceAccountToken"] is False
