"""The node as its users have it: a configuration file, `hounsfield run`; always ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ports import free_ports
from storage.catalog import Catalog
from storage.database import open_database

HOUNSFIELD = Path(sys.executable).parent / "hounsfield"


def eventually(check: Callable[[], Any], *, seconds: float, what: str, every: float = 0.1) -> Any:
    """The first true answer of `check`; fails by name when none comes in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Node:
    """One node in one folder. `extra` is TOML after the tables that every node has."""

    folder: Path
    extra: str = ""
    quiet_seconds: float = 1.0
    minimum_free_gib: float = 0
    storage: str = ""
    completion: str = ""
    port: int = 0
    web_port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.web_port = free_ports(2)
        self.write()

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    def write(self) -> None:
        """The configuration, from what the test asked for."""
        self.config.write_text(
            f"""
[application_entity]
ae_title = "HOUNSFIELD"
host = "127.0.0.1"
port = {self.port}

[storage]
directory = "{self.folder / "node"}"
minimum_free_gib = {self.minimum_free_gib}
{self.storage}

[web]
host = "127.0.0.1"
port = {self.web_port}

[completion]
kind = "quiet_period"
seconds = {self.quiet_seconds}
study_seconds = {self.quiet_seconds}
{self.completion}

{self.extra}
"""
        )

    def start(self, *arguments: str, wait: float = 60) -> None:
        """`hounsfield run`, in a process group of its own, until it takes associations."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(HOUNSFIELD), "run", str(self.config), *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        eventually(self.listening, seconds=wait, what=f"a listener on {self.port}")

    def listening(self) -> bool:
        """Whether the port takes connections; fails when the node has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"the node ended: {self.tail()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of one event in its log."""
        return [line for line in self.log_lines() if line["event"] == name]

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self, *, seconds: float = 60) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """SIGKILL to every process of the node at once, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def processes(self) -> list[int]:
        """The process ids of the node's group, the supervisor's first."""
        assert self.process is not None
        found = subprocess.run(
            ["/usr/bin/pgrep", "-g", str(self.process.pid)], capture_output=True, text=True
        ).stdout.split()
        return sorted((int(p) for p in found), key=lambda p: p != self.process.pid)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`hounsfield COMMAND CONFIG ...` on this node's configuration."""
        done = subprocess.run(
            [str(HOUNSFIELD), arguments[0], str(self.config), *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def status(self) -> dict[str, Any]:
        """`hounsfield status --json`."""
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer

    def series(self) -> list[dict[str, Any]]:
        """Every series of every study in `status`."""
        return [s for study in self.status()["studies"] for s in study["series"]]

    def settled(self, *, seconds: float = 60) -> list[dict[str, Any]]:
        """`series`, once each has an outcome that no longer changes and nothing is due."""
        return eventually(self._settled, seconds=seconds, what="an outcome for each", every=0.3)

    def _settled(self) -> list[dict[str, Any]] | None:
        found = self.series()
        return found if found and all(map(_ended, found)) else None


def _ended(series: dict[str, Any]) -> bool:
    if series["state"] == "receiving" or not series["outcomes"]:
        return series["state"] == "quarantined"
    return all(
        outcome["state"] in ("done", "failed", "not_analysed")
        and all(d["state"] != "due" for r in [outcome] for d in r["deliveries"])
        for outcome in series["outcomes"]
    )


@contextmanager
def catalogue(node: Node) -> Iterator[Catalog]:
    """What the node's catalogue says, read as another process would."""
    database = open_database(f"sqlite:///{node.folder / 'node' / 'catalogue.sqlite'}")
    try:
        yield Catalog(database)
    finally:
        database.close()


@contextmanager
def running(node: Node, *arguments: str) -> Iterator[Node]:
    """`node`, running; killed at the end whatever happened."""
    node.start(*arguments)
    try:
        yield node
    finally:
        node.kill()


def lung_route(destinations: Sequence[str], *, model: str = "lung_ct", more: str = "") -> str:
    """TOML of one model and the route of chest CT to it."""
    listed = ", ".join(f'"{d}"' for d in destinations)
    return f"""
[[models]]
name = "model"
kind = "{model}"

[[routes]]
name = "chest CT"
match = {{ Modality = "CT" }}
models = ["model"]
destinations = [{listed}]
{more}
"""


def dicom_destination(port: int, *, name: str = "pacs", ae_title: str = "PACS") -> str:
    """TOML of a DICOM destination on 127.0.0.1."""
    return f"""
[[destinations]]
name = "{name}"
kind = "dicom"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
results = ["segmentation", "measurement_report"]
"""
