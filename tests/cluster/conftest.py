"""What every cluster test needs: a cluster, and a registry that its nodes pull from; and the farm that many share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.farm import Farm, farm, secret
from tests.cluster.postgres import Postgres

GIT_CREDENTIALS = "git-credentials"
SECRETS = {
    "registry__read__password": "the-password-that-reads",
    "registry__write__password": "the-password-that-writes",
    "registry__staging__password": "the-password-that-stages",
    "providers__github__token": "the-token-of-github",
    GIT_CREDENTIALS: "the-credentials-of-git",
}
"""Of the farm that many tests share, by the chart's value or the Secret's name: no build may come across one."""


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    for name in ("KUBECONFIG", "ARGOSY_TEST_REGISTRY"):
        assert os.environ.get(name), f"{name} is not set: tests/README.md says what cluster tests need"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The ledger of the farm that many tests share."""
    made = Postgres(tmp_path_factory.mktemp("ledger"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, grype_db: Path, database: Postgres) -> Iterator[Farm]:
    """A farm as large ones are: two replicas of web, PostgreSQL, an archive that both reach, a scanner's database."""
    folder = tmp_path_factory.mktemp("farm")
    secrets = {name: text for name, text in SECRETS.items() if name != GIT_CREDENTIALS}
    secrets |= {f"registry__{kind}__username": "argosy" for kind in ("read", "write", "staging")}
    values = {"web__replicas": 2, "providers__git__credentialsSecret": GIT_CREDENTIALS} | secrets
    with farm("shared", folder, ledger_url=database.url, vulnerabilities=grype_db, **values) as made:
        made.release.builds.create(secret(GIT_CREDENTIALS, token=SECRETS[GIT_CREDENTIALS]))
        yield made
