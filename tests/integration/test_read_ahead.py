"""The next study is read while one is computed, and nothing else is otherwise: real processes and
signals.

Nothing here measures time. Not covered: PostgreSQL (contracts/test_storage_reservations has the
verbs on both), a GPU, memory that runs out (unit/test_read_ahead), studies that crash or never
answer (test_read_ahead_faults).
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.analysis import Analyst
from service.assignment import assigned
from service.stopping import Stop
from service.tasks import Analysed
from storage.records import Job, Priority, SeriesState
from tests.logs import events, logging_to
from tests.reading_ahead import outcomes, queue, reserved
from tests.working import meanwhile, wait_for, work
from tests.workplace import Workplace, slices


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    made.database.close()


def job_lines(file: Path) -> list[dict[str, Any]]:
    return [line for line in events(file) if line["event"] == "job"]


def test_the_next_study_is_read_while_one_is_computed(place: Workplace, tmp_path: Path) -> None:
    queue(place, "dawdles", "one", "two", "three", "four")
    with logging_to(tmp_path / "log", role="infer") as file:
        work(place.worker("dawdles"), jobs=4)
    lines = job_lines(file)
    assert [line["outcome"] for line in lines] == ["done"] * 4
    assert [line["job_id"] for line in lines] == [1, 2, 3, 4]
    ahead = [line.get("read_ahead_seconds") is not None for line in lines]
    assert ahead == [False, False, True, True], "a model's first run is alone: it is measured"


def test_results_are_the_same_with_and_without(tmp_path: Path) -> None:
    found = []
    for read_ahead in (True, False):
        folder = tmp_path / str(read_ahead)
        folder.mkdir()
        place = Workplace(folder)
        queue(place, "dawdles", "one", "two", "three")
        with logging_to(folder / "log", role="infer") as file:
            work(place.worker("dawdles", read_ahead=read_ahead), jobs=3)
        last = job_lines(file)[-1]
        assert (last.get("read_ahead_seconds") is not None) is read_ahead
        results = [result for outcome in outcomes(place) for result in outcome.results]
        found.append([(one.sop_instance_uid, one.digest) for one in results])
        place.database.close()
    assert found[0] == found[1]
    assert len(found[0]) == 2 * 3


def test_a_killed_child_costs_the_job_that_ran_and_it_runs_alone_then(place: Workplace) -> None:
    queue(place, "dawdles", "one", "two")
    worker = place.worker("dawdles")

    def kill() -> None:
        wait_for(lambda: reserved(place) == [False, True])
        os.kill(worker.child_process_id or 0, signal.SIGKILL)

    with meanwhile(kill):
        assert worker.step()
    one, two = outcomes(place)
    assert (one.state, one.attempts) == ("waiting", 1)
    assert one.reason == "its process was killed (SIGKILL), probably out of memory"
    assert (two.state, two.attempts, two.reserved_until) == ("waiting", 0, None)
    seen: list[bool] = []
    look = worker._next.look

    def watched(child: Any, *, beside: Job) -> None:
        look(child, beside=beside)
        seen.append(worker._next.job is not None)

    worker._next.look = watched  # type: ignore[method-assign]
    assert worker.step(), "the one that was killed comes first, as it came first"
    assert seen
    assert not any(seen), "and nothing is read beside it"
    work(worker, jobs=1)
    assert [(one.state, one.attempts) for one in outcomes(place)] == [("done", 2), ("done", 1)]


def test_what_cannot_be_read_costs_its_own_attempt(place: Workplace) -> None:
    queue(place, "dawdles", "one", "two")
    *first, bad = slices("three")
    place.receive(first)
    place.receive_garbage(bad)
    place.close("dawdles")
    worker = place.worker("dawdles")
    work(worker, jobs=3)
    states = [(series.state, series.outcomes[0].attempts) for series in place.series()]
    assert states == [
        (SeriesState.COMPLETE, 1),
        (SeriesState.COMPLETE, 1),
        (SeriesState.QUARANTINED, 1),
    ]
    assert [one.state for one in outcomes(place)] == ["done", "done", "failed"]


def test_a_study_that_grows_while_it_is_read_ahead_is_analysed_whole(
    place: Workplace, tmp_path: Path
) -> None:
    queue(place, "dawdles", "one", "two")
    *first, late = slices("three")
    place.receive(first)
    place.close("dawdles")
    worker = place.worker("dawdles", lease_seconds=2)

    def grow() -> None:
        wait_for(lambda: reserved(place) == [False, False, True])
        time.sleep(0.5)
        place.receive([late])
        place.close("dawdles")

    with logging_to(tmp_path / "log", role="infer") as file:
        assert worker.step()
        with meanwhile(grow):
            assert worker.step()
        work(worker, jobs=1)
    grown = outcomes(place)[2]
    assert (grown.state, grown.generation, grown.reason) == ("done", 2, "8 slices")
    assert [line["job_id"] for line in job_lines(file)] == [1, 2, 4]


def test_what_is_urgent_comes_first_and_what_was_read_stays_read(
    place: Workplace, tmp_path: Path
) -> None:
    queue(place, "dawdles", "one", "two", "three")
    worker = place.worker("dawdles")

    def hurry() -> None:
        wait_for(lambda: reserved(place) == [False, False, True])
        place.receive(slices("urgent"))
        place.close("dawdles", priority=Priority.STAT)

    with logging_to(tmp_path / "log", role="infer") as file:
        assert worker.step()
        with meanwhile(hurry):
            assert worker.step()
        work(worker, jobs=2)
    lines = job_lines(file)
    assert [line["job_id"] for line in lines] == [1, 2, 4, 3]
    assert lines[-1].get("read_ahead_seconds") is not None


@pytest.mark.parametrize("read_ahead", [True, False])
def test_nothing_is_reserved_unless_asked_for(place: Workplace, *, read_ahead: bool) -> None:
    queue(place, "dawdles", "one", "two")
    worker = place.worker("dawdles", read_ahead=read_ahead)
    seen = []
    with meanwhile(lambda: seen.append(seen_while_running(place))):
        work(worker, jobs=1)
    assert seen == [read_ahead]
    assert reserved(place) == [False, False], "a worker that ends gives it up"


def seen_while_running(place: Workplace) -> bool:
    """Whether the second job was ever reserved while the first ran."""
    wait_for(lambda: place.catalog.overview().running)
    found = False
    while place.catalog.overview().running:
        found = found or reserved(place)[1]
        time.sleep(0.05)
    return found


def test_told_to_stop_it_gives_up_what_comes_next_at_once(place: Workplace) -> None:
    queue(place, "hangs", "one", "two")
    worker = place.worker("hangs", stop_seconds=60)

    def stop() -> None:
        wait_for(lambda: reserved(place) == [False, True])
        place.stop.ask()
        wait_for(lambda: reserved(place) == [False, False])
        assert place.catalog.overview().running == 1, "while the job in hand goes on"
        place.stop.ask()

    with meanwhile(stop):
        worker.run(ready=lambda: None)
    assert [(one.state, one.attempts) for one in outcomes(place)] == [("waiting", 0)] * 2


def _run_worker(folder: Path) -> None:
    Workplace(folder, stop=Stop()).worker("hangs").run(ready=lambda: None)


def test_what_a_killed_worker_had_reserved_is_anybodys_at_once(
    place: Workplace, tmp_path: Path
) -> None:
    queue(place, "hangs", "one", "two")
    process = multiprocessing.get_context("spawn").Process(target=_run_worker, args=(tmp_path,))
    process.start()
    try:
        wait_for(lambda: reserved(place) == [False, True])
        os.kill(process.pid or 0, signal.SIGKILL)
    finally:
        process.kill()
        process.join()
    now = datetime.now(UTC)
    found = place.queue.claim(
        worker="another", models=["hangs"], now=now, lease_until=now + timedelta(seconds=60)
    )
    assert found is not None
    assert (found.job_id, found.attempts) == (2, 1)
    assert place.queue.expired(now) == (), "the other waits for the end of its lease, as ever"


def test_what_another_worker_takes_is_not_done_twice(place: Workplace, tmp_path: Path) -> None:
    queue(place, "dawdles", "one", "two")
    worker = place.worker("dawdles", lease_seconds=2)
    taken: list[Job | None] = []

    def take() -> None:
        wait_for(lambda: reserved(place) == [False, True])
        now = datetime.now(UTC)
        until = now + timedelta(seconds=60)
        taken.append(
            place.queue.claim(worker="idle", models=["dawdles"], now=now, lease_until=until)
        )

    with meanwhile(take):
        assert worker.step()
    assert [job and job.job_id for job in taken] == [2]
    assert not worker.step(), "nothing is left for it"
    worker.close()
    two = outcomes(place)[1]
    assert (two.state, two.attempts) == ("running", 1)


@pytest.mark.parametrize(("model", "package"), [
    ("joins", "tests.hostile_models"),
    ("brightest", "tests.planar_models"),
])  # fmt: skip
def test_several_series_and_planar_images_are_read_ahead_as_well(
    place: Workplace, model: str, package: str
) -> None:
    one, two = slices("one"), slices("two")
    place.receive([*one, *two])
    roles = {"T1": str(one[0].SeriesInstanceUID), "T2": str(two[0].SeriesInstanceUID)}
    if model == "joins":
        place.close_together(model, **roles)
    else:
        place.close(model)
    now = datetime.now(UTC)
    job = place.queue.claim(worker="w", models=[model], now=now, lease_until=now)
    assert job is not None
    task = assigned(job, place.catalog).task(place.store, None)
    analyst = Analyst(place.worker(model, package=package)._child._setup)
    alone = analyst.answer(task)
    held = analyst._read_ahead(task, 1 << 40)
    assert held is not None
    assert held.size >= 2 * 8 * 40 * 40, "of int16"
    reading: Future[Any] = Future()
    reading.set_result(held)
    ahead = analyst.answer(task, reading)
    assert isinstance(alone, Analysed)
    assert isinstance(ahead, Analysed)
    assert ahead.durations.read_ahead == held.seconds
    assert (ahead.reason, ahead.objects, ahead.vectors) == (
        alone.reason,
        alone.objects,
        alone.vectors,
    )
    assert analyst._read_ahead(task, held.size - 1) is None, "no room"
