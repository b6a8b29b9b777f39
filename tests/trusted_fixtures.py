"""A plugin of pytest: a trusted model of Python code that was added and not yet approved."""

from pathlib import Path

import pytest

from service import cli
from tests.trusted import CONFIGURATION, HARMLESS


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A configuration with a Python model that was added, not yet approved."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "storage").mkdir()
    (tmp_path / "mine/model.py").write_text(HARMLESS)
    file = tmp_path / "hounsfield.toml"
    file.write_text(CONFIGURATION.format(directory=tmp_path / "storage", trust="trusted"))
    assert cli.main(["models", str(file), "--add", str(tmp_path / "mine")]) == 0
    return file
