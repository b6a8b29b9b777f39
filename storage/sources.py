"""A study's bytes are forgotten in the catalogue before they leave the store, and never while a
hold is on them.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.records import DeliveryState, JobState, SeriesState
from storage.retention import Hold, StudySources
from storage.schema import DELIVERIES, DISPOSITIONS, INSTANCES, JOBS, SERIES, STUDIES


def candidates(
    connection: Connection, study_instance_uid: str | None = None
) -> tuple[StudySources, ...]:
    """The studies that have bytes in the store, with what holds them."""
    size = sa.func.sum(SERIES.c.size)
    query = (
        sa.select(STUDIES, size.label("size"))
        .join(SERIES, SERIES.c.study_id == STUDIES.c.id)
        .group_by(STUDIES.c.id)
        .having(size > 0)
    )
    if study_instance_uid is not None:
        query = query.where(STUDIES.c.study_instance_uid == study_instance_uid)
    holds = _holds(connection, study_instance_uid)
    return tuple(
        StudySources(
            study_instance_uid=row.study_instance_uid,
            last_received_at=row.last_received_at,
            size=int(row.size),
            holds=frozenset(holds[row.id]),
        )
        for row in connection.execute(query)
    )


def forget(connection: Connection, study_instance_uid: str, now: datetime) -> tuple[str, ...]:
    """The keys of the bytes that nobody needs any more; none when a hold is on the study."""
    found = candidates(connection, study_instance_uid)
    if not found or found[0].holds:
        return ()
    members = (
        sa.select(SERIES.c.id)
        .join(STUDIES, SERIES.c.study_id == STUDIES.c.id)
        .where(STUDIES.c.study_instance_uid == study_instance_uid)
    )
    connection.execute(sa.update(SERIES).where(SERIES.c.id.in_(members)).values(size=0))
    keys = connection.execute(
        sa.update(INSTANCES)
        .where(INSTANCES.c.series_id.in_(members), INSTANCES.c.forgotten_at.is_(None))
        .values(forgotten_at=now, purged=False)
        .returning(INSTANCES.c.key)
    )
    return tuple(keys.scalars())


def unpurged(connection: Connection, limit: int) -> tuple[str, ...]:
    """Keys that were forgotten and whose bytes may still be in the store."""
    query = (
        sa.select(INSTANCES.c.key)
        .where(INSTANCES.c.forgotten_at.is_not(None), ~INSTANCES.c.purged)
        .order_by(INSTANCES.c.forgotten_at, INSTANCES.c.id)
        .limit(limit)
    )
    return tuple(connection.execute(query).scalars())


def _holds(connection: Connection, study_instance_uid: str | None) -> dict[int, set[Hold]]:
    holds: defaultdict[int, set[Hold]] = defaultdict(set)
    chosen: sa.ColumnElement[bool] = sa.true()
    if study_instance_uid is not None:
        chosen = STUDIES.c.study_instance_uid == study_instance_uid
    for hold, query in _hold_queries():
        for study_id in connection.execute(query.where(chosen).distinct()).scalars():
            holds[study_id].add(hold)
    return holds


def _hold_queries() -> Iterator[tuple[Hold, sa.Select[int]]]:
    study = sa.select(STUDIES.c.id)
    series = study.join(SERIES, SERIES.c.study_id == STUDIES.c.id)
    jobs = series.join(JOBS, JOBS.c.series_id == SERIES.c.id)
    deliveries = jobs.join(DELIVERIES, DELIVERIES.c.job_id == JOBS.c.id)
    waiting = series.join(DISPOSITIONS, DISPOSITIONS.c.series_id == SERIES.c.id)
    yield Hold.NOT_ROUTED, study.where(~STUDIES.c.routed)
    yield Hold.NOT_ROUTED, waiting.where(DISPOSITIONS.c.state == "waiting")
    yield Hold.RECEIVING, series.where(SERIES.c.state == SeriesState.RECEIVING)
    yield Hold.QUARANTINED, series.where(SERIES.c.state == SeriesState.QUARANTINED)
    open_ = JOBS.c.state.in_((JobState.WAITING, JobState.RUNNING))
    yield Hold.JOB_OPEN, jobs.where(open_)
    yield Hold.JOB_FAILED, jobs.where(JOBS.c.state == JobState.FAILED)
    yield Hold.DELIVERY_DUE, deliveries.where(DELIVERIES.c.state == DeliveryState.DUE)
    yield Hold.DELIVERY_FAILED, deliveries.where(DELIVERIES.c.state == DeliveryState.FAILED)
