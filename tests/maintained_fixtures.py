"""A plugin of pytest: a `place` and a `configuration` to maintain."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import config
from service.config import Configuration
from tests.workplace import Workplace

CONFIGURATION = """
[[models]]
name = "body"
kind = "body_outline"

[[routes]]
name = "ct"
match = { Modality = "CT" }
models = ["body"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return config.parse(CONFIGURATION, file=tmp_path / "node.toml")
