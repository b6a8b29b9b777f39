"""A job is asked for once; a newer set of instances takes the place of an older one, and nothing is
lost for it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from storage import states
from storage.planning import plan_deliveries, withdraw
from storage.records import Disposition, JobRequest, JobState, Priority
from storage.schema import DISPOSITIONS, INSTANCES, JOBS, RESULTS

GONE = "its bytes were deleted by retention; send the series again"


def request_jobs(
    connection: Connection, requests: Sequence[JobRequest], now: datetime
) -> tuple[JobRequest, ...]:
    """Inserts the jobs, or adds routes and destinations to those that exist; cancels what they
    supersede. Those that were not there, or only CANCELLED.
    """
    new = []
    for request in requests:
        equal = _equal(connection, request)
        if equal is None:
            _insert(connection, request, now)
        else:
            _merge(connection, equal, request, now)
        if equal is None or equal.state is JobState.CANCELLED:
            new.append(request)
    for request in requests:
        equal = _equal(connection, request)
        if equal is not None and equal.state is JobState.CANCELLED:  # by a later one of these
            _merge(connection, equal, request, now)
    return tuple(new)


def readable(
    connection: Connection, requests: Iterable[JobRequest]
) -> tuple[tuple[JobRequest, ...], tuple[Disposition, ...]]:
    """The jobs that exist or whose bytes are in the store; of the others why they are not asked."""
    asked, refused = [], []
    for request in requests:
        equal = _equal(connection, request)
        if (equal is None or equal.state is JobState.CANCELLED) and _gone(connection, request):
            refused.append(
                Disposition(
                    series_id=request.series_id,
                    state="not_analysed",
                    route=request.routes[0],
                    model=request.model,
                    reason=GONE,
                )
            )
        else:
            asked.append(request)
    return tuple(asked), tuple(refused)


def standing(connection: Connection, series: Sequence[int]) -> frozenset[tuple[int, str]]:
    """The (series_id, model) of jobs that were not CANCELLED and that no newer job supersedes."""
    query = sa.select(JOBS.c.series_id, JOBS.c.model).where(
        JOBS.c.series_id.in_(series), JOBS.c.state != JobState.CANCELLED, ~superseded()
    )
    return frozenset((row.series_id, row.model) for row in connection.execute(query))


def superseded() -> sa.Exists:
    """Whether a newer job of the same scope and model takes the place of a job of JOBS."""
    newer = JOBS.alias("newer")
    return sa.exists().where(
        newer.c.scope == JOBS.c.scope,
        newer.c.model == JOBS.c.model,
        newer.c.generation > JOBS.c.generation,
        newer.c.state != JobState.CANCELLED,
    )


def cancel_stale(connection: Connection, series_id: int, fingerprint: str, now: datetime) -> None:
    """Cancels what a series was to be analysed for with other instances, wanted again or not.

    A job on several series is superseded when their study is closed.
    """
    alone = sa.cast(JOBS.c.inputs, sa.Text) == "{}"
    other = JOBS.c.fingerprint != fingerprint
    _cancel(connection, [JOBS.c.series_id == series_id, other, alone], now)


def replace_dispositions(
    connection: Connection, dispositions: Iterable[Disposition], now: datetime
) -> None:
    """Adds the dispositions; the caller removed those they replace."""
    rows = [
        {
            "series_id": disposition.series_id,
            "state": disposition.state,
            "route": disposition.route,
            "model": disposition.model,
            "reason": disposition.reason,
            "created_at": now,
        }
        for disposition in dispositions
    ]
    if rows:
        connection.execute(sa.insert(DISPOSITIONS), rows)


def _gone(connection: Connection, request: JobRequest) -> bool:
    """Whether retention gave up bytes of a series that the job wants."""
    wanted = {request.series_id, *request.inputs.values()}
    query = sa.select(INSTANCES.c.id).where(
        INSTANCES.c.series_id.in_(wanted), INSTANCES.c.forgotten_at.is_not(None)
    )
    return connection.execute(query.limit(1)).first() is not None


def _equal(connection: Connection, request: JobRequest) -> Row[Any] | None:
    return connection.execute(
        sa.select(JOBS)
        .where(
            JOBS.c.fingerprint == request.fingerprint,
            JOBS.c.model == request.model,
            JOBS.c.model_version == request.model_version,
            JOBS.c.configuration == request.configuration,
        )
        .with_for_update(key_share=True)
    ).one_or_none()


def _insert(connection: Connection, request: JobRequest, now: datetime) -> None:
    _cancel_others(connection, request, now, but=None)
    connection.execute(
        sa.insert(JOBS).values(
            state=JobState.WAITING,
            scope=request.scope,
            series_id=request.series_id,
            fingerprint=request.fingerprint,
            model=request.model,
            model_version=request.model_version,
            configuration=request.configuration,
            routes=request.routes,
            destinations=request.destinations,
            priority=request.priority,
            request_reason=request.reason,
            inputs=request.inputs,
            generation=_next_generation(connection, request),
            supersedes=_predecessor(connection, request, but=None),
            attempts=0,
            token=0,
            due_at=now,
            created_at=now,
        )
    )


def _merge(connection: Connection, equal: Row[Any], request: JobRequest, now: datetime) -> None:
    """The equal job gains routes and destinations; one that was CANCELLED is wanted again."""
    _cancel_others(connection, request, now, but=equal.id)
    values: dict[str, Any] = {
        "routes": tuple(dict.fromkeys((*equal.routes, *request.routes))),
        "destinations": tuple(dict.fromkeys((*equal.destinations, *request.destinations))),
        "priority": min(equal.priority, request.priority, key=list(Priority).index),
    }
    if states.JOBS.allows(equal.state, "close"):
        values |= _wanted_again(connection, equal, request, now)
    connection.execute(sa.update(JOBS).where(JOBS.c.id == equal.id).values(**values))
    if equal.state is JobState.DONE:
        plan_deliveries(connection, equal.id, now)
        withdraw(connection, scope=request.scope, model=request.model, but=equal.id, now=now)


def _wanted_again(
    connection: Connection, equal: Row[Any], request: JobRequest, now: datetime
) -> dict[str, Any]:
    return {
        "state": JobState.WAITING,
        "scope": request.scope,
        "generation": _next_generation(connection, request),
        "supersedes": _predecessor(connection, request, but=equal.id),
        "attempts": 0,
        "token": equal.token + 1,
        "due_at": now,
        "finished_at": None,
        "reason": None,
    }


def _cancel_others(
    connection: Connection, request: JobRequest, now: datetime, *, but: int | None
) -> None:
    _cancel(connection, _same_scope(request, but), now)


def _cancel(connection: Connection, which: Sequence[sa.ColumnElement[bool]], now: datetime) -> None:
    connection.execute(
        sa.update(JOBS)
        .where(*which, JOBS.c.state.in_(states.JOBS.sources("supersede")))
        .values(
            state=JobState.CANCELLED,
            token=JOBS.c.token + 1,
            lease_until=None,
            finished_at=now,
            reason="superseded: the set of instances or the model changed, or another series was"
            " chosen",
        )
    )


def _next_generation(connection: Connection, request: JobRequest) -> int:
    query = sa.select(sa.func.max(JOBS.c.generation)).where(*_same_scope(request, None))
    return (connection.execute(query).scalar_one() or 0) + 1


def _predecessor(connection: Connection, request: JobRequest, *, but: int | None) -> int | None:
    """The newest other job of the scope and model that has results."""
    has_results = sa.exists().where(RESULTS.c.job_id == JOBS.c.id, RESULTS.c.current)
    query = (
        sa.select(JOBS.c.id)
        .where(*_same_scope(request, but), has_results)
        .order_by(JOBS.c.generation.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def _same_scope(request: JobRequest, but: int | None) -> list[sa.ColumnElement[bool]]:
    same = [JOBS.c.scope == request.scope, JOBS.c.model == request.model]
    return same if but is None else [*same, JOBS.c.id != but]
