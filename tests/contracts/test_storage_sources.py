"""Received bytes are given up in the catalogue first, then in the store, and never bytes that
somebody needs.

Not covered here: which studies are chosen (tests/unit/test_retention.py), when the sweep runs.
"""

import os
from pathlib import Path

from storage.catalog import Catalog
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import DeliveryState, Registration
from storage.retention import Hold
from tests.records import START, after, arrive, claim, digest, done, instance, request, ripe


def holds(catalog: Catalog) -> set[Hold]:
    (study,) = catalog.retention_candidates(after(99))
    return set(study.holds)


def route_study(catalog: Catalog) -> None:
    (study,) = catalog.ripe_studies(after(99))
    assert catalog.close_study(study, [], [], START)


def settle(catalog: Catalog, queue: Queue) -> None:
    """Everything was done and delivered."""
    done(catalog, queue)
    route_study(catalog)
    for delivery in queue.claim_deliveries("pacs", now=START, lease_until=START, limit=9):
        assert queue.delivered(delivery, DeliveryState.SENT, START)


def test_each_hold_is_seen_until_it_is_over(catalog: Catalog, queue: Queue) -> None:
    arrival = arrive(catalog)
    assert holds(catalog) == {Hold.RECEIVING, Hold.NOT_ROUTED}
    catalog.close_series(arrival, [request(arrival)], [], START)
    assert holds(catalog) == {Hold.NOT_ROUTED, Hold.JOB_OPEN}
    route_study(catalog)
    queue.fail(claim(queue), error="x", now=START)
    assert holds(catalog) == {Hold.JOB_FAILED}
    catalog.quarantine_series(arrival.series_id, "unreadable", START)
    assert holds(catalog) == {Hold.JOB_FAILED, Hold.QUARANTINED, Hold.NOT_ROUTED}


def test_an_undelivered_or_failed_delivery_holds(catalog: Catalog, queue: Queue) -> None:
    done(catalog, queue)
    route_study(catalog)
    assert holds(catalog) == {Hold.DELIVERY_DUE}
    (first, _) = queue.claim_deliveries("pacs", now=START, lease_until=START, limit=9)
    queue.delivery_failed(first, "given up")
    assert holds(catalog) == {Hold.DELIVERY_FAILED}


def test_a_held_study_is_not_forgotten(catalog: Catalog, queue: Queue) -> None:
    done(catalog, queue)
    assert catalog.forget_sources("1.2", START) == ()
    assert catalog.forget_sources("none", START) == ()


def test_forgotten_sources_are_not_candidates_nor_instances_and_their_keys_are_told(
    catalog: Catalog, queue: Queue
) -> None:
    settle(catalog, queue)
    (study,) = catalog.retention_candidates(START)
    assert (study.size, study.holds) == (300, frozenset())
    keys = catalog.forget_sources("1.2", START)
    assert sorted(keys) == sorted(instance(n).key for n in (1, 2, 3))
    assert catalog.retention_candidates(START) == ()
    assert catalog.instances(1) == ()
    assert catalog.unpurged() == keys
    catalog.purged(keys)
    assert catalog.unpurged() == ()
    assert queue.requeue(study="1.2", now=START) == 0, "there is nothing to analyse"


def test_a_study_that_comes_again_after_retention_is_not_analysed_again(
    catalog: Catalog, queue: Queue
) -> None:
    settle(catalog, queue)
    keys = catalog.forget_sources("1.2", START)
    assert catalog.register([instance(1, at=after(50))]) == (Registration.NEW,)
    arrival = ripe(catalog)
    assert (arrival.instances, arrival.forgotten) == (3, 2)
    assert catalog.close_series(arrival, [request(arrival)], [], START)
    assert queue.claim(worker="w", models=["lung-ct"], now=after(99), lease_until=after(99)) is None
    assert [one.sop_instance_uid for one in catalog.instances(1)] == ["1.2.1.1"]
    assert set(catalog.unpurged()) == set(keys) - {instance(1).key}
    catalog.purged(keys)
    assert len(catalog.instances(1)) == 1


def test_a_conflict_that_comes_again_after_retention_is_still_a_conflict(
    catalog: Catalog, queue: Queue
) -> None:
    other = instance(1, content="other")
    settle(catalog, queue)
    catalog.register([other])
    assert len(catalog.forget_sources("1.2", START)) == 4
    assert catalog.register([other]) == (Registration.CONFLICT,)
    assert catalog.ripe_series(after(99)) == ()
    (series,) = catalog.overview("1.2").studies[0].series
    assert (series.instances, series.conflicts) == (3, 1)
    (study,) = catalog.retention_candidates(after(99))
    assert study.size == other.size


def test_bytes_that_came_again_while_they_were_given_up_stay(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path)
    key = adopt(store, b"same bytes")
    old = START.timestamp()
    os.utime(store.path(key), (old, old))
    assert adopt(store, b"same bytes") == key
    assert not store.delete(key, unchanged_since=after(3600))
    assert store.path(key).read_bytes() == b"same bytes"
    os.utime(store.path(key), (old, old))
    assert store.delete(key, unchanged_since=after(3600))
    assert not store.path(key).exists()
    assert store.delete(key, unchanged_since=after(3600)), "gone is as good"


def adopt(store: InstanceStore, data: bytes) -> str:
    part = store.new_part()
    part.write_bytes(data)
    key = store.adopt(part, digest(data.decode()))
    store.sync([key])
    return key
