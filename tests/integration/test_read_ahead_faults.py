"""What a study does to its reader is its own job's to bear, also when it is read ahead: real
processes, a decoder that aborts, files that never answer.

Not covered: reading ahead that goes well (test_read_ahead), memory that runs out
(unit/test_read_ahead).
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from storage.records import Priority
from tests.damaged import compressed, damage
from tests.reading_ahead import outcomes, queue, reserved
from tests.working import meanwhile, wait_for, work
from tests.workplace import Workplace, slices

MODEL = "dawdles"  # for two seconds
LEASE = timedelta(seconds=60)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    made.database.close()


def queue_damaged(place: Workplace, name: str) -> str:
    """A series that ends the process that reads it; the SOP Instance UID that does."""
    series = compressed(name)
    damage(series[3])
    place.receive(series)
    place.close(MODEL)
    return str(series[3].SOPInstanceUID)


class NeverAnswers:
    """A received file becomes one that waits for ever, as on a network that is gone."""

    def __init__(self, place: Workplace, series: int) -> None:
        arrival = place.catalog.instances(series)[0]
        self._path = place.store.path(arrival.key)
        self._path.unlink()
        os.mkfifo(self._path)

    def reader(self) -> int | None:
        """Whether somebody reads it: a descriptor that keeps that one waiting."""
        try:
            return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO, fifo(7)
            return None


def test_good_series_between_damaged_ones_are_analysed_and_each_damaged_one_says_why(
    place: Workplace,
) -> None:
    named: dict[int, str] = {}
    queue(place, MODEL, "one", "two")
    named[2] = queue_damaged(place, "three")
    queue(place, MODEL, "four", "five")
    named[5] = queue_damaged(place, "six")
    queue(place, MODEL, "seven")
    worker = place.worker(MODEL, attempts=2)
    try:
        for _ in range(2 * 7):
            if not worker.step():
                break
        assert not worker.step()
    finally:
        worker.close()
    found = outcomes(place)
    assert [one.state for one in found] == [
        "failed" if number in named else "done" for number in range(7)
    ]
    for number, instance in named.items():
        assert found[number].attempts == 2
        assert f"(SIGABRT) while it decoded instance {instance} " in (found[number].reason or "")
    assert any(found[number].attempts == 2 for number in (1, 4)), "one was read beside another"


def test_a_job_that_is_tried_again_has_a_child_that_reads_nothing_else(place: Workplace) -> None:
    queue(place, MODEL, "one", "two", "three")
    stuck = NeverAnswers(place, 3)
    worker = place.worker(MODEL, attempts=2)
    children: list[int | None] = []

    def tried_and_urgent() -> None:
        wait_for(stuck.reader)
        children.append(worker.child_process_id)
        place.receive(slices("urgent"))
        place.close(MODEL, priority=Priority.STAT)
        now = datetime.now(UTC)
        job = place.queue.claim(worker="v", models=[MODEL], now=now, lease_until=now + LEASE)
        assert job is not None
        assert job.job_id == 4
        assert place.queue.retry(job, at=now, error="its process crashed")

    assert worker.step()
    with meanwhile(tried_and_urgent):
        assert worker.step()
    assert [one.state for one in outcomes(place)] == ["done", "done", "waiting", "waiting"]
    while outcomes(place)[3].state == "waiting":
        assert worker.step()
        children.append(worker.child_process_id)
    worker.close()
    assert (outcomes(place)[3].state, outcomes(place)[3].attempts) == ("done", 2)
    assert children[0] not in (None, children[-1]), "not the one that still reads the third"
    assert (outcomes(place)[2].state, outcomes(place)[2].attempts) == ("waiting", 0)


def test_a_study_that_cannot_be_read_to_its_end_costs_its_own_job_its_deadline(
    place: Workplace,
) -> None:
    queue(place, MODEL, "one", "two", "three", "four")
    stuck = NeverAnswers(place, 3)
    worker = place.worker(MODEL, attempts=2, deadline_seconds=8)
    assert worker.step()
    with meanwhile(lambda: wait_for(stuck.reader)):
        assert worker.step()
    work(worker, jobs=3)
    found = [(one.state, one.attempts) for one in outcomes(place)]
    assert found == [("done", 1), ("done", 1), ("failed", 2), ("done", 1)]
    assert outcomes(place)[2].reason == "exceeded its deadline of 8 s; given up after 2 attempts"


def test_told_to_stop_it_does_not_wait_for_what_is_read_ahead(place: Workplace) -> None:
    queue(place, MODEL, "one", "two", "three")
    stuck = NeverAnswers(place, 3)
    worker = place.worker(MODEL, stop_seconds=30)

    def stop() -> None:
        wait_for(stuck.reader)
        place.stop.ask()

    with meanwhile(stop):
        worker.run(ready=lambda: None)
    assert [one.state for one in outcomes(place)] == ["done", "done", "waiting"]
    assert reserved(place) == [False] * 3


@pytest.mark.parametrize("lease_of", ["waiting", "running"])
def test_a_full_disk_that_refuses_a_lease_does_not_end_the_job_in_hand(
    place: Workplace, lease_of: str
) -> None:
    queue(place, MODEL, "one", "two")
    refuse_leases(place, lease_of)
    work(place.worker(MODEL, lease_seconds=2), jobs=1)
    one, two = outcomes(place)
    assert (one.state, one.attempts) == ("done", 1)
    assert (two.state, two.attempts, two.reserved_until) == ("waiting", 0, None)


def refuse_leases(place: Workplace, state: str) -> None:
    """The disk is full for whoever notes another lease of a job that is, and stays, in a state."""
    with place.database.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE filler (content BLOB)")
        connection.exec_driver_sql("CREATE TABLE refused (state TEXT)")
        connection.exec_driver_sql("INSERT INTO refused VALUES (?)", (state,))
        connection.exec_driver_sql(
            "CREATE TRIGGER full_disk AFTER UPDATE OF lease_until ON jobs"
            " WHEN new.state = old.state AND new.state IN (SELECT state FROM refused)"
            " AND new.lease_until NOT NULL"
            " BEGIN INSERT INTO filler VALUES (zeroblob(100000000)); END"
        )
    place.database.close()

    def small(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count=2000").close()

    sa.event.listen(place.database._engine, "connect", small)
