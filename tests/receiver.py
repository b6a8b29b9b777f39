"""The receive role as a test has it: in this process, or in one of its own to be killed.

receiver.py PORT FOLDER [STEP]     serves until SIGTERM, or kills itself at STEP
"""

import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service import log
from service.application_entity import ApplicationEntity, Limits
from service.disk_watermark import DiskWatermark
from service.storage_scp import StorageSCP
from storage.catalog import Catalog
from storage.database import Database, open_database, upgrade
from storage.instances import InstanceStore
from storage.records import Instance, QuarantinedObject, Registration, SeriesArrival
from tests.peers import process

LIMITS = Limits(network_timeout=20.0, acse_timeout=5.0)


@dataclass
class Receiver:
    """A receiver and what it has."""

    port: int
    root: Path
    instances: InstanceStore
    catalog: Catalog
    database: Database
    entity: ApplicationEntity | None = None
    pid: int = 0
    ended: bool = field(default=False)

    def series(self) -> tuple[SeriesArrival, ...]:
        """Every series that came."""
        return self.catalog.ripe_series(datetime.now(UTC) + timedelta(days=1))

    def rows(self) -> list[Instance]:
        """Every registered instance, conflicts too."""
        return [row for one in self.series() for row in self.catalog.all_instances(one.series_id)]

    def file(self, row: Instance) -> bytes:
        """The bytes of a row's file."""
        return self.instances.path(row.key).read_bytes()

    def kept(self) -> list[Path]:
        """Every file under `instances/`."""
        return sorted(p for p in (self.root / "instances").rglob("*") if p.is_file())

    def parts(self) -> list[Path]:
        """What is under way or was left over."""
        return sorted((self.root / "incoming").iterdir())

    def quarantined(self) -> list[Path]:
        """Every file under `quarantine/`."""
        return sorted((self.root / "quarantine").iterdir())

    def nothing_half(self) -> None:
        """Asserts that files and rows are the same set, and that nothing is under way."""
        assert self.parts() == []
        assert {self.instances.path(row.key) for row in self.rows()} == set(self.kept())


@contextmanager
def receiving(
    root: Path,
    *,
    limits: Limits = LIMITS,
    store: type[InstanceStore] = InstanceStore,
    catalogue: type[Catalog] = Catalog,
    minimum_free_bytes: int = 0,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    share_port: bool = False,
) -> Iterator[Receiver]:
    """A receiver in this process; stopped in order at the end."""
    root.mkdir(parents=True, exist_ok=True)
    instances, database = store(root), _database(root)
    catalog = catalogue(database)
    scp = StorageSCP(
        instances=instances,
        catalog=catalog,
        private_sop_classes=limits.private_sop_classes,
        clock=lambda: datetime.now(UTC),
        watermark=DiskWatermark(
            free_bytes=instances.free_bytes,
            minimum_free_bytes=minimum_free_bytes,
            every_seconds=0.0,
        ),
        minimum_free_bytes=minimum_free_bytes,
    )
    entity = ApplicationEntity(
        ae_title="HOUNSFIELD",
        host="127.0.0.1",
        port=port,
        service=scp,
        limits=limits,
        tls=tls,
        share_port=share_port,
    )
    entity.start()
    found = Receiver(entity.port, root, instances, catalog, database, entity)
    try:
        yield found
    finally:
        entity.stop(grace=2.0)
        scp.close()
        database.close()


@contextmanager
def receiving_process(root: Path, port: int, *, die_at: str = "") -> Iterator[Receiver]:
    """A receiver in a process of its own, which the test may kill, or which kills itself."""
    root.mkdir(parents=True, exist_ok=True)
    database = _database(root)
    instances = InstanceStore(root)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.receiver",
        str(port),
        root,
        die_at or "never",
    ]
    try:
        with process(command, log=root / "receiver.log", port=port) as child:
            yield Receiver(port, root, instances, Catalog(database), database, pid=child.pid)
    finally:
        database.close()


class Plan:
    """What happens at which step; empty: nothing."""

    def __init__(self) -> None:
        self.at: dict[str, Callable[[], None]] = {}
        self.passed: list[str] = []

    def reach(self, step: str) -> None:
        self.passed.append(step)
        self.at.get(step, lambda: None)()


def faulty(plan: Plan) -> tuple[type[InstanceStore], type[Catalog]]:
    """The real store and catalogue, with `plan` around each of their steps."""

    class FaultyStore(InstanceStore):
        def new_part(self) -> Path:
            plan.reach("new_part")
            return super().new_part()

        def adopt(self, part: Path, digest: str) -> str:
            plan.reach("adopt")
            key = super().adopt(part, digest)
            plan.reach("adopted")
            return key

        def sync(self, keys: Iterable[str]) -> None:
            plan.reach("sync")
            super().sync(keys)
            plan.reach("synced")

        def quarantine(self, refused: Path | bytes) -> str:
            plan.reach("quarantine")
            return super().quarantine(refused)

    class FaultyCatalog(Catalog):
        def register(self, instances: Sequence[Instance]) -> tuple[Registration, ...]:
            plan.reach("register")
            found = super().register(instances)
            plan.reach("registered")
            return found

        def quarantine_object(self, quarantined: QuarantinedObject) -> None:
            plan.reach("quarantine_object")
            super().quarantine_object(quarantined)

    return FaultyStore, FaultyCatalog


def _database(root: Path) -> Database:
    url = f"sqlite:///{root / 'catalogue.sqlite'}"
    upgrade(url)
    return open_database(url)


def main() -> None:
    """Serve until SIGTERM."""
    port, root = int(sys.argv[1]), Path(sys.argv[2])
    log.configure(role="receive", file=root / "log.jsonl")
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    plan = Plan()
    plan.at[sys.argv[3]] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    store, catalogue = faulty(plan)
    instances, database = store(root), _database(root)
    scp = StorageSCP(
        instances=instances,
        catalog=catalogue(database),
        minimum_free_bytes=0,
        private_sop_classes=True,
        clock=lambda: datetime.now(UTC),
    )
    limits = replace(LIMITS, network_timeout=5.0)
    entity = ApplicationEntity(
        ae_title="HOUNSFIELD", host="127.0.0.1", port=port, service=scp, limits=limits
    )
    entity.start()
    told.wait()
    entity.stop(grace=2.0)
    scp.close()
    database.close()


if __name__ == "__main__":
    main()
