"""What holds when real processes share a catalogue, and when they are killed; on SQLite and
PostgreSQL.

Not covered here: a power cut (the tests cannot cut it; SQLite runs with synchronous=FULL,
PostgreSQL with its default), a database server that is killed itself.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.catalog import Catalog
from storage.database import Database, open_database
from storage.queue import Queue
from storage.records import JobState
from storage.schema import DELIVERIES, INSTANCES, JOBS, RESULTS, SERIES, VECTORS
from tests.records import START, after, arrive, request
from tests.storage_process import BATCH

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of tests/storage_process.py; killed at the end whatever happens."""
    command = [sys.executable, "-m", "tests.storage_process", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def said(started: subprocess.Popen[str]) -> list[str]:
    assert started.stdout is not None
    return started.stdout.read().split()


def heard(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def jobs(catalog: Catalog, count: int) -> None:
    for number in range(count):
        arrival = arrive(catalog, 1, series=f"1.{number}", study=f"1.{number}")
        assert catalog.close_series(arrival, [request(arrival)], [], START)


def test_processes_that_start_at_once_upgrade_an_empty_database_once(
    empty_database_url: str,
) -> None:
    with (
        process("upgrade", empty_database_url) as one,
        process("upgrade", empty_database_url) as two,
        process("upgrade", empty_database_url) as three,
    ):
        everyone = (one, two, three)
        assert [heard(each) for each in everyone] == ["ready"] * 3
        for each in everyone:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        assert [heard(each) for each in everyone] == ["upgraded"] * 3
        assert [each.wait() for each in everyone] == [0, 0, 0]
    database = open_database(empty_database_url)
    assert Catalog(database).counts().instances == 0
    database.close()


def test_each_job_is_done_by_one_of_several_workers(database_url: str, database: Database) -> None:
    jobs(Catalog(database), 40)
    with (
        process("work", database_url, "a") as one,
        process("work", database_url, "b") as two,
        process("work", database_url, "c") as three,
    ):
        done = [said(each) for each in (one, two, three)]
    assert Counter(int(job) for each in done for job in each) == Counter(range(1, 41))
    assert whole_completions(database) == 40


def test_a_process_killed_inside_register_leaves_nothing_of_the_batch(
    database_url: str, database: Database
) -> None:
    with process("inside-register", database_url, "7") as killed:
        assert heard(killed) == "inside"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert series_sizes(database) == {"7.0": BATCH}
    assert Catalog(database).counts().instances == BATCH


def test_whatever_was_answered_survives_a_kill_at_any_moment(
    database_url: str, database: Database
) -> None:
    for prefix, seconds in (("1", 0.05), ("2", 0.12), ("3", 0.21)):
        with process("register", database_url, prefix) as killed:
            first = heard(killed)
            time.sleep(seconds)
            os.kill(killed.pid, signal.SIGKILL)
            answered = [first, *said(killed)]
        sizes = {uid: n for uid, n in series_sizes(database).items() if uid.startswith(prefix)}
        assert set(sizes.values()) == {BATCH}, "half a batch"
        assert {f"{prefix}.{number}" for number in answered} <= set(sizes)


def test_a_worker_killed_at_any_moment_leaves_each_job_whole_or_to_be_rescued(
    database_url: str, database: Database
) -> None:
    jobs(Catalog(database), 60)
    answered: list[str] = []
    for seconds in (0.02, 0.05, 0.09):
        with process("work", database_url, "w") as killed:
            answered.append(heard(killed))
            time.sleep(seconds)
            os.kill(killed.pid, signal.SIGKILL)
            answered.extend(said(killed))
    assert whole_completions(database) >= len(answered)
    queue = Queue(database)
    for lost in queue.expired(after(61)):
        assert queue.retry(lost, at=START, error="the worker was killed")
    with process("work", database_url, "last") as last:
        answered.extend(said(last))
    assert max(Counter(answered).values()) == 1
    assert whole_completions(database) == 60


def series_sizes(database: Database) -> dict[str, int]:
    """Instances by series, counted in the rows; equal to what the series' row says."""
    query = (
        sa.select(SERIES.c.series_instance_uid, SERIES.c.instances, sa.func.count())
        .join(INSTANCES, INSTANCES.c.series_id == SERIES.c.id, isouter=True)
        .group_by(SERIES.c.id)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    assert all(row[1] == row[2] for row in rows)
    return {row[0]: row[2] for row in rows}


def whole_completions(database: Database) -> int:
    """The number of DONE jobs; each has 2 results, 2 deliveries and a vector, others have none."""
    with database.read() as connection:
        done = connection.execute(sa.select(JOBS.c.id).where(JOBS.c.state == JobState.DONE)).all()
        counted = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (RESULTS, DELIVERIES, VECTORS)
        ]
    assert counted == [2 * len(done), 2 * len(done), len(done)]
    return len(done)


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """The start of a shell command line that has a 3 MB disk with some ballast at tmp_path/disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=3m none {disk} && head -c 500000 /dev/zero > {disk}/ballast"
    for isolated in (["--user", "--map-root-user", "--mount"], ["--mount"]):
        command = ["unshare", *isolated, "sh", "-c", f'{mount} && exec "$@"', "sh"]
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.skip("no permission to mount a small disk (user namespaces are off)")


def on_small_disk(small_disk: list[str], *arguments: str) -> list[str]:
    command = [*small_disk, sys.executable, "-m", "tests.storage_process", *arguments]
    ran = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_catalogue_on_a_full_disk_keeps_what_it_answered_and_goes_on_after(
    small_disk: list[str], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    url = f"sqlite:///{disk / 'catalogue.sqlite'}"
    answered, counted = map(int, on_small_disk(small_disk, "fill", url, str(disk)))
    assert answered > 0
    assert counted == answered + BATCH


def test_a_store_on_a_full_disk_has_whole_files_only(small_disk: list[str], tmp_path: Path) -> None:
    written, whole, sizes, unfinished = on_small_disk(small_disk, "store", str(tmp_path / "disk"))
    assert int(written) == int(whole) > 0
    assert (sizes, unfinished) == ("{100000}", "0")
