"""The verbs of storage on an empty database of each kind."""

import pytest

from storage.catalog import Catalog
from storage.database import Database
from storage.queue import Queue


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)
