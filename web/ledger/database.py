"""The ledger's connection: one native thread, one connection, transactions, migrations.

Source: https://docs.sqlalchemy.org/en/21/dialects/sqlite.html, on transactional DDL; https://sqlite.org/wal.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.dml import Insert
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from web.native import Worker, sleep
from workflows.errors import ConfigError, InternalError, TransientError

MIGRATIONS = Path(__file__).parent / "migrations"

BUSY_SECONDS = 10
"""How long SQLite waits for another process's transaction; ours take milliseconds."""

CALL_SECONDS = 30
"""How long a caller waits for the ledger before it goes on without: longer than one wait for a busy file."""

OPEN_SECONDS = 60
"""How long several processes may need to open a new ledger one after the other."""

_MIGRATION_LOCK = 0x4172676F7379
"""The number of PostgreSQL's advisory lock: "Argosy" in ASCII."""

_WRITE = "argosy_write"
"""The option of a connection whose transaction will write."""

_UNANSWERED = (OperationalError, InterfaceError, sqlite3.OperationalError)
"""Away, busy or full: the same call may go through later. The last one comes from what is not SQLAlchemy's to wrap."""

Result = TypeVar("Result")


class Database:
    """Runs functions of a connection, each in one transaction, in the one thread that owns the connection.

    Args:
        url: SQLAlchemy's URL.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = _engine(url)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            # The URL itself may hold a password, so it is not repeated.
            raise ConfigError(detail=f"the ledger's URL cannot be used: {type(error).__name__}") from error
        self._worker = Worker("ledger")

    def migrate(self) -> None:
        """Brings the tables up to date; of several processes at once, one does and the others wait."""
        self._run(self._migrate_patiently, OPEN_SECONDS + BUSY_SECONDS)

    def read(self, job: Callable[[Connection], Result]) -> Result:
        """What `job` returns, from one consistent view.

        Raises:
            TransientError: The ledger does not answer.
        """
        return self._run(lambda: self._transact(job, write=False), CALL_SECONDS)

    def write(self, job: Callable[[Connection], Result]) -> Result:
        """What `job` returns, once all that it wrote is there; none of it is where it raises.

        Raises:
            TransientError: The ledger does not answer.
        """
        return self._run(lambda: self._transact(job, write=True), CALL_SECONDS)

    def close(self) -> None:
        """Closes the connection, in the thread that opened it."""
        self._run(self._engine.dispose, CALL_SECONDS)
        self._worker.close()

    def _run(self, job: Callable[[], Result], timeout_seconds: float) -> Result:
        try:
            return self._worker.call(job, timeout_seconds=timeout_seconds)
        except _UNANSWERED as error:
            raise TransientError(detail=f"the ledger does not answer: {getattr(error, 'orig', error)}") from error
        except SQLAlchemyError as error:
            raise InternalError(detail=f"the ledger refused: {error}") from error

    def _transact(self, job: Callable[[Connection], Result], *, write: bool) -> Result:
        with self._engine.connect().execution_options(**{_WRITE: write}) as connection, connection.begin():
            return job(connection)

    def _migrate_patiently(self) -> None:
        # SQLite refuses the change to WAL at once, without its busy timeout, while another process makes it.
        attempts = Retrying(
            retry=retry_if_exception_type(_UNANSWERED),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(OPEN_SECONDS),
            sleep=sleep,
            reraise=True,
        )
        attempts(self._migrate_once)

    def _migrate_once(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with closing(self._engine.raw_connection()) as connection:  # outside any transaction, or it is refused
                connection.cursor().execute("PRAGMA journal_mode = WAL")
        self._transact(_upgrade, write=True)


def insert(connection: Connection, table: Table) -> Any:
    """An ``INSERT`` that knows ``ON CONFLICT``, in the words of this connection's database."""
    return _insert(connection.dialect.name, table)


def upsert(
    statement: Any, row: Mapping[str, Any], *, keys: list[str], insert_only: Mapping[str, Any], where: Any
) -> Insert:
    """`statement` with `row`, whose values replace those of the row that has the same `keys` already.

    Args:
        statement: From `insert`.
        row: Column and value.
        keys: Columns of the primary key.
        insert_only: Further columns and values of a new row, which an old row keeps as they are.
        where: An old row is replaced only where this holds.
    """
    replaced = {name: statement.excluded[name] for name in row if name not in keys}
    made: Insert = statement.values(**row, **insert_only).on_conflict_do_update(
        index_elements=keys, set_=replaced, where=where
    )
    return made


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise ValueError(backend)
    if backend == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # One connection that stays: closing SQLite's last one would fold the WAL back into the file each time.
    engine = create_engine(
        parsed,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=backend != "sqlite",
        hide_parameters=True,  # a row's values have no place in a log
    )
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own, so that DDL is inside ours
    for pragma in (f"busy_timeout = {BUSY_SECONDS * 1000}", "foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once, without waiting, when another has written between.
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _upgrade(connection: Connection) -> None:
    # SQLite: BEGIN IMMEDIATE is the lock already. Both databases undo a migration that fails halfway.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
