"""What a process of its own does to a catalogue in the tests: `python -m tests.storage_process VERB
URL ...`.
"""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from storage.catalog import Catalog
from storage.database import open_database, upgrade
from storage.errors import OutOfSpace
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Instance, Job
from storage.registration import register
from tests.records import START, complete, instance

BATCH = 20


def batch(prefix: str, number: int) -> list[Instance]:
    """One series of BATCH instances."""
    series = f"{prefix}.{number}"
    return [instance(n, series=series, study=prefix) for n in range(BATCH)]


def say(*words: object) -> None:
    """A line to the parent, at once."""
    print(*words, flush=True)


def upgrading(url: str) -> None:
    """Waits for the word, upgrades."""
    say("ready")
    sys.stdin.readline()
    upgrade(url)
    say("upgraded")


def registering(url: str, prefix: str) -> None:
    """Registers series after series, and says the number of each that was answered."""
    catalog = Catalog(open_database(url))
    for number in range(10**6):
        catalog.register(batch(prefix, number))
        say(number)


def inside_register(url: str, prefix: str) -> None:
    """Stops in the middle of the transaction."""
    database = open_database(url)
    Catalog(database).register(batch(prefix, 0))
    with database.transaction() as connection:
        register(connection, batch(prefix, 1))
        stop_here()


def stop_here() -> None:
    """Says so and waits to be killed."""
    say("inside")
    time.sleep(60)


def working(url: str, name: str) -> None:
    """Claims, reserves the next and completes until nothing is left; says each job it did."""
    queue = Queue(open_database(url))
    lease = START + timedelta(seconds=60)
    wanted: dict[str, Any] = {"worker": name, "models": ["lung-ct"], "now": START}
    coming: Job | None = None
    while (job := queue.claim(**wanted, lease_until=lease, reserved=coming)) is not None:
        coming = queue.reserve(**wanted, until=lease)
        if complete(queue, job):
            say(job.job_id)
        if coming is not None and not queue.keep_reserved(coming, until=lease):
            coming = None


def filling(url: str, folder: str) -> None:
    """Registers until the catalogue's disk is full, makes room, and registers again."""
    upgrade(url)
    catalog = Catalog(open_database(url))
    answered = register_until_full(catalog)
    Path(folder, "ballast").unlink()
    catalog.register(batch("9", 0))
    say(answered, catalog.counts().instances)


def register_until_full(catalog: Catalog) -> int:
    """The number of instances that were answered."""
    for number in range(10**6):
        try:
            catalog.register(batch("1", number))
        except OutOfSpace:
            return number * BATCH
    raise AssertionError("the disk is never full")


def storing(folder: str) -> None:
    """Writes results until the store's disk is full; says how many and what is left unfinished."""
    store = InstanceStore(Path(folder))
    for number in range(10**6):
        try:
            store.write_result(number.to_bytes(4) * 25_000)
        except OutOfSpace:
            break
    whole = list((Path(folder) / "results").rglob("*.dcm"))
    say(
        number,
        len(whole),
        {file.stat().st_size for file in whole},
        len(list(store.incoming.iterdir())),
    )


VERBS: dict[str, Callable[..., None]] = {
    "upgrade": upgrading,
    "register": registering,
    "inside-register": inside_register,
    "work": working,
    "fill": filling,
    "store": storing,
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
