"""The sweeps on a real catalogue and store: complete once quiet, rescued, at their interval.

Not covered: what may be deleted (test_retention_sweep.py); two nodes that sweep one PostgreSQL at
once (each sweep is one fenced transaction a row, which tests/contracts covers).
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service import schedule
from service.config import Configuration
from service.maintenance import Rescue, Unserved
from service.retry import Policy
from service.stopping import Stop
from storage.catalog import Catalog
from storage.database import Database, open_database
from storage.errors import CatalogueUnavailable
from storage.records import DeliveryState, SeriesState
from tests.logs import events, logging_to
from tests.maintained import START, after, completion, finish, retention, routed
from tests.workplace import Workplace, slices

pytest_plugins = ["tests.maintained_fixtures"]


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
