"""The peers that tests use, as real processes: found by absolute path, started on free ports, always ended."""

import shutil
from pathlib import Path

import pytest


def debian_program(name: str, package: str) -> Path:
    """A program by absolute path (pynetdicom installs scripts of DCMTK's names); skips when absent."""
    found = shutil.which(name, path="/usr/bin:/usr/local/bin:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package}")
    return Path(found)
