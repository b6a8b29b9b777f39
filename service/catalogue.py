"""A command opens the catalogue of a node that has run before, and always closes it."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.config import Configuration
from service.exits import CommandError
from storage.database import Database, open_database


@contextmanager
def opened(configuration: Configuration) -> Iterator[Database]:
    """The database, for one command; CommandError where no node has run yet."""
    file = configuration.storage.directory / "catalogue.sqlite"
    if configuration.storage.database is None and not file.exists():
        raise CommandError(f"{file}: no catalogue yet; start the node once")
    database = open_database(configuration.database_url)
    try:
        yield database
    finally:
        database.close()
