"""A job that waits may be read ahead by one worker; nobody is kept from claiming it.

On SQLite and PostgreSQL. Not covered: what is read ahead and by whom (test_read_ahead.py).
"""

import dataclasses

from storage.catalog import Catalog
from storage.queue import Queue
from storage.records import Job, JobState, Priority
from tests.records import START, after, arrive, claim, instance, request, ripe


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
