"""A study that is there is routed again: new jobs, old ones as they are, one outcome a series.

On SQLite and PostgreSQL. Not covered: what the routes decide (tests/unit/test_routing*.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from storage.catalog import Catalog
from storage.queue import Queue
from storage.records import DeliveryState, Disposition, JobRequest, SeriesArrival
from tests.records import START, after, arrive, claim, complete, instance, request

SPLEEN = "spleen"


@pytest.fixture
def study(catalog: Catalog, queue: Queue) -> tuple[SeriesArrival, ...]:
    """Of two series: one was analysed by lung-ct, the other was wanted by no route."""
    chest, scout = arrive(catalog), arrive(catalog, 1, series="1.2.2")
    assert catalog.close_series(chest, [request(chest)], [], START)
    assert catalog.close_series(scout, [], [unwanted(scout)], START)
    found = catalog.study("1.2")
    assert catalog.close_study(found, [], [], START)
    assert complete(queue, claim(queue))
    return catalog.study("1.2")


def unwanted(
    arrival: SeriesArrival, *, model: str | None = None, reason: str = "no route wants it"
) -> Disposition:
    return Disposition(
        series_id=arrival.series_id,
        state="not_analysed",
        route=model and "route",
        model=model,
        reason=reason,
    )


def outcomes(catalog: Catalog) -> list[list[tuple[str | None, str]]]:
    """(model, state) of every outcome, series by series."""
    (study,) = catalog.overview().studies
    return [[(one.model, one.state) for one in each.outcomes] for each in study.series]


def again(
    catalog: Catalog,
    study: Sequence[SeriesArrival],
    jobs: Sequence[JobRequest],
    *said: Disposition,
    model: str | None = None,
) -> list[str]:
    """The models of the jobs that are new."""
    new = catalog.route_again(study, jobs, said, after(99), model=model)
    assert new is not None
    return [one.model for one in new]


def send(queue: Queue) -> None:
    while due := queue.claim_deliveries("pacs", now=START, lease_until=after(9), limit=9):
        for one in due:
            assert queue.delivered(one, DeliveryState.COMMITTED, START)


def test_a_new_model_gets_a_job_and_the_old_one_stays_done(
    catalog: Catalog, study: tuple[SeriesArrival, ...]
) -> None:
    chest, scout = study
    jobs = [request(chest), request(chest, model=SPLEEN), request(scout, model=SPLEEN)]
    assert again(catalog, study, jobs) == [SPLEEN, SPLEEN]
    assert outcomes(catalog) == [[("lung-ct", "done"), (SPLEEN, "waiting")], [(SPLEEN, "waiting")]]


def test_the_same_once_more_changes_nothing(
    catalog: Catalog, queue: Queue, study: tuple[SeriesArrival, ...]
) -> None:
    chest, scout = study
    jobs, said = [request(chest), request(chest, model=SPLEEN)], unwanted(scout)
    assert again(catalog, study, jobs, said) == [SPLEEN]
    assert again(catalog, study, jobs, said) == []
    assert complete(queue, claim(queue, now=after(99)))
    assert again(catalog, study, jobs, said) == []
    assert outcomes(catalog) == [[("lung-ct", "done"), (SPLEEN, "done")], [(None, "not_analysed")]]


def test_a_changed_model_takes_the_place_of_what_it_was(
    catalog: Catalog, queue: Queue, study: tuple[SeriesArrival, ...]
) -> None:
    chest, scout = study
    assert again(catalog, study, [request(chest, version="2.0.0")], unwanted(scout)) == ["lung-ct"]
    job = claim(queue, now=after(99))
    assert (job.generation, job.request.model_version) == (2, "2.0.0")
    assert complete(queue, job)
    assert outcomes(catalog) == [[("lung-ct", "done")], [(None, "not_analysed")]]


def test_a_series_that_no_route_wants_any_more_keeps_its_result_alone(
    catalog: Catalog, study: tuple[SeriesArrival, ...]
) -> None:
    chest, scout = study
    assert again(catalog, study, [], unwanted(chest), unwanted(scout)) == []
    assert outcomes(catalog) == [[("lung-ct", "done")], [(None, "not_analysed")]]


def test_of_one_model_nothing_is_said_of_the_others(
    catalog: Catalog, study: tuple[SeriesArrival, ...]
) -> None:
    chest, scout = study
    why = unwanted(scout, model="bone", reason="series 1 was chosen")
    assert again(catalog, study, [], why) == []
    other = unwanted(chest, model=SPLEEN, reason="series 2 was chosen")
    assert again(catalog, study, [], other, unwanted(scout), model=SPLEEN) == []
    assert outcomes(catalog) == [
        [("lung-ct", "done"), (SPLEEN, "not_analysed")],
        [("bone", "not_analysed")],
    ]


def test_a_series_whose_bytes_are_gone_keeps_its_result_and_says_why_no_more(
    catalog: Catalog, queue: Queue, study: tuple[SeriesArrival, ...]
) -> None:
    send(queue)
    assert catalog.forget_sources("1.2", START)
    gone = catalog.study("1.2")
    chest, scout = gone
    jobs = [request(chest), request(chest, model=SPLEEN)]
    assert again(catalog, gone, jobs, unwanted(scout)) == []
    assert outcomes(catalog) == [
        [("lung-ct", "done"), (SPLEEN, "not_analysed")],
        [(None, "not_analysed")],
    ]
    (shown,) = catalog.overview().studies
    assert "deleted by retention" in (shown.series[0].outcomes[1].reason or "")


def test_what_is_still_coming_in_is_left_to_the_node(
    catalog: Catalog, study: tuple[SeriesArrival, ...]
) -> None:
    chest, _ = study
    jobs = [request(chest, model=SPLEEN)]
    catalog.register([instance(9, at=after(50))])
    assert catalog.route_again(study, jobs, [], after(99)) is None
    assert catalog.route_again(catalog.study("1.2"), jobs, [], after(99)) is None
    assert catalog.route_again([replace(chest, series_id=99)], jobs, [], after(99)) is None
    assert catalog.study("1.2.3") == ()
