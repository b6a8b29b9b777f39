"""The promises of deliveries: in order, at least once, fenced; on SQLite and PostgreSQL.

Not covered here: destinations themselves (test_destinations.py), when to try again
(service/retry.py).
"""

import pytest

from storage.catalog import Catalog
from storage.database import Database
from storage.queue import Queue
from storage.records import Delivery, DeliveryState, Priority
from tests.records import START, after, arrive, claim, complete, done, request

SEGMENTATION, REPORT = "segmentation", "measurement_report"


@pytest.fixture
def queue(database: Database, catalog: Catalog) -> Queue:
    """A queue with one job DONE, its SEG and SR due at `pacs`, its SR at `archive`."""
    queue = Queue(database)
    done(catalog, queue, destinations=["pacs", "archive"])
    return queue


def claimed(
    queue: Queue, destination: str = "pacs", *, seconds: float = 0, limit: int = 99
) -> tuple[Delivery, ...]:
    return queue.claim_deliveries(
        destination, now=after(seconds), lease_until=after(seconds + 60), limit=limit
    )


def kinds(deliveries: tuple[Delivery, ...]) -> list[str]:
    return [delivery.result.kind for delivery in deliveries]


def states(catalog: Catalog) -> dict[tuple[str, str], str]:
    (outcome,) = catalog.overview().studies[0].series[0].outcomes
    return {(one.destination, one.result.kind): one.state.value for one in outcome.deliveries}


def test_a_segmentation_is_given_before_the_report_that_refers_to_it(queue: Queue) -> None:
    batch = claimed(queue)
    assert kinds(batch) == [SEGMENTATION, REPORT]
    assert [(one.order, one.attempts, one.state) for one in batch] == [
        (0, 1, DeliveryState.DUE),
        (1, 1, DeliveryState.DUE),
    ]


def test_a_report_is_not_given_while_its_segmentation_is_on_its_way(queue: Queue) -> None:
    (segmentation,) = claimed(queue, limit=1)
    assert claimed(queue) == ()
    assert queue.delivered(segmentation, DeliveryState.SENT, START)
    assert kinds(claimed(queue)) == [REPORT]


def test_a_report_waits_while_its_segmentation_waits_for_its_retry(queue: Queue) -> None:
    segmentation, report = claimed(queue)
    assert queue.delivery_retry(segmentation, after(100), "0xA700")
    assert queue.delivery_retry(report, START, "not tried")
    assert claimed(queue, seconds=99) == ()
    assert kinds(claimed(queue, seconds=100)) == [SEGMENTATION, REPORT]


def test_a_report_fails_with_the_segmentation_it_refers_to(catalog: Catalog, queue: Queue) -> None:
    segmentation, report = claimed(queue)
    assert queue.delivery_failed(segmentation, "SOP class not supported")
    assert not queue.delivery_retry(report, START, "late")
    assert states(catalog) == {
        ("pacs", SEGMENTATION): "failed",
        ("pacs", REPORT): "failed",
        ("archive", REPORT): "due",
    }


def test_a_destination_does_not_wait_for_another(queue: Queue) -> None:
    assert kinds(claimed(queue)) == [SEGMENTATION, REPORT]
    assert kinds(claimed(queue, "archive")) == [REPORT]


def test_a_lease_that_ended_gives_the_delivery_to_another_sender(queue: Queue) -> None:
    lost = claimed(queue)
    assert claimed(queue, seconds=59) == ()
    again = claimed(queue, seconds=60)
    assert [one.attempts for one in again] == [2, 2]
    assert not queue.delivered(lost[0], DeliveryState.SENT, START)
    assert queue.delivered(again[0], DeliveryState.SENT, START)


def test_a_heartbeat_keeps_deliveries(queue: Queue) -> None:
    batch = claimed(queue)
    assert queue.delivery_heartbeat(batch, lease_until=after(120)) == 2
    assert claimed(queue, seconds=119) == ()


def test_a_released_delivery_keeps_its_attempts(queue: Queue) -> None:
    assert queue.delivery_release(claimed(queue)) == 2
    assert [one.attempts for one in claimed(queue)] == [1, 1]


def test_sent_becomes_committed(catalog: Catalog, queue: Queue) -> None:
    (report,) = claimed(queue, "archive")
    assert queue.delivered(report, DeliveryState.SENT, START)
    assert queue.delivered(report, DeliveryState.COMMITTED, after(9))
    assert not queue.delivered(report, DeliveryState.SENT, after(9))
    assert states(catalog)["archive", REPORT] == "committed"


def test_a_delivery_ends_as_sent_or_committed_only(queue: Queue) -> None:
    with pytest.raises(ValueError, match="allowed: sent, committed"):
        queue.delivered(claimed(queue)[0], DeliveryState.FAILED, START)


def test_a_retry_keeps_the_error_until_it_succeeds(catalog: Catalog, queue: Queue) -> None:
    (report,) = claimed(queue, "archive")
    assert queue.delivery_retry(report, after(5), "connection refused")
    assert claimed(queue, "archive", seconds=4) == ()
    (again,) = claimed(queue, "archive", seconds=5)
    assert (again.attempts, again.last_error) == (2, "connection refused")


def test_a_destination_that_is_back_gets_at_once_what_waited_for_a_retry(queue: Queue) -> None:
    (report,) = claimed(queue, "archive")
    assert queue.delivery_hasten("archive", now=START) == 0, "a sender has it in hand"
    assert queue.delivery_retry(report, after(3600), "connection refused")
    assert queue.delivery_hasten("pacs", now=after(5)) == 0
    assert queue.delivery_hasten("archive", now=after(5)) == 1
    assert kinds(claimed(queue, "archive", seconds=5)) == [REPORT]


def test_failed_deliveries_are_sent_again_on_request(queue: Queue) -> None:
    queue.delivery_failed(claimed(queue)[0], "given up")
    assert queue.redeliver(failed=True, destination="archive", now=START) == 0
    assert queue.redeliver(failed=True, now=START) == 2
    assert [(one.attempts, one.last_error) for one in claimed(queue)] == [(1, None), (1, None)]


def test_a_study_is_sent_again_on_request(queue: Queue) -> None:
    for delivery in claimed(queue):
        queue.delivered(delivery, DeliveryState.COMMITTED, START)
    assert queue.redeliver(study="none", now=START) == 0
    assert queue.redeliver(study="1.2", now=START) == 2
    assert kinds(claimed(queue)) == [SEGMENTATION, REPORT]
    with pytest.raises(ValueError, match="name a study"):
        queue.redeliver(now=START)


def test_urgent_jobs_leave_first_then_the_oldest(catalog: Catalog, queue: Queue) -> None:
    for series, priority in (("1.2.5", Priority.ROUTINE), ("1.2.6", Priority.STAT)):
        arrival = arrive(catalog, series=series)
        catalog.close_series(arrival, [request(arrival, priority=priority)], [], START)
        complete(queue, claim(queue))
    jobs = list(dict.fromkeys(one.job_id for one in claimed(queue)))
    assert jobs == [3, 1, 2]
