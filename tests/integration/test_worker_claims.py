"""A job that grew, changed or was taken away while it was worked on leaves nothing half done.

Not covered: the verbs themselves (contracts/test_storage_queue.py), what is read ahead
(test_read_ahead.py).
"""

from datetime import UTC, datetime
from typing import Any

import pydicom
import pytest

from storage.records import JobState, SeriesState
from tests.working import later, once_running, outcome, work
from tests.workplace import Workplace, slices

pytest_plugins = ["tests.maintained_fixtures"]


def test_a_job_made_for_an_earlier_version_of_the_model_is_superseded(place: Workplace) -> None:
    place.receive(slices())
    place.close("good", destinations=("pacs",))
    work(place.worker("good"))
    (old,) = outcome(place, "good").results
    place.queue.requeue(now=datetime.now(UTC), study=str(slices()[0].StudyInstanceUID))
    work(place.worker("good", version="2.0.0"), jobs=2)
    (shown,) = place.series()[0].outcomes
    assert (shown.state, shown.version, shown.generation) == ("done", "2.0.0", 2)
    (report,) = shown.results
    read = pydicom.dcmread(place.store.path(report.key))
    (study,) = read.PredecessorDocumentsSequence
    (named,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == old.sop_instance_uid


def test_a_worker_that_lost_its_job_quarantines_nothing(place: Workplace) -> None:
    """Slices come between the child's answer and its record."""
    *first, late = slices()
    place.receive(first[:-1])
    place.receive_garbage(first[-1])
    place.close("good")
    worker = place.worker("good")
    answered = worker._quarantine

    def while_it_answers(job: Any, reason: str) -> Any:
        place.receive([late])
        place.close("good")
        return answered(job, reason)

    worker._quarantine = while_it_answers  # type: ignore[method-assign]
    work(worker)
    (series,) = place.series()
    assert (series.state, series.outcomes[0].state) == (SeriesState.COMPLETE, "waiting")


def test_a_job_waits_when_one_of_its_series_grows(place: Workplace) -> None:
    one, two = slices("one"), slices("two")
    place.receive([*one, *two[:-1]])
    roles = {"T1": str(one[0].SeriesInstanceUID), "T2": str(two[0].SeriesInstanceUID)}
    place.close_together("joins", **roles)
    place.receive(two[-1:])
    work(place.worker("joins"))
    (waits,) = (o for series in place.series() for o in series.outcomes)
    assert waits.state == "waiting"
    assert "instances came since" in str(waits.reason)
    place.close_together("joins", **roles)
    work(place.worker("joins"))
    (done,) = (o for series in place.series() for o in series.outcomes)
    assert (done.state, done.generation) == ("done", 2)


def test_late_slices_take_the_place_of_what_was_found_without_them(place: Workplace) -> None:
    *first, late = slices()
    place.receive(first)
    place.close("good", destinations=("pacs",))
    worker = place.worker("good")
    assert worker.step()
    before = outcome(place, "good")
    place.receive([late])
    place.close("good", destinations=("pacs",))
    work(worker)
    (after,) = place.series()[0].outcomes
    assert (after.state, after.generation) == ("done", 2)
    (old,), (new,) = before.results, after.results
    assert new.sop_instance_uid != old.sop_instance_uid
    assert new.series_instance_uid == old.series_instance_uid
    report = pydicom.dcmread(place.store.path(new.key))
    named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.sop_instance_uid
    due = place.queue.claim_deliveries("pacs", now=later(), lease_until=later(9), limit=10)
    assert [d.result.sop_instance_uid for d in due] == [new.sop_instance_uid]


def test_a_series_that_grows_before_its_job_is_claimed_is_not_analysed_in_part(
    place: Workplace,
) -> None:
    *first, late = slices()
    place.receive(first)
    place.close("good")
    place.receive([late])
    worker = place.worker("good")
    assert worker.step()
    waiting = outcome(place, "good")
    assert (waiting.state, waiting.results) == ("waiting", ())
    place.close("good")
    work(worker)
    (done,) = place.series()[0].outcomes
    assert (done.state, done.generation) == ("done", 2)


def test_a_job_that_is_superseded_while_it_runs_is_given_up_at_once(place: Workplace) -> None:
    *first, late = slices()
    place.receive(first)
    place.close("hangs")
    worker = place.worker("hangs", "good", lease_seconds=2)
    with once_running(place, lambda: (place.receive([late]), place.close("hangs"))):
        work(worker)
    (waiting,) = place.series()[0].outcomes
    assert (waiting.state, waiting.generation, waiting.attempts) == ("waiting", 2, 0)


@pytest.mark.parametrize("signals", [1, 2])
def test_told_to_stop_the_job_in_hand_is_released_in_time(place: Workplace, signals: int) -> None:
    place.receive(slices())
    place.close("hangs")
    worker = place.worker("hangs", stop_seconds=0.5 if signals == 1 else 60)
    with once_running(place, lambda: [place.stop.ask() for _ in range(signals)]):
        worker.run(ready=lambda: None)
    released = outcome(place, "hangs")
    assert (released.state, released.attempts) == ("waiting", 0)


def test_a_worker_whose_job_was_rescued_writes_nothing(place: Workplace) -> None:
    place.receive(slices())
    place.close("good")
    worker = place.worker("good", lease_seconds=60)
    claimed = place.queue.claim(worker="other", models=["good"], now=later(), lease_until=later(-5))
    assert claimed is not None
    (rescued,) = place.queue.expired(later())
    assert place.queue.retry(rescued, at=later(-5), error="silent")
    work(worker)
    assert not place.queue.heartbeat(claimed, lease_until=later())
    assert outcome(place, "good").state == JobState.DONE
