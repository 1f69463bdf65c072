"""The Hub's configurations: one machine's and a cluster's agree on what every Hub of a farm has."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from traitlets.config import PyFileConfigLoader

FOLDER = Path(__file__).parents[2] / "hub-config"
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a configuration as the Hub does."""
    for name in ("hub-token", "proxy-token"):
        path = tmp_path / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n", encoding="utf-8")
    for name, value in {
        "ARGOSY_STATE": str(tmp_path),
        "ARGOSY_CATALOGUE_NAMESPACE": "argosy-images",
        "ARGOSY_VISITOR_IDLE_SECONDS": "40",
        "HUB_PORT": "1",
        "HUB_PROXY_API_PORT": "2",
        "HUB_CONTAINER_SOCKET": "/run/none.sock",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda name: PyFileConfigLoader(name, path=str(FOLDER)).load_config()


@pytest.mark.parametrize("name", ["jupyterhub_config.py", "kubernetes_config.py"])
def test_every_hub_starts_what_the_catalogue_holds_for_visitors_without_accounts(load, name):
    c = load(name)
    assert c.JupyterHub.authenticator_class == "null"
    assert c.JupyterHub.allow_named_servers is False
    assert c.VisitorSpawnerMixin.catalogue is not None
    assert c.JupyterHub.spawner_class.__mro__[1].__name__ == "VisitorSpawnerMixin"
    assert c.JupyterHub.last_activity_interval == 10
    assert c.Spawner.cmd[0] == "sh"


def test_one_machines_hub_knows_web_and_the_culler_by_the_same_roles_as_zero_to_jupyterhub(load):
    roles = {role["name"]: role["scopes"] for role in load("jupyterhub_config.py").JupyterHub.load_roles}
    assert VALUES["hub"]["loadRoles"]["argosy"]["scopes"] == roles["argosy"]
    assert set(VALUES["hub"]["services"]) == {"argosy"}


def test_one_machines_hub_pulls_from_a_registry_alone_and_as_the_farm_does(load, tmp_path, monkeypatch):
    assert load("jupyterhub_config.py").DockerSpawner.pull_policy == "never"
    (tmp_path / "auth.json").write_text('{"auths": {}}', encoding="utf-8")
    monkeypatch.setenv("ARGOSY_IMAGE_STORE", "registry")
    monkeypatch.setenv("ARGOSY_REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    for _ in range(2):
        assert load("jupyterhub_config.py").DockerSpawner.pull_policy == "ifnotpresent"
        assert Path(os.environ["DOCKER_CONFIG"], "config.json").read_text(encoding="utf-8") == '{"auths": {}}'


def test_a_visitors_pod_is_restricted_and_holds_nothing_of_the_clusters(load):
    pod = load("kubernetes_config.py").KubeSpawner
    assert pod.automount_service_account_token is False
    assert pod.allow_privilege_escalation is False
    assert pod.container_security_context["capabilities"] == {"drop": ["ALL"]}
    assert pod.extra_pod_config == {"enableServiceLinks": False}


def test_zero_to_jupyterhub_gets_every_module_that_the_configuration_imports():
    files = {Path(each["mountPath"]).name for each in VALUES["hub"]["extraFiles"].values()}
    ours = {path.name for path in FOLDER.glob("*.py")} - {"jupyterhub_config.py", "kubernetes_config.py"}
    assert files == ours | {"argosy.py"}
    named = dict(re.findall(r"hub\.extraFiles\.(\S+)\.stringData=hub-config/(\S+)", README))
    assert named.keys() == VALUES["hub"]["extraFiles"].keys()
    for key, file in named.items():
        assert (FOLDER / file).exists()
        assert Path(VALUES["hub"]["extraFiles"][key]["mountPath"]).name in {file, "argosy.py"}


def test_visitors_servers_reach_no_metadata_service_and_nothing_private():
    rules = VALUES["singleuser"]["networkPolicy"]["egressAllowRules"]
    assert (rules["cloudMetadataServer"], rules["privateIPs"]) == (False, False)
