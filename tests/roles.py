"""Roles that only live, die or refuse, for the tests of the supervisor; they note what they did."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from service import processes
from service.exits import USAGE
from service.node import Part
from service.stopping import Stop


@dataclass(frozen=True)
class Acting:
    """Each role does what the file `<role>.does` in `folder` says; default: serve until told."""

    folder: Path

    def __call__(self, part: Part, pipe: Connection, parent: int) -> None:
        stop = Stop()
        stop.listen()
        processes.end_with_parent(parent, signal.SIGTERM)
        self.note(f"{part.name} started {os.getpid()}")
        script = self.folder / f"{part.role}.does"
        does = script.read_text() if script.exists() else "serves"
        if does == "dies":
            sys.exit(1)
        if does == "refuses":
            sys.exit(USAGE)
        if does == "ignores":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipe.send(part.name)
        if does == "hurries":
            while not stop.hurried:
                time.sleep(0.02)
        while does == "ignores" or not stop.asked:
            stop.wait(0.2) if does != "ignores" else time.sleep(0.2)
        self.note(f"{part.name} stopped")

    def note(self, words: str) -> None:
        with (self.folder / "notes").open("a") as notes:
            notes.write(words + "\n")


def notes(folder: Path) -> list[str]:
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []
