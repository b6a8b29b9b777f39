"""What every test may ask for: real studies and free ports; what is missing is skipped by name."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import (  # noqa: F401  (fixtures)
    database,
    database_url,
    empty_database_url,
    postgresql,
    upgraded_sqlite,
)

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real studies: HOUNSFIELD_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("HOUNSFIELD_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip("no real studies: set HOUNSFIELD_DATA to their folder")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: beside other tests, and float32 summed in one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make faults CYCLES=100` passes it."""
    parser.addoption("--fault-cycles", type=int, default=10, help="cycles of SIGKILL and restart")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a cycle of faults, so that a failure names its cycle and both cores are used."""
    if "cycle" in metafunc.fixturenames:
        metafunc.parametrize("cycle", range(metafunc.config.getoption("--fault-cycles")))
