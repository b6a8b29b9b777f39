"""The catalogue's promises, on SQLite and PostgreSQL.

Not covered here: jobs and deliveries (test_storage_queue.py, test_storage_deliveries.py), crashes
and several processes (test_storage_processes.py), the header scanner that makes the headers.
"""

import dataclasses

import pytest

from storage.catalog import Catalog
from storage.database import Database
from storage.errors import StorageError
from storage.queue import Queue
from storage.records import (
    Disposition,
    JobState,
    QuarantinedObject,
    Registration,
    SeriesArrival,
    SeriesState,
)
from tests.records import START, after, arrive, claim, done, instance, request, ripe

NEW, DUPLICATE, CONFLICT = Registration


def outcomes(catalog: Catalog, series: str = "1.2.1") -> list[tuple[str | None, str]]:
    every = [one for study in catalog.overview().studies for one in study.series]
    found = next(one for one in every if one.series_instance_uid == series)
    return [(outcome.model, outcome.state) for outcome in found.outcomes]


def waiting(arrival: SeriesArrival, route: str = "best chest") -> Disposition:
    return Disposition(
        series_id=arrival.series_id,
        state="waiting",
        route=route,
        model="lung-ct",
        reason="the study is not complete",
    )


def test_each_object_of_a_batch_gets_its_answer_in_order(catalog: Catalog) -> None:
    batch = [instance(1), instance(2), instance(1), instance(1, content="other"), instance(2)]
    assert catalog.register(batch) == (NEW, NEW, DUPLICATE, CONFLICT, DUPLICATE)
    assert catalog.register(batch) == (DUPLICATE,) * 5


def test_an_empty_batch_is_no_transaction(catalog: Catalog) -> None:
    assert catalog.register([]) == ()


def test_a_duplicate_changes_nothing(catalog: Catalog) -> None:
    before = arrive(catalog)
    assert catalog.register([instance(1, at=after(60))]) == (DUPLICATE,)
    assert ripe(catalog) == before


def test_a_conflict_is_kept_and_marks_the_series_but_is_not_analysed(catalog: Catalog) -> None:
    before = arrive(catalog)
    other = instance(1, content="other", at=after(60))
    assert catalog.register([other]) == (CONFLICT,)
    series = ripe(catalog)
    assert (series.instances, series.conflicts) == (3, 1)
    assert (series.fingerprint, series.last_received_at) == (
        before.fingerprint,
        before.last_received_at,
    )
    assert len(catalog.instances(series.series_id)) == 3
    kept = catalog.all_instances(series.series_id)[-1]
    assert (kept.digest, kept.conflict) == (other.digest, True)


def test_a_conflict_alone_does_not_reopen_a_series(catalog: Catalog) -> None:
    assert catalog.close_series(arrive(catalog), [], [], START)
    catalog.register([instance(1, content="other", at=after(60))])
    assert catalog.ripe_series(after(999)) == ()


def test_an_instance_is_given_back_as_it_was_registered(catalog: Catalog) -> None:
    odd = instance(1, header={"PatientName": ("Müller^\x00\\u0000 \ud800",), "Empty": ()})
    catalog.register([odd])
    assert catalog.instances(ripe(catalog).series_id) == (odd,)


def test_a_value_that_no_column_can_hold_registers_nothing_of_the_batch(
    catalog: Catalog, database: Database
) -> None:
    if database.dialect == "sqlite":
        pytest.skip("SQLite holds NUL in text")
    odd = dataclasses.replace(instance(2), calling_ae_title="A\x00B")
    with pytest.raises(StorageError, match="no column can hold"):
        catalog.register([instance(1), odd])
    assert catalog.counts().instances == 0


def test_the_same_series_uid_in_two_studies_is_two_series(catalog: Catalog) -> None:
    catalog.register([instance(1), instance(2, study="1.3")])
    assert [one.study_instance_uid for one in catalog.ripe_series(START)] == ["1.2", "1.3"]


def test_a_batch_of_many_series_and_more_rows_than_one_statement_takes(catalog: Catalog) -> None:
    batch = [
        instance(number, series=f"1.{study}.{series}", study=f"1.{study}")
        for study in range(3)
        for series in range(4)
        for number in range(100)
    ]
    assert set(catalog.register(batch)) == {NEW}
    assert [one.instances for one in catalog.ripe_series(START)] == [100] * 12
    assert set(catalog.register(batch)) == {DUPLICATE}


def test_a_series_is_ripe_when_its_last_instance_is_old_enough(catalog: Catalog) -> None:
    catalog.register([instance(1), instance(2, at=after(10))])
    assert catalog.ripe_series(after(9.99)) == ()
    (series,) = catalog.ripe_series(after(10))
    assert (series.first_received_at, series.last_received_at) == (START, after(10))


def test_an_older_moment_does_not_turn_the_last_reception_back(catalog: Catalog) -> None:
    catalog.register([instance(1, at=after(10))])
    catalog.register([instance(2, at=after(5))])
    assert ripe(catalog).last_received_at == after(10)


def test_attributes_are_what_most_instances_say(catalog: Catalog) -> None:
    kernels = [{"ConvolutionKernel": (kernel,)} for kernel in ("B", "A", "A")]
    catalog.register([instance(n, header=header) for n, header in enumerate(kernels)])
    catalog.register([instance(9, header={"KVP": ("120",)})])
    attributes = ripe(catalog).attributes
    assert (attributes["ConvolutionKernel"], attributes["KVP"]) == (("A",), ("120",))


def test_the_fingerprint_is_of_the_set_whatever_the_order(catalog: Catalog) -> None:
    catalog.register([instance(1), instance(2)])
    first = ripe(catalog).fingerprint
    catalog.register([instance(3)])
    second = ripe(catalog).fingerprint
    assert first != second
    fresh = [instance(n, series="1.2.2") for n in (1, 2)]
    catalog.register(fresh[::-1])
    assert ripe(catalog, "1.2.2").fingerprint not in (first, second)


def test_a_closed_series_has_its_job_and_is_not_ripe_again(catalog: Catalog) -> None:
    arrival = arrive(catalog)
    assert catalog.close_series(arrival, [request(arrival)], [], START)
    assert not catalog.close_series(arrival, [request(arrival)], [], START)
    assert catalog.ripe_series(after(999)) == ()
    assert outcomes(catalog) == [("lung-ct", "waiting")]


def test_a_series_that_changed_since_is_not_closed(catalog: Catalog) -> None:
    arrival = arrive(catalog)
    catalog.register([instance(9)])
    assert not catalog.close_series(arrival, [request(arrival)], [waiting(arrival)], START)
    assert outcomes(catalog) == []
    assert ripe(catalog).instances == 4


def test_a_late_instance_opens_the_series_and_cancels_the_waiting_job(
    catalog: Catalog, queue: Queue
) -> None:
    first = arrive(catalog)
    catalog.close_series(first, [request(first)], [], START)
    catalog.register([instance(9, at=after(100))])
    second = ripe(catalog)
    assert catalog.close_series(second, [request(second)], [], after(200))
    job = claim(queue, now=after(200))
    assert (job.request.fingerprint, job.generation) == (second.fingerprint, 2)
    assert catalog.counts().jobs[JobState.CANCELLED] == 1
    assert outcomes(catalog) == [("lung-ct", "running")]


def test_a_series_that_grew_out_of_every_route_has_no_job_left(
    catalog: Catalog, queue: Queue
) -> None:
    arrival = arrive(catalog)
    best = request(arrival, scope="study 1.2 best", model="spleen")
    catalog.close_series(arrival, [request(arrival), best], [], START)
    running = claim(queue)
    grown = arrive(catalog, 4)
    catalog.close_series(grown, [], [waiting(grown)], START)
    (series,) = catalog.overview().studies[0].series
    assert [outcome.job_id for outcome in series.outcomes] == [None]
    assert not queue.heartbeat(running, lease_until=after(60))


def test_a_running_job_that_is_superseded_is_lost_to_its_worker(
    catalog: Catalog, queue: Queue
) -> None:
    first = arrive(catalog)
    catalog.close_series(first, [request(first)], [], START)
    running = claim(queue)
    catalog.register([instance(9)])
    second = ripe(catalog)
    catalog.close_series(second, [request(second)], [], START)
    assert not queue.heartbeat(running, lease_until=after(60))
    assert not queue.fail(running, error="too late", now=START)


def test_a_newer_job_names_the_results_it_replaces(catalog: Catalog, queue: Queue) -> None:
    old = done(catalog, queue)
    catalog.register([instance(9)])
    second = ripe(catalog)
    catalog.close_series(second, [request(second)], [], START)
    new = claim(queue)
    assert (new.supersedes, new.generation) == (old.job_id, 2)
    assert len(queue.results(old.job_id)) == 2


def test_an_equal_job_of_another_route_is_one_job_with_the_destinations_of_both(
    catalog: Catalog, queue: Queue
) -> None:
    arrival = arrive(catalog)
    one = request(arrival, routes=["a"], destinations=["pacs"])
    two = request(arrival, routes=["b"], destinations=["archive", "pacs"])
    assert catalog.close_series(arrival, [one, two], [], START)
    job = claim(queue).request
    assert (job.routes, job.destinations) == (("a", "b"), ("pacs", "archive"))


def test_a_study_is_ripe_when_all_its_series_are_closed(catalog: Catalog) -> None:
    first, second = arrive(catalog), arrive(catalog, series="1.2.2", at=after(5))
    catalog.close_series(first, [], [], START)
    assert catalog.ripe_studies(after(99)) == ()
    catalog.close_series(second, [], [], START)
    assert catalog.ripe_studies(after(4)) == ()
    ((one, two),) = catalog.ripe_studies(after(5))
    assert (one.fingerprint, two.fingerprint) == (first.fingerprint, second.fingerprint)
    assert one.state is SeriesState.COMPLETE
    assert one.attributes == first.attributes


def test_a_routed_study_is_ripe_again_only_after_something_new(catalog: Catalog) -> None:
    catalog.close_series(arrive(catalog), [], [], START)
    (study,) = catalog.ripe_studies(START)
    assert catalog.close_study(study, [], [], START)
    assert catalog.ripe_studies(after(99)) == ()
    catalog.register([instance(1), instance(1, content="other")])
    assert catalog.ripe_studies(after(99)) == ()
    catalog.close_series(arrive(catalog, series="1.2.2"), [], [], START)
    assert len(catalog.ripe_studies(after(99))[0]) == 2
    assert not catalog.close_study(study, [], [], START)


def test_closing_a_study_replaces_what_waited_for_it_and_nothing_else(catalog: Catalog) -> None:
    arrival = arrive(catalog)
    kept = Disposition(
        series_id=arrival.series_id, state="not_analysed", route=None, model=None, reason="no route"
    )
    catalog.close_series(arrival, [], [waiting(arrival), kept], START)
    (study,) = catalog.ripe_studies(START)
    assert catalog.close_study(study, [request(arrival, scope="study")], [], START)
    assert outcomes(catalog) == [("lung-ct", "waiting"), (None, "not_analysed")]


def test_a_best_series_that_changes_takes_the_job_with_it_and_may_come_back(
    catalog: Catalog, queue: Queue
) -> None:
    first = arrive(catalog)
    catalog.close_series(first, [], [], START)
    (study,) = catalog.ripe_studies(START)
    catalog.close_study(study, [request(first, scope="study")], [], START)
    second = arrive(catalog, series="1.2.2")
    catalog.close_series(second, [], [], START)
    (study,) = catalog.ripe_studies(START)
    catalog.close_study(study, [request(second, scope="study")], [], START)
    assert outcomes(catalog) == []
    catalog.quarantine_series(second.series_id, "unreadable", START)
    (study,) = catalog.ripe_studies(START)
    assert catalog.close_study(study, [request(first, scope="study")], [], START)
    job = claim(queue)
    assert (job.request.series_id, job.generation) == (first.series_id, 3)


def test_a_series_that_one_of_two_routes_leaves_keeps_its_job_for_the_other(
    catalog: Catalog, queue: Queue
) -> None:
    first = arrive(catalog)
    catalog.close_series(first, [], [], START)
    (study,) = catalog.ripe_studies(START)
    thin, thick = (
        request(first, scope=f"study 1.2 {route}", routes=[route]) for route in ("thin", "thick")
    )
    catalog.close_study(study, [thin, thick], [], START)
    second = arrive(catalog, series="1.2.2")
    catalog.close_series(second, [], [], START)
    (study,) = catalog.ripe_studies(START)
    thinner = request(second, scope=thin.scope, routes=["thin"])
    catalog.close_study(study, [thick, thinner], [], START)
    claimed = {claim(queue).request.series_id for _ in range(2)}
    assert claimed == {first.series_id, second.series_id}


def test_quarantine_of_a_series_has_its_reason_and_ends_with_something_new(
    catalog: Catalog,
) -> None:
    arrival = arrive(catalog)
    assert not catalog.quarantine_series(arrival.series_id, "unreadable", START)
    catalog.close_series(arrival, [], [], START)
    assert catalog.quarantine_series(arrival.series_id, "unreadable", START)
    (series,) = catalog.overview("1.2").studies[0].series
    assert (series.state, series.reason) == (SeriesState.QUARANTINED, "unreadable")
    catalog.register([instance(9)])
    assert ripe(catalog).state is SeriesState.RECEIVING


def test_quarantined_objects_are_shown_once(catalog: Catalog) -> None:
    refused = QuarantinedObject(
        key="quarantine/a.dcm", size=3, reason="no SOP", received_at=START, calling_ae_title="X"
    )
    catalog.quarantine_object(refused)
    catalog.quarantine_object(refused)
    assert catalog.overview().quarantined == (refused,)


@pytest.mark.parametrize("what", ["series", "instance", "manufacturer"])
def test_our_own_results_are_recognised_when_they_come_back(
    catalog: Catalog, queue: Queue, what: str
) -> None:
    job = done(catalog, queue)
    ours = queue.results(job.job_id)[0]
    back = instance(1, series="9.9")
    values = {
        "series": {"series_instance_uid": ours.series_instance_uid},
        "instance": {"sop_instance_uid": ours.sop_instance_uid},
        "manufacturer": {"header": {"Manufacturer": ("Hounsfield",)}},
    }[what]
    returned = dataclasses.replace(back, **values)  # type: ignore[arg-type]
    catalog.register([returned, instance(2, series="8.8")])
    found = {one.series_instance_uid: one.own_result for one in catalog.ripe_series(START)}
    assert found == {returned.series_instance_uid: True, "8.8": False}


def test_overview_shows_the_whole_tree(catalog: Catalog, queue: Queue) -> None:
    done(catalog, queue, destinations=["pacs", "archive"])
    arrive(catalog, study="1.3", series="1.3.1", at=after(9))
    overview = catalog.overview()
    assert [one.study_instance_uid for one in overview.studies] == ["1.3", "1.2"]
    assert (overview.instances, overview.waiting, overview.failed) == (6, 0, 0)
    (outcome,) = overview.studies[1].series[0].outcomes
    assert (outcome.state, outcome.attempts) == ("done", 1)
    assert [one.kind for one in outcome.results] == ["segmentation", "measurement_report"]
    assert [(one.result.kind, one.destination) for one in outcome.deliveries] == [
        ("segmentation", "pacs"),
        ("measurement_report", "archive"),
        ("measurement_report", "pacs"),
    ]
    assert [one.study_instance_uid for one in catalog.overview(latest=1).studies] == ["1.3"]
    assert catalog.overview("none").studies == ()


def test_counts_are_of_everything(catalog: Catalog, queue: Queue) -> None:
    done(catalog, queue)
    counts = catalog.counts()
    assert (counts.instances, counts.vectors, counts.quarantined) == (3, 1, 0)
    assert counts.series == {
        SeriesState.RECEIVING: 0,
        SeriesState.COMPLETE: 1,
        SeriesState.QUARANTINED: 0,
    }
    assert counts.jobs[JobState.DONE] == 1
    assert counts.deliveries == {("pacs", "due"): 2}
    assert (counts.oldest_waiting_job_at, counts.oldest_due_delivery_at) == (None, START)
