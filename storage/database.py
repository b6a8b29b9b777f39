"""One transaction is all or nothing, on SQLite and PostgreSQL alike; their differences are in this
file only.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError

from storage.errors import (
    CatalogueTooNew,
    CatalogueUnavailable,
    OutOfSpace,
    StorageError,
    file_errors,
)

_BUSY_SECONDS = 30
_WRITES = "hounsfield_writes"
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """The database, for this process. Methods raise CatalogueUnavailable or OutOfSpace."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def dialect(self) -> str:
        """Either `sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that may write: committed at the end of the block, rolled back when it
        raises.
        """
        with _translated(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads one picture (SQLite) or committed rows (PostgreSQL)."""
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Closes every connection; the database may be opened again."""
        self._engine.dispose()


def open_database(url: str) -> Database:
    """Opens `sqlite:////path/file` or `postgresql+psycopg://...`; call it after the process
    started.
    """
    return Database(_engine(make_url(url)))


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the schema to this version's, or to an earlier revision.

    Idempotent; several processes may call it at once: one does it.

    Raises CatalogueTooNew when the schema is of a newer version, CatalogueUnavailable when there is
    no database.
    """
    parsed = make_url(url)
    with _file_lock(parsed):
        engine = _engine(parsed, foreign_keys=False)
        try:
            with Database(engine).transaction() as connection:
                _migrate(connection, revision)
        finally:
            engine.dispose()


def lock(connection: Connection, name: str) -> None:
    """Holds `name` for the rest of the transaction, against every other process (SQLite: it already
    does).
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})


def insert(connection: Connection, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT that knows ON CONFLICT, in the dialect of the connection."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT that knows ON CONFLICT, in a dialect named as `Database.dialect` does."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def chunks(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """`values` in pieces that fit one statement's parameters."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _engine(url: URL, *, foreign_keys: bool = True) -> Engine:
    if url.get_backend_name() == "postgresql":
        return _postgresql_engine(_bounded(url))
    if url.get_backend_name() != "sqlite":
        allowed = "sqlite:////path or postgresql+psycopg://..."
        raise StorageError(f"database {url.get_backend_name()!r}: allowed: {allowed}")
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    _prepare_sqlite(engine, foreign_keys=foreign_keys)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StorageError("PostgreSQL: pip install 'hounsfield[postgresql]'") from error


def _bounded(url: URL) -> URL:
    """No wait without an end, as somebody waits for a DIMSE answer; what the URL says is kept."""
    options = f"-c lock_timeout={_BUSY_SECONDS}s -c idle_in_transaction_session_timeout=60s"
    bounds = {"connect_timeout": "10", "options": options}
    return url.update_query_dict({name: bounds[name] for name in bounds.keys() - url.query.keys()})


def _prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver would begin too late
        for pragma in (
            f"busy_timeout={_BUSY_SECONDS * 1000}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begun)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _is_full(error):
            raise OutOfSpace("the catalogue: no space left for its rows") from error
        if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
            raise CatalogueUnavailable(f"the catalogue: {error.orig}") from error
        if isinstance(error, sa.exc.DataError):
            raise StorageError("the catalogue: a value that no column can hold") from error
        raise


def _is_full(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) == "53100":  # PostgreSQL: disk_full
        return True
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_FULL")


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    """Switching an SQLite file to WAL answers "locked" at once, whatever the time-out: hence a lock
    file.
    """
    if url.get_backend_name() != "sqlite" or url.database is None:
        yield
        return
    path = Path(url.database)
    with file_errors("the catalogue's folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _migrate(connection: Connection, revision: str) -> None:
    import alembic.command  # only here: half the start of a process that never upgrades
    import alembic.config
    import alembic.util

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL lock_timeout = 0"))  # a migration may take long
    lock(connection, "upgrade")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, revision)
    except alembic.util.CommandError as error:
        raise CatalogueTooNew(
            f"the catalogue's schema is not known to this version: {error}"
        ) from error
