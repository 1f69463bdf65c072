"""Which pipelines an upgrade leaves behind for ever, and which for a while."""

from __future__ import annotations

import pytest

from workflows.engines.argo import retire
from workflows.settings import Settings

NAMES = [f"argosy-build-{number:010x}" for number in range(5)]
REVISIONS = {name: number + 1 for number, name in enumerate(NAMES)}


def test_the_current_one_and_the_one_before_it_stay():
    assert retire.retired(REVISIONS, NAMES[4], ()) == set(NAMES[:3])


def test_after_a_step_back_the_one_that_was_current_stays():
    assert retire.retired(REVISIONS | {NAMES[1]: 6}, NAMES[1], ()) == {NAMES[0], NAMES[2], NAMES[3]}


def test_after_a_step_back_and_one_forward_the_one_that_was_gone_back_to_stays():
    """Replicas of web that are not replaced yet submit builds to it, however old it is."""
    again = REVISIONS | {NAMES[0]: 6, NAMES[4]: 7}
    assert retire.retired(again, NAMES[4], ()) == set(NAMES[1:4])


def test_one_that_a_build_refers_to_stays_however_old_it_is():
    assert retire.retired(REVISIONS, NAMES[4], {NAMES[0]}) == {NAMES[1], NAMES[2]}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_are_never_too_many(count):
    few = {name: REVISIONS[name] for name in NAMES[:count]}
    assert retire.retired(few, NAMES[0], ()) == set()


def test_a_build_refers_to_what_it_was_given_and_to_what_argo_has_stored_of_it():
    direct = {"spec": {"workflowTemplateRef": {"name": NAMES[1]}}}
    template = {"inputs": {"parameters": [{"valueFrom": {"configMapKeyRef": {"name": f"{NAMES[2]}"}}}]}}
    by_hand = {
        "spec": {"workflowTemplateRef": {"name": "argosy-prebuild"}},
        "status": {"storedTemplates": {"namespaced/argosy-prebuild/build": template}},
    }
    settings = {"envFrom": [{"configMapRef": {"name": f"{NAMES[3]}-settings"}}]}
    assert retire.referred_to([direct, by_hand, settings]) == set(NAMES[1:4])
    assert retire.referred_to([{"x": "argosy-build"}, {"x": f"{NAMES[0]}0"}]) == set()


class Cluster:
    """An API server with a few objects."""

    def __init__(self, objects):
        self.objects = objects
        self.deleted = []

    def listed(self, path, selector):
        return self.objects.get(path.rpartition("/")[2], []), "1"

    def delete(self, path):
        self.deleted.append(path.partition("/namespaces/")[2])


def test_templates_go_before_the_configmaps_that_they_read():
    def part(name, generation):
        return {
            "metadata": {
                "name": name,
                "labels": {retire.GENERATION: generation},
                "annotations": {retire.REVISION: str(REVISIONS[generation])},
            }
        }

    cluster = Cluster(
        {
            "workflowtemplates": [part(name, name) for name in NAMES[1:]],
            # One that an earlier run, which was killed, has left alone.
            "configmaps": [part(f"{name}-settings", name) for name in NAMES],
            "workflows": [{"spec": {"workflowTemplateRef": {"name": NAMES[2]}}}],
        }
    )
    retire.retire(cluster, Settings(workflow_template=NAMES[4], builds_namespace="builds"))
    assert cluster.deleted == [
        f"builds/workflowtemplates/{NAMES[1]}",
        f"builds/configmaps/{NAMES[0]}-settings",
        f"builds/configmaps/{NAMES[1]}-settings",
    ]
