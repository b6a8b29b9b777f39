"""The sweeps on a real catalogue and store: complete once quiet, rescued, nothing needed goes.

Not covered: two nodes that sweep one PostgreSQL at once (each sweep is one fenced transaction a
row, which tests/contracts covers); a disk that is really full (the watermark is above it instead).
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service import config, schedule
from service.config import Configuration
from service.maintenance import Completion, Incoming, Rescue, Retention, Unserved
from service.retry import Policy
from service.stopping import Stop
from service.triggers import quiet_period
from storage.catalog import Catalog
from storage.database import Database, open_database
from storage.errors import CatalogueUnavailable
from storage.records import DeliveryState, SeriesState
from storage.retention import Hold
from tests.logs import events, logging_to
from tests.workplace import Workplace, slices

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = timedelta(seconds=30)
STUDY_QUIET = timedelta(seconds=60)
CONFIGURATION = """
[[models]]
name = "body"
kind = "body_outline"

[[routes]]
name = "ct"
match = { Modality = "CT" }
models = ["body"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return config.parse(CONFIGURATION, file=tmp_path / "node.toml")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def completion(
    place: Workplace, configuration: Configuration, *, since: datetime = START
) -> Completion:
    return Completion(
        catalog=place.catalog,
        complete=quiet_period.complete,
        routes=configuration.routes,
        series_quiet=QUIET,
        study_quiet=STUDY_QUIET,
        since=since,
        listening_since=place.store.listening_since,
    )


def retention(place: Workplace, *, days: float = 30, free_bytes: int = 0) -> Retention:
    return Retention(
        catalog=place.catalog, store=place.store, keep=timedelta(days=days), free_bytes=free_bytes
    )


def finish(place: Workplace, model: str = "good") -> None:
    """Work the next job to its end, with a result that goes to nobody."""
    worker = place.worker(model)
    try:
        assert worker.step()
    finally:
        worker.close()


def routed(place: Workplace, *, at: datetime) -> None:
    """A study whose series are closed is routed as a study too."""
    for study in place.catalog.ripe_studies(at):
        assert place.catalog.close_study(study, [], [], at)


def kept(place: Workplace) -> int:
    """Files of received instances in the store."""
    return len(list((place.folder / "instances").rglob("*.dcm")))


def test_a_series_is_complete_when_it_was_quiet_and_not_before(
    place: Workplace, configuration: Configuration, tmp_path: Path
) -> None:
    sweep = completion(place, configuration).sweep
    place.receive(slices()[:4], now=START)
    place.receive(slices()[4:], now=after(20))
    sweep(after(49))
    assert place.series()[0].state is SeriesState.RECEIVING
    with logging_to(tmp_path / "log") as file:
        sweep(after(50))
        sweep(after(51))
        sweep(after(80))
    assert place.series()[0].state is SeriesState.COMPLETE
    assert [o.model for o in place.series()[0].outcomes] == ["body"]
    (series,) = events(file, "series.complete")
    assert (series["instances"], series["jobs"]) == (8, 1)
    assert [line["event"] for line in events(file)] == ["series.complete", "study.complete"]


@pytest.mark.parametrize("who", ["the receivers", "the sweeps"])
def test_time_in_which_nobody_listened_is_not_quiet(
    place: Workplace, configuration: Configuration, who: str
) -> None:
    place.receive(slices()[:4], now=START)
    if who == "the receivers":
        place.store.tell_listening(after(100))
    sweep = completion(place, configuration, since=after(100 if who == "the sweeps" else 0)).sweep
    sweep(after(129))
    assert place.series()[0].state is SeriesState.RECEIVING
    place.receive(slices()[4:], now=after(129))
    sweep(after(158))
    assert place.series()[0].state is SeriesState.RECEIVING
    sweep(after(159))
    (series,) = place.series()
    assert (series.state, series.outcomes[0].generation) == (SeriesState.COMPLETE, 1)


def test_time_in_which_the_catalogue_did_not_answer_is_not_quiet(
    place: Workplace, configuration: Configuration
) -> None:
    place.receive(slices(), now=START)
    each = completion(place, configuration)
    catalog, each.catalog = each.catalog, Catalog(_gone())
    with pytest.raises(CatalogueUnavailable):
        each.sweep(after(20))
    each.catalog = catalog
    each.sweep(after(49))
    assert place.series()[0].state is SeriesState.RECEIVING
    each.sweep(after(50))
    assert place.series()[0].state is SeriesState.COMPLETE


def _gone() -> Database:
    """A catalogue that does not answer."""
    return open_database("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_a_clock_that_was_set_back_does_not_hold_up_what_comes_then(
    place: Workplace, configuration: Configuration
) -> None:
    each = completion(place, configuration, since=after(3600))
    place.store.tell_listening(after(3600))
    each.sweep(START)
    place.receive(slices(), now=after(10))
    each.sweep(after(40))
    assert place.series()[0].state is SeriesState.COMPLETE


def test_late_slices_open_the_series_again_and_one_job_is_left(
    place: Workplace, configuration: Configuration
) -> None:
    sweep = completion(place, configuration).sweep
    place.receive(slices()[:7], now=START)
    sweep(after(31))
    place.receive(slices()[7:], now=after(100))
    assert place.series()[0].state is SeriesState.RECEIVING
    sweep(after(129))
    assert place.series()[0].state is SeriesState.RECEIVING
    sweep(after(131))
    (outcome,) = place.series()[0].outcomes
    assert (outcome.state, outcome.generation) == ("waiting", 2)


def test_the_same_slices_again_change_nothing(
    place: Workplace, configuration: Configuration
) -> None:
    sweep = completion(place, configuration).sweep
    place.receive(slices(), now=START)
    sweep(after(31))
    before = place.series()[0].outcomes
    place.receive(slices(), now=after(100))
    sweep(after(200))
    assert place.series()[0].outcomes == before


def test_a_series_that_no_route_wants_says_so(
    place: Workplace, configuration: Configuration
) -> None:
    place.receive(slices(modality="MR"), now=START)
    completion(place, configuration).sweep(after(31))
    (outcome,) = place.series()[0].outcomes
    assert (outcome.model, outcome.state) == (None, "not_analysed")
    assert outcome.reason


def test_late_slices_of_a_series_whose_sources_went_are_not_analysed_alone(
    place: Workplace, configuration: Configuration
) -> None:
    *first, late = slices()
    sweep = completion(place, configuration).sweep
    place.receive(first, now=START)
    place.close()
    routed(place, at=after(100))
    retention(place).sweep(START + timedelta(days=31))
    place.receive([late], now=START + timedelta(days=32))
    sweep(START + timedelta(days=33))
    (outcome,) = place.series()[0].outcomes
    assert outcome.state == "not_analysed"
    assert outcome.reason == (
        "the bytes of 7 of its 8 instances were deleted by retention; send the whole series again"
    )
    place.receive(first, now=START + timedelta(days=34))
    sweep(START + timedelta(days=35))
    (outcome,) = place.series()[0].outcomes
    assert outcome.model == "body"


def test_a_silent_worker_loses_its_job_to_another_attempt_then_to_failure(
    place: Workplace, tmp_path: Path
) -> None:
    place.receive(slices())
    place.close("good")
    policy = Policy(first=timedelta(seconds=10), maximum=timedelta(seconds=10), attempts=2)
    rescue = Rescue(queue=place.queue, policy=policy)
    now = datetime.now(UTC)
    with logging_to(tmp_path / "log") as file:
        for _ in range(2):
            now += timedelta(seconds=60)
            job = place.queue.claim(
                worker="w", models=["good"], now=now, lease_until=now + timedelta(seconds=5)
            )
            assert job is not None
            rescue.sweep(now + timedelta(seconds=4))
            assert place.queue.heartbeat(job, lease_until=now + timedelta(seconds=5))
            rescue.sweep(now + timedelta(seconds=6))
            assert not place.queue.heartbeat(job, lease_until=now + timedelta(seconds=99))
    (outcome,) = place.series()[0].outcomes
    assert outcome.state == "failed"
    assert outcome.reason is not None
    assert "could not renew its lease; given up after 2 attempts" in outcome.reason
    assert [e["outcome"] for e in events(file, "job.rescued")] == ["retry", "failed"]


def test_work_that_no_configuration_serves_any_more_says_so_until_one_does(
    place: Workplace,
) -> None:
    place.receive(slices("done"))
    place.close("good", destinations=("pacs",))
    finish(place)
    place.receive(slices("waits"))
    place.close("removed")
    now = datetime.now(UTC)
    Unserved(queue=place.queue, models=[], destinations=[]).sweep(now)
    outcomes = {o.state: o for s in place.series() for o in s.outcomes}
    done, waits = outcomes["done"], outcomes["waiting"]
    assert waits.reason == "waits, as no model 'removed' is configured"
    (due,) = done.deliveries
    assert (due.state, due.last_error) == (
        DeliveryState.DUE,
        "waits, as no destination 'pacs' is configured",
    )
    assert done.reason is None
    served = place.queue.claim_deliveries("pacs", now=now, lease_until=now, limit=9)
    assert [each.delivery_id for each in served] == [due.delivery_id]
    assert place.queue.claim(worker="w", models=["removed"], now=now, lease_until=now)


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


def test_sweeps_run_at_their_interval_and_survive_their_own_failures(tmp_path: Path) -> None:
    stop, ran, beside = Stop(), [], []

    def fails(now: datetime) -> None:
        ran.append(now)
        raise ValueError("Zwiebelmann")

    def slow(_now: datetime) -> None:
        beside.append("in")
        time.sleep(0.5)
        beside.append("out")

    sweeps = (
        schedule.Sweep(name="fails", every=timedelta(seconds=0.1), act=fails),
        schedule.Sweep(name="slow", every=timedelta(seconds=0.1), act=slow),
    )
    threading.Timer(1.3, stop.ask).start()
    with logging_to(tmp_path / "log") as file:
        schedule.run(sweeps, stop=stop)
    assert 5 < len(ran) < 20, "a slow sweep holds no other up"
    assert beside == ["in", "out"] * (len(beside) // 2), "none runs beside itself"
    assert len(events(file, "sweep.failed")) == len(ran)
    assert "Zwiebelmann" not in file.read_text()
    assert {e["event"] for e in events(file)} == {"sweep.failed"}


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
