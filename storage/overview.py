"""What `status` shows: every series that came and everything that became of it; nothing that
happened is left out.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from storage import rows
from storage.records import (
    UNKNOWN_EFFORT,
    Delivery,
    DeliveryState,
    Effort,
    Header,
    JobState,
    QuarantinedObject,
    Result,
    SeriesState,
    Verdict,
)
from storage.schema import (
    DELIVERIES,
    DISPOSITIONS,
    JOBS,
    QUARANTINE,
    RESULTS,
    SERIES,
    STUDIES,
    VECTORS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a series for one model, or (`job_id` None) why no model looks at it."""

    job_id: int | None
    routes: tuple[str, ...]
    model: str | None
    version: str | None
    state: str  # a JobState's value; "not_analysed" also for a job that is DONE with that verdict
    verdict: Verdict | None
    reason: str | None  # of the verdict, the failure, or why no model looks at it
    why: str | None  # a job's route and what made it choose this series
    generation: int
    attempts: int
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    results: tuple[Result, ...]
    deliveries: tuple[Delivery, ...]  # without those withdrawn
    effort: Effort = UNKNOWN_EFFORT
    reserved_until: datetime | None = None  # of a job that waits: a worker reads its study ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOverview:
    """A series. `instances` without those in conflict; `reason` of a quarantine."""

    series_id: int
    series_instance_uid: str
    modality: str
    state: SeriesState
    reason: str | None
    instances: int
    conflicts: int
    first_received_at: datetime
    last_received_at: datetime
    attributes: Header
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOverview:
    """A study and its series, in the order they came."""

    study_instance_uid: str
    last_received_at: datetime
    series: tuple[SeriesOverview, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The whole node. `instances` and the counts of jobs are of all studies, also of those not
    shown.
    """

    instances: int
    waiting: int
    running: int
    failed: int
    studies: tuple[StudyOverview, ...]  # the one that received last comes first
    quarantined: tuple[QuarantinedObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers that are cheap to get. States that no row is in are there with 0."""

    instances: int
    series: Mapping[SeriesState, int]
    jobs: Mapping[JobState, int]
    deliveries: Mapping[tuple[str, DeliveryState], int]  # (destination, state)
    oldest_waiting_job_at: datetime | None  # `due_at`; in the future when it waits for a retry
    oldest_due_delivery_at: datetime | None  # `created_at`
    vectors: int
    quarantined: int
    efforts: Mapping[str, Effort] = field(default_factory=dict)  # model -> of its newest result


def overview(
    connection: Connection, study_instance_uid: str | None, latest: int | None
) -> Overview:
    """The overview of one study, or of the `latest` studies that received something, or of all."""
    chosen = sa.select(STUDIES.c.id).order_by(STUDIES.c.last_received_at.desc(), STUDIES.c.id)
    if study_instance_uid is not None:
        chosen = chosen.where(STUDIES.c.study_instance_uid == study_instance_uid)
    if latest is not None:
        chosen = chosen.limit(latest)
    numbers = counts(connection)
    return Overview(
        instances=numbers.instances,
        waiting=numbers.jobs[JobState.WAITING],
        running=numbers.jobs[JobState.RUNNING],
        failed=numbers.jobs[JobState.FAILED],
        studies=_studies(connection, chosen),
        quarantined=_quarantined(connection),
    )


def counts(connection: Connection) -> Counts:
    """The counts; no table is read row by row but `series`, `jobs` and `deliveries`."""
    received = sa.func.sum(SERIES.c.instances + SERIES.c.conflicts)
    waiting = JOBS.c.state == JobState.WAITING
    due = DELIVERIES.c.state == DeliveryState.DUE
    by_destination = (DELIVERIES.c.destination, DELIVERIES.c.state)
    deliveries = sa.select(*by_destination, sa.func.count()).group_by(*by_destination)
    return Counts(
        instances=int(connection.execute(sa.select(received)).scalar_one() or 0),
        series=dict.fromkeys(SeriesState, 0) | _by_state(connection, SERIES),
        jobs=dict.fromkeys(JobState, 0) | _by_state(connection, JOBS),
        deliveries={(row[0], row[1]): row[2] for row in connection.execute(deliveries)},
        oldest_waiting_job_at=_first(connection, JOBS.c.due_at, waiting),
        oldest_due_delivery_at=_first(connection, DELIVERIES.c.created_at, due),
        vectors=_count(connection, VECTORS),
        quarantined=_count(connection, QUARANTINE),
        efforts=_efforts(connection),
    )


def _efforts(connection: Connection) -> dict[str, Effort]:
    newest = sa.select(sa.func.max(JOBS.c.id)).where(JOBS.c.device.is_not(None))
    query = sa.select(JOBS).where(JOBS.c.id.in_(newest.group_by(JOBS.c.model)))
    return {row.model: rows.effort(row) for row in connection.execute(query)}


def _by_state(connection: Connection, table: sa.Table) -> dict[Any, int]:
    query = sa.select(table.c.state, sa.func.count()).group_by(table.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _first(
    connection: Connection, column: "sa.Column[datetime]", which: sa.ColumnElement[bool]
) -> datetime | None:
    query = sa.select(column).where(which).order_by(column).limit(1)
    return connection.execute(query).scalar_one_or_none()


def _count(connection: Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _quarantined(connection: Connection) -> tuple[QuarantinedObject, ...]:
    found = connection.execute(sa.select(QUARANTINE).order_by(QUARANTINE.c.id))
    return tuple(
        QuarantinedObject(
            key=row.key,
            size=row.size,
            reason=row.reason,
            received_at=row.received_at,
            calling_ae_title=row.calling_ae_title,
        )
        for row in found
    )


def _studies(connection: Connection, chosen: sa.Select[int]) -> tuple[StudyOverview, ...]:
    picked = chosen.subquery()
    wanted = sa.select(SERIES.c.id).where(SERIES.c.study_id.in_(sa.select(picked.c.id)))
    outcomes = _outcomes(connection, wanted)
    series: defaultdict[int, list[SeriesOverview]] = defaultdict(list)
    for row in connection.execute(
        sa.select(SERIES).where(SERIES.c.id.in_(wanted)).order_by(SERIES.c.id)
    ):
        series[row.study_id].append(_series(row, tuple(outcomes[row.id])))
    studies = (
        sa.select(STUDIES)
        .where(STUDIES.c.id.in_(sa.select(picked.c.id)))
        .order_by(STUDIES.c.last_received_at.desc(), STUDIES.c.id)
    )
    return tuple(
        StudyOverview(
            study_instance_uid=row.study_instance_uid,
            last_received_at=row.last_received_at,
            series=tuple(series[row.id]),
        )
        for row in connection.execute(studies)
    )


def _series(row: Row[Any], outcomes: tuple[Outcome, ...]) -> SeriesOverview:
    return SeriesOverview(
        series_id=row.id,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        state=row.state,
        reason=row.reason,
        instances=row.instances,
        conflicts=row.conflicts,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
        attributes=row.attributes,
        outcomes=outcomes,
    )


def _outcomes(connection: Connection, series: sa.Select[int]) -> dict[int, list[Outcome]]:
    outcomes: defaultdict[int, list[Outcome]] = defaultdict(list)
    results, deliveries = _results(connection, series), _deliveries(connection, series)
    shown = JOBS.c.series_id.in_(series), JOBS.c.state != JobState.CANCELLED, ~_superseded()
    for row in connection.execute(sa.select(JOBS).where(*shown).order_by(JOBS.c.id)):
        outcome = _of_job(row, tuple(results[row.id]), tuple(deliveries[row.id]))
        outcomes[row.series_id].append(outcome)
    for row in connection.execute(
        sa.select(DISPOSITIONS)
        .where(DISPOSITIONS.c.series_id.in_(series))
        .order_by(DISPOSITIONS.c.id)
    ):
        outcomes[row.series_id].append(_of_disposition(row))
    return outcomes


def _superseded() -> sa.Exists:
    newer = JOBS.alias("newer")
    return sa.exists().where(
        newer.c.scope == JOBS.c.scope,
        newer.c.model == JOBS.c.model,
        newer.c.generation > JOBS.c.generation,
        newer.c.state == JobState.DONE,
    )


def _results(connection: Connection, series: sa.Select[int]) -> dict[int, list[Result]]:
    found: defaultdict[int, list[Result]] = defaultdict(list)
    query = (
        sa.select(RESULTS)
        .join(JOBS, RESULTS.c.job_id == JOBS.c.id)
        .where(JOBS.c.series_id.in_(series), RESULTS.c.current)
        .order_by(RESULTS.c.place)
    )
    for row in connection.execute(query):
        found[row.job_id].append(rows.result(row))
    return found


def _deliveries(connection: Connection, series: sa.Select[int]) -> dict[int, list[Delivery]]:
    found: defaultdict[int, list[Delivery]] = defaultdict(list)
    query = (
        rows.DELIVERY.join(JOBS, DELIVERIES.c.job_id == JOBS.c.id)
        .where(JOBS.c.series_id.in_(series), DELIVERIES.c.state != DeliveryState.WITHDRAWN)
        .order_by(DELIVERIES.c.place, DELIVERIES.c.destination)
    )
    for row in connection.execute(query):
        found[row.job_id].append(rows.delivery(row))
    return found


def _of_job(
    row: Row[Any], results: tuple[Result, ...], deliveries: tuple[Delivery, ...]
) -> Outcome:
    unanalysed = row.state is JobState.DONE and row.verdict is Verdict.NOT_ANALYSED
    return Outcome(
        job_id=row.id,
        routes=row.routes,
        model=row.model,
        version=row.model_version,
        state=Verdict.NOT_ANALYSED.value if unanalysed else row.state.value,
        verdict=row.verdict,
        reason=row.reason,
        why=row.request_reason,
        generation=row.generation,
        attempts=row.attempts,
        due_at=row.due_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        results=results,
        deliveries=deliveries,
        effort=rows.effort(row),
        reserved_until=row.lease_until if row.state is JobState.WAITING else None,
    )


def _of_disposition(row: Row[Any]) -> Outcome:
    return Outcome(
        job_id=None,
        routes=() if row.route is None else (row.route,),
        model=row.model,
        version=None,
        state=row.state,
        verdict=None,
        reason=row.reason,
        why=None,
        generation=0,
        attempts=0,
        due_at=None,
        started_at=None,
        finished_at=None,
        results=(),
        deliveries=(),
    )
