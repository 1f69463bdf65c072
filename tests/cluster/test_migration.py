"""The ledger's migration: a Job that has succeeded before any new replica of web starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, inspect

from tests.cluster import images
from tests.cluster.namespace import eventually, kubectl
from tests.cluster.postgres import Postgres
from tests.cluster.release import NAME, Release, release

JOB = f"{NAME}-ledger-migration"


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as made:
        yield made


@pytest.fixture
def farm() -> Iterator[Release]:
    with release("chart-ledger") as made:
        yield made


def tables(database: Postgres) -> set[str]:
    engine = create_engine(database.url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def said_by_the_job(farm: Release) -> str:
    """What one of its pods said that has ended; the next one may be about to start, and has nothing to say."""
    ended = [pod for pod in farm.web.list("pods", f"job-name={JOB}") if pod["status"]["phase"] == "Failed"]
    return kubectl("logs", ended[0]["metadata"]["name"], "--namespace", farm.web.name) if ended else ""


def test_the_tables_are_there_once_the_release_is_and_nothing_of_the_job_stays(farm, database):
    assert tables(database) == set()
    # A URL in the values, which the Job gets as a Secret of its own: nothing of the release exists before it.
    values = {"images__web": images.real()["web"], "ledger__url": database.url, "archive__url": "s3://none/none"}
    farm.install(**values)
    assert {"builds", "launches", "alembic_version"} <= tables(database)
    assert farm.web.list("jobs") == []
    assert [each["metadata"]["name"] for each in farm.web.list("secrets")].count(JOB) == 0
    farm.install(**values, web__replicas=2)


def test_a_database_that_refuses_ends_the_upgrade_before_web_is_touched(farm, database):
    good = {"images__web": images.real()["web"], "ledger__url": database.url, "archive__url": "s3://none/none"}
    farm.install(**good)
    before = farm.web.get("deployment", f"{NAME}-web")["metadata"]["generation"]
    wrong = database.url.replace("/postgres?", "/nowhere?")
    with pytest.raises(AssertionError, match="pre-upgrade hooks failed"):
        farm.install(**good | {"ledger__url": wrong, "web__replicas": 2}, seconds=60)
    said = eventually(lambda: said_by_the_job(farm))
    assert "the ledger does not answer" in said
    assert wrong.partition("@")[0] not in said
    assert farm.web.get("deployment", f"{NAME}-web")["metadata"]["generation"] == before
