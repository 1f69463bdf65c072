"""What a chart would install for the rendered templates: accounts, ConfigMaps, the templates themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.cluster.namespace import Namespace, Object
from workflows.engines.argo import site

GOLDEN = Path(__file__).parent.parent.parent / "charts/argosy/files/pipeline.yaml"
REGISTRY = os.environ.get("ARGOSY_TEST_REGISTRY", "")

STRANGERS_PATCH = {
    "hostUsers": False,
    "containers": [
        {
            "name": "build",
            "securityContext": {"runAsUser": 0, "runAsNonRoot": False, "capabilities": {"add": ["SYS_ADMIN"]}},
        }
    ],
}
"""As the chart's default: root of a user namespace, with what overlay needs inside it."""


def template(policy: str) -> Object:
    """The golden file's WorkflowTemplate of one policy."""
    documents = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    return next(each for each in documents if each["metadata"]["labels"][site.POLICY_LABEL] == policy)


def install(
    namespace: Namespace,
    *,
    image: str,
    builder: str = "",
    policy: str = "report",
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
) -> None:
    """Accounts, ConfigMaps and one policy's template, in a namespace of their own."""
    own = {"image": image, "builder-image": builder or image, "strangers-patch": json.dumps(STRANGERS_PATCH)}
    namespace.create(
        *_accounts(),
        _config_map(site.TEMPLATE, own | dict(parameters or {}), is_parameters=True),
        _config_map(site.SETTINGS_MAP, dict(settings or {})),
        template(policy),
    )


def workflow(
    name: str, entry: str = "", *, template: str = site.TEMPLATE, suspend: bool = False, **arguments: str
) -> Object:
    """A thin Workflow, as web submits it; without an entry point, as a person does."""
    spec: Object = {
        "workflowTemplateRef": {"name": template},
        "arguments": {"parameters": [{"name": key, "value": value} for key, value in arguments.items()]},
    }
    spec |= {"entrypoint": entry} if entry else {}
    spec |= {"suspend": True} if suspend else {}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": spec,
    }


def _accounts() -> list[Object]:
    names = ("argosy-strangers", "argosy-ours", "argosy-resolve", site.EXECUTOR_ACCOUNT)
    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    executor = site.EXECUTOR_ACCOUNT
    return [
        *({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}} for name in names),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": f"{executor}.service-account-token",
                "annotations": {"kubernetes.io/service-account.name": executor},
            },
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": executor},
            "rules": [rule],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": executor},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": executor},
            "subjects": [{"kind": "ServiceAccount", "name": executor}],
        },
    ]


def _config_map(name: str, data: Mapping[str, str], *, is_parameters: bool = False) -> Object:
    label = {"workflows.argoproj.io/configmap-type": "Parameter"} if is_parameters else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": label}, "data": dict(data)}
