"""What every cluster test needs: a cluster, and a registry that its nodes pull from; and the farms that many share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.farm import Farm, farm, secret
from tests.cluster.guard import Guard
from tests.cluster.postgres import Postgres
from tests.cluster.site import REGISTRY

PASSWORDS = {
    "read": "the-password-that-reads",
    "write": "the-password-that-writes",
    "staging": "the-password-that-stages",
}
"""Of the registry, by the account's name."""
GIT_CREDENTIALS = "git-credentials"
GITHUB, GIT = "the-token-of-github", "the-credentials-of-git"
SECRETS = [*PASSWORDS.values(), GITHUB, GIT]
"""Of both farms here: no build may come across one."""


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    for name in ("KUBECONFIG", "ARGOSY_TEST_REGISTRY"):
        assert os.environ.get(name), f"{name} is not set: tests/README.md says what cluster tests need"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The ledger of the farm that many tests share."""
    with Postgres(tmp_path_factory.mktemp("ledger")) as made:
        yield made


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, grype_db: Path, database: Postgres) -> Iterator[Farm]:
    """A farm as large ones are: two replicas of web, PostgreSQL, an archive that both reach, a scanner's database."""
    folder = tmp_path_factory.mktemp("farm")
    options = {"ledger_url": database.url, "vulnerabilities": grype_db, "web__replicas": 2}
    with with_secrets("shared", folder, **options) as made:
        yield made


@pytest.fixture(scope="session")
def guard() -> Iterator[Guard]:
    """The registry, as one that lets each account do what it is for."""
    with Guard(REGISTRY, PASSWORDS).serving() as made:
        yield made


@pytest.fixture(scope="session")
def guarded(guard: Guard, grype_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A small farm on that registry."""
    folder = tmp_path_factory.mktemp("guarded")
    with with_secrets("guarded", folder, vulnerabilities=grype_db, registry=guard.place) as made:
        yield made


@contextlib.contextmanager
def with_secrets(prefix: str, folder: Path, **options: Any) -> Iterator[Farm]:
    """A farm that has all of `SECRETS`; the rest is as in `farm`."""
    values = {f"registry__{name}__username": name for name in PASSWORDS}
    values |= {f"registry__{name}__password": password for name, password in PASSWORDS.items()}
    values |= {"providers__github__token": GITHUB, "providers__git__credentialsSecret": GIT_CREDENTIALS}
    with farm(prefix, folder, **options, **values) as made:
        made.release.builds.create(secret(GIT_CREDENTIALS, token=GIT))
        yield made
