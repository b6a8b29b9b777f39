"""What was analysed and delivered goes when it is old or the disk is low, and nothing else.

Not covered: a disk that is really full (the watermark is above it instead).
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.maintenance import Incoming
from storage.records import DeliveryState
from storage.retention import Hold
from tests.logs import events, logging_to
from tests.maintained import START, after, finish, kept, retention, routed
from tests.workplace import Workplace, slices

pytest_plugins = ["tests.maintained_fixtures"]


def test_sources_older_than_the_days_go_results_and_vectors_stay(
    place: Workplace, tmp_path: Path
) -> None:
    place.receive(slices(), now=START)
    place.close("good")
    routed(place, at=after(100))
    finish(place)
    vectors = place.catalog.counts().vectors
    sweep = retention(place).sweep
    sweep(START + timedelta(days=29))
    assert kept(place) == 8
    with logging_to(tmp_path / "log") as file:
        sweep(START + timedelta(days=31))
    sweep(datetime.now(UTC) + timedelta(days=3650))  # the files themselves are old by then
    assert kept(place) == 0
    (outcome,) = place.series()[0].outcomes
    assert outcome.state == "done"
    assert all(place.store.path(result.key).exists() for result in outcome.results)
    assert place.catalog.counts().vectors == vectors > 0
    (line,) = events(file, "retention")
    assert (line["deleted"], line["reason"]) == (8, "older than the configured days")


def test_bytes_that_were_just_written_outlive_their_row(place: Workplace) -> None:
    """The same object may be coming again at this moment: its answer must stay true."""
    place.receive(slices(), now=START)
    place.close()
    routed(place, at=after(100))
    retention(place, days=0).sweep(datetime.now(UTC))
    assert kept(place) == 8
    assert place.catalog.unpurged(100)
    retention(place, days=0).sweep(datetime.now(UTC) + timedelta(minutes=11))
    assert kept(place) == 0
    assert not place.catalog.unpurged(100)


@pytest.mark.parametrize(
    "hold",
    [Hold.RECEIVING, Hold.JOB_OPEN, Hold.JOB_FAILED, Hold.DELIVERY_DUE, Hold.DELIVERY_FAILED],
)
def test_what_is_unanalysed_undelivered_or_failed_never_goes(place: Workplace, hold: Hold) -> None:
    place.receive(slices(), now=START)
    if hold is not Hold.RECEIVING:
        model = "unloadable" if hold is Hold.JOB_FAILED else "good"
        place.close(model, destinations=("pacs",))
        routed(place, at=after(100))
        if hold is not Hold.JOB_OPEN:
            bring_about(place, model, hold)
    assert hold in place.catalog.retention_candidates(after(1))[0].holds
    far = datetime.now(UTC) + timedelta(days=3650)
    retention(place, free_bytes=1 << 60).sweep(far)
    assert kept(place) == 8


def bring_about(place: Workplace, model: str, hold: Hold) -> None:
    worker = place.worker(model, attempts=1)
    assert worker.step()
    worker.close()
    if hold is Hold.DELIVERY_FAILED:
        now = datetime.now(UTC)
        for delivery in place.queue.claim_deliveries(
            "pacs", now=now, lease_until=now + timedelta(seconds=9), limit=9
        ):
            place.queue.delivery_failed(delivery, "refused")


def test_delivered_sources_go_first_when_the_disk_is_low(place: Workplace, tmp_path: Path) -> None:
    place.receive(slices("old", study="old"), now=START)
    place.receive(slices("new", study="new"), now=after(3600))
    place.close()
    routed(place, at=after(4000))
    size = sum(s.size for s in place.catalog.retention_candidates(after(4000)))
    free = place.store.free_bytes()
    with logging_to(tmp_path / "log") as file:
        short = retention(place, free_bytes=free + size // 4)
        replace(short, store=_Disk(place.store, free)).sweep(after(4000))
    (line,) = events(file, "retention")
    assert line["reason"] == "the disk is below its watermark"
    left = place.catalog.retention_candidates(after(4000))
    assert [s.last_received_at for s in left] == [after(3600)], "the oldest went"


class _Disk:
    """A store whose free space holds still while other programs write."""

    def __init__(self, store, free: int) -> None:
        self._store, self._free = store, free

    def free_bytes(self) -> int:
        return self._free

    def __getattr__(self, name: str):
        return getattr(self._store, name)


def test_remains_of_broken_transfers_go_whole_ones_in_flight_stay(place: Workplace) -> None:
    part = place.store.new_part()
    part.write_bytes(b"half")
    Incoming(store=place.store).sweep(datetime.now(UTC))
    assert part.exists()
    Incoming(store=place.store).sweep(datetime.now(UTC) + timedelta(hours=7))
    assert not part.exists()


def test_results_delivered_in_the_meantime_free_the_sources(place: Workplace) -> None:
    place.receive(slices(), now=START)
    place.close("good", destinations=("pacs",))
    routed(place, at=after(100))
    finish(place)
    now = datetime.now(UTC)
    for delivery in place.queue.claim_deliveries(
        "pacs", now=now, lease_until=now + timedelta(seconds=9), limit=9
    ):
        place.queue.delivered(delivery, state=DeliveryState.SENT, now=now)
    retention(place).sweep(now + timedelta(days=3650))
    assert kept(place) == 0
