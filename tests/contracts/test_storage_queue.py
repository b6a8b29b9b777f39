"""The promises of jobs: one worker at a time, fenced, complete or not at all; on SQLite and
PostgreSQL.

Not covered here: workers that die and several at once (test_storage_processes.py), when to retry
(service/retry.py).
"""

import dataclasses

import numpy as np
import pytest

from storage.catalog import Catalog
from storage.database import Database
from storage.queue import Queue
from storage.records import (
    DeliveryState,
    Effort,
    Job,
    JobState,
    Priority,
    SeriesState,
    Vector,
    Verdict,
)
from storage.vectors import Vectors
from tests.records import (
    START,
    TAKERS,
    after,
    arrive,
    claim,
    complete,
    done,
    instance,
    request,
    results,
    ripe,
    vector,
)


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


@pytest.fixture
def job(catalog: Catalog, queue: Queue) -> Job:
    """A job that is RUNNING."""
    arrival = arrive(catalog)
    catalog.close_series(arrival, [request(arrival)], [], START)
    return claim(queue)


def none_claimed(queue: Queue, model: str = "lung-ct", seconds: float = 0) -> bool:
    at = after(seconds)
    return queue.claim(worker="w", models=[model], now=at, lease_until=at) is None


def due(queue: Queue, destination: str = "pacs") -> list[str]:
    found = queue.claim_deliveries(destination, now=START, lease_until=START, limit=99)
    return [delivery.result.kind for delivery in found]


def test_a_claimed_job_is_whole_and_nobody_else_gets_it(queue: Queue, job: Job) -> None:
    assert (job.state, job.attempts, job.token, job.started_at) == (JobState.RUNNING, 1, 1, START)
    assert (job.study_instance_uid, job.series_instance_uid) == ("1.2", "1.2.1")
    assert job.request.model == "lung-ct"
    assert none_claimed(queue)


def test_only_the_models_asked_for_are_claimed(catalog: Catalog, queue: Queue) -> None:
    arrival = arrive(catalog)
    catalog.close_series(arrival, [request(arrival, model="spleen")], [], START)
    assert none_claimed(queue)
    assert none_claimed(queue, model="")
    assert claim(queue).request.model == "spleen"


def test_the_most_urgent_job_comes_first_then_the_oldest(catalog: Catalog, queue: Queue) -> None:
    for second, priority in enumerate(("routine", "urgent", "stat", "routine")):
        arrival = arrive(catalog, series=f"1.2.{second}")
        wanted = request(arrival, priority=Priority(priority))
        catalog.close_series(arrival, [wanted], [], after(second))
    got = [claim(queue, now=after(9)).series_instance_uid for _ in range(4)]
    assert got == ["1.2.2", "1.2.1", "1.2.0", "1.2.3"]


def test_complete_is_done_with_results_deliveries_and_vectors(
    catalog: Catalog, queue: Queue, database: Database, job: Job
) -> None:
    assert complete(queue, job)
    assert queue.results(job.job_id) == results(job)
    assert due(queue) == ["segmentation", "measurement_report"]
    assert due(queue, "archive") == []
    stored, matrix = Vectors(database).matrix("histogram", "1")
    assert matrix.tolist() == [[1.0, 1.0]]
    assert (stored[0].series_instance_uid, stored[0].modality) == ("1.2.1", "CT")


def test_what_a_model_took_is_with_its_outcome_and_counted(
    catalog: Catalog, queue: Queue, job: Job
) -> None:
    took = Effort(device="cuda:0", arithmetic="bfloat16", peak_bytes=5_000_000_000, seconds=6.25)
    assert queue.complete(
        job,
        verdict=Verdict.MEASURED,
        reason=None,
        results=[],
        destinations=TAKERS,
        vectors=[],
        now=after(5),
        effort=took,
    )
    (outcome,) = catalog.overview().studies[0].series[0].outcomes
    assert outcome.effort == took
    assert catalog.counts().efforts == {job.request.model: took}


def test_a_job_is_completed_once(queue: Queue, job: Job) -> None:
    assert complete(queue, job)
    assert not complete(queue, job)
    assert not queue.fail(job, error="late", now=START)


def test_a_not_analysed_job_says_why(catalog: Catalog, queue: Queue, job: Job) -> None:
    assert queue.complete(
        job,
        verdict=Verdict.NOT_ANALYSED,
        reason="gap of 20 mm between slices 3 and 4",
        results=[],
        destinations=TAKERS,
        vectors=[],
        now=after(5),
    )
    (outcome,) = catalog.overview().studies[0].series[0].outcomes
    assert (outcome.state, outcome.reason) == (
        "not_analysed",
        "gap of 20 mm between slices 3 and 4",
    )


def test_a_vector_whose_bytes_do_not_fit_its_dimensions_cannot_be() -> None:
    with pytest.raises(ValueError, match="3 float32"):
        Vector(kind="histogram", version="1", dimensions=3, data=b"\0" * 8)


def test_a_retried_job_waits_until_then_and_keeps_its_attempts(queue: Queue, job: Job) -> None:
    assert queue.retry(job, at=after(60), error="no memory")
    assert none_claimed(queue, seconds=59.9)
    again = claim(queue, now=after(60))
    assert (again.job_id, again.attempts, again.reason) == (job.job_id, 2, "no memory")


def test_a_released_job_is_as_if_it_had_not_been_claimed(queue: Queue, job: Job) -> None:
    assert queue.release(job)
    assert claim(queue).attempts == 1


def test_a_failed_job_states_its_reason_and_is_requeued(
    catalog: Catalog, queue: Queue, job: Job
) -> None:
    assert queue.fail(job, error="killed, probably out of memory", now=after(9))
    (outcome,) = catalog.overview().studies[0].series[0].outcomes
    assert (outcome.state, outcome.reason) == ("failed", "killed, probably out of memory")
    assert none_claimed(queue)
    assert queue.requeue(failed=True, model="spleen", now=START) == 0
    assert queue.requeue(failed=True, now=after(10)) == 1
    again = claim(queue, now=after(10))
    assert (again.attempts, again.reason) == (1, None)


def test_a_renewed_job_is_superseded_by_one_for_the_model_as_it_is(
    catalog: Catalog, queue: Queue
) -> None:
    old = done(catalog, queue)
    queue.requeue(now=START, study="1.2")
    job = claim(queue)
    assert not queue.renew(old, model_version="2.0.0", configuration="c", now=START)
    assert queue.renew(job, model_version="2.0.0", configuration="c", now=START)
    assert not complete(queue, job)
    newer = claim(queue)
    assert (newer.request.model_version, newer.request.configuration) == ("2.0.0", "c")
    assert (newer.generation, newer.supersedes) == (2, old.job_id)
    assert newer.request.destinations == old.request.destinations
    assert none_claimed(queue)


def test_an_expired_lease_takes_the_job_from_its_worker(queue: Queue, job: Job) -> None:
    assert queue.expired(after(60)) == ()
    (taken,) = queue.expired(after(61))
    assert (taken.job_id, taken.state, taken.attempts) == (job.job_id, JobState.RUNNING, 1)
    assert not queue.heartbeat(job, lease_until=after(999))
    assert not complete(queue, job)
    assert queue.retry(taken, at=after(61), error="the worker vanished")
    assert complete(queue, claim(queue, now=after(61)))


def test_a_heartbeat_keeps_the_lease(queue: Queue, job: Job) -> None:
    assert queue.heartbeat(job, lease_until=after(120))
    assert queue.expired(after(119)) == ()


def test_a_rescuer_that_dies_is_rescued_too(queue: Queue, job: Job) -> None:
    (first,) = queue.expired(after(61))
    (second,) = queue.expired(after(62))
    assert not queue.fail(first, error="slow rescuer", now=after(62))
    assert queue.fail(second, error="lost", now=after(62))


def test_a_job_done_again_has_its_results_once_and_delivers_them_again(
    catalog: Catalog, queue: Queue
) -> None:
    job = done(catalog, queue)
    for delivery in queue.claim_deliveries("pacs", now=START, lease_until=START, limit=9):
        queue.delivered(delivery, DeliveryState.SENT, START)
    assert queue.requeue(study="1.2", now=START) == 1
    assert queue.results(job.job_id) == results(job)
    again = claim(queue)
    assert complete(queue, again)
    assert queue.results(job.job_id) == results(job)
    assert due(queue) == ["segmentation", "measurement_report"]
    assert catalog.counts().vectors == 1


def test_a_result_that_a_later_run_has_no_more_is_withdrawn(catalog: Catalog, queue: Queue) -> None:
    job = done(catalog, queue)
    queue.requeue(study="1.2", now=START)
    report = results(job)[1]
    assert queue.complete(
        claim(queue),
        verdict=Verdict.WITHHELD,
        reason="the airway tree leaks",
        results=[report],
        destinations=TAKERS,
        vectors=[vector(2.0)],
        now=START,
    )
    assert queue.results(job.job_id) == (report,)
    assert due(queue) == ["measurement_report"]


def test_what_is_undelivered_of_an_older_result_is_withdrawn_only_when_the_newer_is_done(
    catalog: Catalog, queue: Queue
) -> None:
    old = done(catalog, queue)
    catalog.register([instance(9)])
    second = ripe(catalog)
    catalog.close_series(second, [request(second)], [], START)
    new = claim(queue)
    before = queue.claim_deliveries("pacs", now=START, lease_until=START, limit=9)
    assert {delivery.job_id for delivery in before} == {old.job_id}
    assert complete(queue, new)
    now_due = queue.claim_deliveries("pacs", now=START, lease_until=START, limit=9)
    assert {delivery.job_id for delivery in now_due} == {new.job_id}
    assert queue.delivered(before[0], DeliveryState.SENT, START), "it had left already"
    (outcome,) = catalog.overview().studies[0].series[0].outcomes
    assert outcome.job_id == new.job_id
    assert queue.requeue(study="1.2", now=START) == 1, "the superseded one is not run again"


def test_a_failed_newer_job_leaves_the_older_result_to_be_delivered(
    catalog: Catalog, queue: Queue
) -> None:
    done(catalog, queue)
    catalog.register([instance(9)])
    second = ripe(catalog)
    catalog.close_series(second, [request(second)], [], START)
    assert queue.fail(claim(queue), error="no memory", now=START)
    assert due(queue) == ["segmentation", "measurement_report"]
    states = [one.state for one in catalog.overview().studies[0].series[0].outcomes]
    assert states == ["done", "failed"]


def test_a_destination_that_joins_while_the_job_runs_gets_its_results(
    catalog: Catalog, queue: Queue, job: Job
) -> None:
    (study,) = catalog.ripe_studies(START)
    wanted = dataclasses.replace(job.request, scope="study", destinations=("archive",))
    assert catalog.close_study(study, [wanted], [], START)
    assert complete(queue, job)
    assert due(queue, "archive") == ["measurement_report"]


def test_a_destination_that_joins_when_the_job_is_done_gets_its_results(
    catalog: Catalog, queue: Queue
) -> None:
    job = done(catalog, queue)
    (study,) = catalog.ripe_studies(START)
    wanted = dataclasses.replace(job.request, scope="study", destinations=("archive",))
    assert catalog.close_study(study, [wanted], [], START)
    assert due(queue, "archive") == ["measurement_report"]


def test_requeue_ends_a_quarantine(catalog: Catalog, queue: Queue, job: Job) -> None:
    queue.fail(job, error="unreadable", now=START)
    catalog.quarantine_series(job.request.series_id, "unreadable", START)
    assert queue.requeue(study="1.2", now=START) == 1
    assert catalog.overview().studies[0].series[0].state is SeriesState.COMPLETE


def test_requeue_needs_to_know_what(queue: Queue) -> None:
    with pytest.raises(ValueError, match="name a study"):
        queue.requeue(now=START)


def test_vectors_are_found_by_series_and_study_and_say_whose_they_are(
    catalog: Catalog, queue: Queue, database: Database
) -> None:
    done(catalog, queue)
    vectors = Vectors(database)
    (stored,) = vectors.of_study("1.2")
    assert vectors.of_series("1.2.1") == (stored,)
    assert vectors.kinds() == (("histogram", "1"),)
    assert len(stored.patient) == 64
    assert "4711" not in stored.patient
    empty = vectors.matrix("histogram", "2")
    assert empty[0] == ()
    assert empty[1].shape == (0, 0)
    assert empty[1].dtype == np.float32


def three(catalog: Catalog, *priorities: Priority) -> None:
    """The jobs 1, 2, 3 that wait, due one second after the other; routine unless said."""
    wanted = [*priorities, *[Priority.ROUTINE] * 3][:3]
    for number, priority in enumerate(wanted):
        arrival = arrive(catalog, series=f"1.2.{number}")
        catalog.close_series(arrival, [request(arrival, priority=priority)], [], after(number))


def reserve(queue: Queue, worker: str, *, at: float = 9, until: float = 69) -> Job | None:
    return queue.reserve(worker=worker, models=["lung-ct"], now=after(at), until=after(until))


def claimed(queue: Queue, *, reserved: Job | None = None, at: float = 9) -> int:
    job = queue.claim(
        worker="w",
        models=["lung-ct"],
        now=after(at),
        lease_until=after(at + 60),
        reserved=reserved,
    )
    assert job is not None
    return job.job_id


def test_a_reserved_job_waits_and_has_cost_nothing(catalog: Catalog, queue: Queue) -> None:
    three(catalog)
    job = reserve(queue, "a")
    assert job is not None
    assert (job.job_id, job.state, job.attempts, job.started_at) == (1, JobState.WAITING, 0, None)
    shown = [one.outcomes[0] for one in catalog.overview().studies[0].series]
    assert [(one.state, one.reserved_until) for one in shown] == [
        ("waiting", after(69)),
        ("waiting", None),
        ("waiting", None),
    ]


def test_workers_reserve_different_jobs(catalog: Catalog, queue: Queue) -> None:
    three(catalog, Priority.ROUTINE, Priority.STAT)
    found = [reserve(queue, worker) for worker in "abcd"]
    assert [job and job.job_id for job in found] == [2, 1, 3, None]


def test_a_worker_claims_what_it_reserved_and_the_others_come_to_theirs(
    catalog: Catalog, queue: Queue
) -> None:
    three(catalog)
    first, second = reserve(queue, "a"), reserve(queue, "b")
    assert claimed(queue) == 3, "one that nobody reads"
    assert claimed(queue, reserved=second) == 2
    assert claimed(queue, reserved=first) == 1


def test_a_reserved_job_is_taken_at_once_when_there_is_no_other(
    catalog: Catalog, queue: Queue
) -> None:
    three(catalog)
    found = [reserve(queue, worker) for worker in "abc"]
    assert claimed(queue) == 1
    (first, second, _) = found
    assert first is not None
    assert not queue.keep_reserved(first, until=after(99)), "its reader learns it"
    assert not queue.unreserve(first)
    assert queue.heartbeat(dataclasses.replace(first, token=first.token + 1), lease_until=after(99))
    assert claimed(queue, reserved=first) == 2, "an old reservation is none"
    assert second is not None
    assert not queue.keep_reserved(second, until=after(99))


def test_what_is_more_urgent_comes_before_a_reservation_and_keeps_it(
    catalog: Catalog, queue: Queue
) -> None:
    three(catalog)
    mine = reserve(queue, "a")
    assert mine is not None
    urgent = arrive(catalog, series="1.2.9")
    catalog.close_series(urgent, [request(urgent, priority=Priority.STAT)], [], after(5))
    assert claimed(queue, reserved=mine) == 4
    assert queue.keep_reserved(mine, until=after(99))
    assert claimed(queue, reserved=mine) == 1


def test_an_urgent_job_does_not_wait_for_the_worker_that_reads_it(
    catalog: Catalog, queue: Queue
) -> None:
    three(catalog, Priority.ROUTINE, Priority.STAT)
    assert reserve(queue, "a") is not None
    assert claimed(queue) == 2


def test_a_reservation_that_is_not_kept_ends(catalog: Catalog, queue: Queue) -> None:
    three(catalog)
    old = reserve(queue, "a", until=20)
    new = reserve(queue, "b", at=20)
    assert old is not None
    assert new is not None
    assert old.job_id == new.job_id == 1
    assert not queue.keep_reserved(old, until=after(99))
    assert not queue.unreserve(old)
    assert queue.keep_reserved(new, until=after(99))


def test_a_job_that_is_given_up_is_the_first_again(catalog: Catalog, queue: Queue) -> None:
    three(catalog)
    mine = reserve(queue, "a")
    assert mine is not None
    assert queue.unreserve(mine)
    again = reserve(queue, "b")
    assert again is not None
    assert (again.job_id, again.attempts) == (1, 0)


def test_a_job_that_was_tried_before_is_not_reserved(catalog: Catalog, queue: Queue) -> None:
    arrival = arrive(catalog)
    catalog.close_series(arrival, [request(arrival)], [], START)
    assert queue.retry(claim(queue), at=START, error="crashed")
    assert reserve(queue, "a") is None
    assert claimed(queue) == 1


def test_what_came_later_is_not_reserved_before_a_job_that_is_tried_again(
    catalog: Catalog, queue: Queue
) -> None:
    three(catalog)
    assert queue.retry(claim(queue), at=after(5), error="crashed")
    mine = reserve(queue, "a", at=4)
    assert mine is not None
    assert (mine.job_id, claimed(queue, reserved=mine)) == (2, 2)
    mine = reserve(queue, "a", at=9)
    assert mine is not None
    assert (mine.job_id, claimed(queue, reserved=mine)) == (3, 3)
    arrival = arrive(catalog, series="1.2.9")
    catalog.close_series(arrival, [request(arrival)], [], after(6))
    assert reserve(queue, "a", at=9) is None, "else it would never come to the first"
    assert claimed(queue) == 1
    mine = reserve(queue, "a", at=9)
    assert mine is not None
    assert mine.job_id == 4


def test_a_job_that_is_superseded_is_reserved_no_more(catalog: Catalog, queue: Queue) -> None:
    arrival = arrive(catalog)
    catalog.close_series(arrival, [request(arrival)], [], START)
    mine = reserve(queue, "a")
    assert mine is not None
    catalog.register([instance(9)])
    grown = ripe(catalog)
    catalog.close_series(grown, [request(grown)], [], START)
    assert not queue.keep_reserved(mine, until=after(99))
    assert claimed(queue, reserved=mine) == 2


def test_a_rescue_leaves_reservations_alone(catalog: Catalog, queue: Queue) -> None:
    three(catalog)
    assert reserve(queue, "a") is not None
    assert queue.expired(after(999)) == ()
