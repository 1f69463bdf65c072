from __future__ import annotations

from pathlib import Path

import pytest

from workflows import settings
from workflows.errors import ConfigError


@pytest.fixture
def environment(monkeypatch):
    def environment(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv("ARGOSY_" + name, value)

    return environment


def test_without_any_variable_there_are_the_defaults():
    assert settings.load() == settings.Settings()


def test_variables_are_read(environment):
    environment(PORT="9000", GIT_PROTOCOLS='["https"]', STATE="/somewhere", FAST_PYTHON="false", GITHUB_TOKEN_FILE="/t")
    read = settings.load()
    assert (read.port, read.git_protocols, read.state) == (9000, ("https",), Path("/somewhere"))
    assert read.fast_python is False
    assert read.github_token_file == Path("/t")


def test_every_fault_is_told_at_once(environment):
    environment(
        PORT="0",
        KEEP_ALIVE_SECONDS="soon",
        GIT_PROTOCOLS="https",
        REPO2DOCKER_ARGS="{}",
        SCAN_POLICY="maybe",
        PROT="8585",
        IMAGE="x",
    )
    with pytest.raises(ConfigError) as raised:
        settings.load()
    for name in ("PORT", "KEEP_ALIVE_SECONDS", "GIT_PROTOCOLS", "REPO2DOCKER_ARGS", "SCAN_POLICY", "PROT", "IMAGE"):
        assert f"ARGOSY_{name}" in str(raised.value)


def test_protocols_that_run_programs_cannot_be_allowed(environment):
    environment(GIT_PROTOCOLS='["https", "ext"]')
    with pytest.raises(ConfigError):
        settings.load()


def test_variables_of_the_tests_are_nobodys_fault(environment):
    environment(TEST_ANYTHING="1", CLUSTER_NAME="x")
    settings.load()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1


def test_settings_survive_the_way_through_an_environment(environment, monkeypatch):
    environment(PORT="9000", GIT_PROTOCOLS='["https", "ssh"]', APPENDIX="RUN true\nUSER root", BUILD_CPUS="1.5")
    first = settings.load()
    for name, value in settings.environment_of(first).items():
        monkeypatch.setenv(name, value)
    assert settings.load() == first


def test_folders_lie_in_the_state_folder():
    made = settings.Settings(state=Path("/s"))
    folders = [getattr(made, name) for name in dir(settings.Settings) if name.endswith("_folder")]
    assert folders
    assert all(folder.is_relative_to("/s") for folder in folders)
    assert made.ledger == "sqlite:////s/ledger.sqlite"
    assert made.hub_token_path == Path("/s/secrets/hub-token")


@pytest.mark.parametrize(
    ("url", "api"), [("", "https://api.git.example"), ("https://git.example/api/v3/", "https://git.example/api/v3")]
)
def test_githubs_api_has_its_default_by_the_host(url, api):
    assert settings.Settings(github_hostname="git.example", github_api_url=url).github_api == api


def test_a_secret_is_read_without_its_newline_and_never_shown(tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    secret = settings.read_secret(file)
    assert secret.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(secret)
    assert settings.read_secret(None) is None


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_secret_that_cannot_be_read_is_said_without_telling_visitors_where(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        settings.read_secret(file)
    assert str(file) in raised.value.detail
    assert str(file) not in str(raised.value)


@pytest.mark.parametrize("address", ["file:///etc", "https://user:secret@index.test/simple", "https://index.test/ x"])
def test_an_index_is_a_plain_address_without_credentials(environment, address):
    environment(INDEX_URL=address)
    with pytest.raises(ConfigError):
        settings.load()
    environment(INDEX_URL="http://proxy.cluster:3141/root/pypi/+simple/")
    assert settings.load().index_url.startswith("http://proxy")


def test_argo_needs_a_registry(environment):
    environment(ENGINE="argo")
    with pytest.raises(ConfigError, match="ARGOSY_IMAGE_STORE"):
        settings.load()
    environment(IMAGE_STORE="registry")
    assert settings.load().engine == "argo"


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../x", "-a", "a" * 64, "a\n"])
def test_what_is_no_name_in_kubernetes_reaches_no_path(name):
    for field in ("builds_namespace", "catalogue_namespace", "workflow_template"):
        with pytest.raises(ValueError, match="not a name in Kubernetes"):
            settings.Settings(**{field: name})
