"""The promises of jobs: one worker at a time, fenced, complete or not at all; on SQLite and
PostgreSQL.

Not covered here: what is read ahead (test_storage_reservations.py), workers that die and several at
once (test_storage_processes.py), when to retry (service/retry.py).
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
