from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from web.launching.identity import Identity
from workflows.errors import ConfigError

NONCE = "n" * 22


@pytest.fixture
def identity(tmp_path):
    return Identity(tmp_path / "secrets" / "launch-key")


@pytest.mark.parametrize(
    ("repo_url", "readable"),
    [
        ("https://github.com/minrk/binder-example", "minrk-binder-example"),
        ("https://gitlab.example/Group/Sub/Project.git", "group-sub-project"),
        ("ssh://git@host.example/owner/repo.git", "owner-repo"),
        ("https://github.com/a-very-long-owner/and-a-very-long-repository", "a-very-long-own-long-repository"),
        ("https://example.org/Ünï.cødé/x_y", "n-c-d-x-y"),
        ("https://example.org/", "repository"),
    ],
)
def test_a_user_is_named_after_the_repository_as_in_binderhub(identity, repo_url, readable):
    name = identity.user_name(repo_url, NONCE, 1)
    assert re.fullmatch(rf"{re.escape(readable)}-[a-z0-9]{{8}}", name)
    assert len(name) <= 41


def test_each_attempt_and_each_nonce_has_its_own_user(identity):
    names = {
        identity.user_name("https://h/o/r", f"{nonce:022}", attempt) for nonce in range(50) for attempt in range(4)
    }
    assert len(names) == 200


def test_the_same_nonce_is_the_same_person_in_another_process(tmp_path):
    first, second = (Identity(tmp_path / "key") for _ in range(2))
    assert first.token(NONCE) == second.token(NONCE)
    assert first.user_name("https://h/o/r", NONCE, 2) == second.user_name("https://h/o/r", NONCE, 2)


def test_another_farm_gives_other_tokens(tmp_path):
    assert Identity(tmp_path / "a").token(NONCE) != Identity(tmp_path / "b").token(NONCE)


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: Identity(tmp_path / "key").token(NONCE), range(64)))
    assert len(tokens) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "abcd", "not hexadecimal", "é"])
def test_a_key_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "key").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError):
        Identity(tmp_path / "key")
