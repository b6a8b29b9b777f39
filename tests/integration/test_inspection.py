"""Whatever took over the process that looks into a model, the command ends and nothing is approved.

Not covered: how it could be taken over.
"""

import os
import struct
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from service import inspection
from service.inspection import InspectionError


def stall(pipe: Connection, *_: object) -> None:
    """Begin an answer and never end it."""
    os.write(pipe.fileno(), struct.pack("!i", 100) + b"[")
    time.sleep(600)


def swell(pipe: Connection, *_: object) -> None:
    """Begin an answer that is too long."""
    os.write(pipe.fileno(), struct.pack("!i", inspection.MOST_ANSWERED + 1))
    time.sleep(600)


def be_silent(*_: object) -> None:
    time.sleep(600)


def nest(pipe: Connection, *_: object) -> None:
    pipe.send_bytes(b"[" * 1_000_000)


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (stall, "it took more than 4 s"),
        (be_silent, "it took more than 4 s"),
        (swell, "its process"),
        (nest, "said something that is no answer"),
    ],
)
def test_an_answer_that_is_none_ends_the_look(
    monkeypatch: pytest.MonkeyPatch, hostile: object, reason: str
) -> None:
    monkeypatch.setattr(inspection, "run", hostile)
    monkeypatch.setattr(inspection, "SECONDS", 4.0)
    with pytest.raises(InspectionError, match=reason):
        inspection.beyond_strict(Path("/nowhere"), {})
