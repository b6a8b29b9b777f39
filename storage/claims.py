"""Who gets which job that waits: the most urgent first, and of those alike the one whose study the
worker has read already.

A reservation is a note on a job that is WAITING: a worker reads its study ahead until
`lease_until`. It keeps nobody from claiming the job who has nothing else to do, so that nothing has
to be undone when that worker dies.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import states
from storage.records import Job, JobState, Priority
from storage.schema import JOBS

Conditions = Sequence[sa.ColumnElement[bool]]


def most_urgent(connection: Connection, *, models: Sequence[str], now: datetime) -> Priority | None:
    """The highest priority of a job of these models that is due; None when there is none."""
    first = sa.select(JOBS.c.priority).where(*_due(models, now)).order_by(JOBS.c.priority).limit(1)
    return connection.execute(first).scalar_one_or_none()


def claim(
    connection: Connection,
    *,
    worker: str,
    models: Sequence[str],
    now: datetime,
    lease_until: datetime,
    reserved: Job | None,
) -> int | None:
    """WAITING -> RUNNING; the job's id. Of the most urgent: the one that this worker reserved, or
    else the oldest that nobody reserved, or else, as it would only wait, the oldest.
    """
    urgency = most_urgent(connection, models=models, now=now)
    if urgency is None:
        return None
    alike = [*_due(models, now), JOBS.c.priority == urgency]
    choices = [[*alike, _unreserved(now)], alike]
    if reserved is not None:
        own = JOBS.c.id == reserved.job_id, JOBS.c.token == reserved.token
        choices.insert(0, [*alike, *own])
    running = {
        "state": JobState.RUNNING,
        "worker": worker,
        "attempts": JOBS.c.attempts + 1,
        "token": JOBS.c.token + 1,
        "lease_until": lease_until,
        "started_at": now,
        "finished_at": None,
    }
    taken = (_take(connection, _first(choice), running) for choice in choices)
    return next((job_id for job_id in taken if job_id is not None), None)


def reservable(models: Sequence[str], now: datetime) -> sa.Select[int]:
    """The job that a worker may read ahead: the first that no other does, unless it was tried.

    That one comes next and alone, since reading it may be what ended its worker; whoever reserved
    a later one would claim that instead, again and again.
    """
    free = [*_due(models, now), _unreserved(now)]
    return _first([*free, JOBS.c.id == _first(free).scalar_subquery(), JOBS.c.attempts == 0])


def reserve(
    connection: Connection, *, worker: str, models: Sequence[str], now: datetime, until: datetime
) -> int | None:
    """WAITING -> WAITING, noted as read ahead; the job's id."""
    noted = {"worker": worker, "token": JOBS.c.token + 1, "lease_until": until}
    return _take(connection, reservable(models, now), noted)


def _due(models: Sequence[str], now: datetime) -> Conditions:
    waiting = JOBS.c.state.in_(states.JOBS.sources("claim"))
    return waiting, JOBS.c.due_at <= now, JOBS.c.model.in_(models)


def _unreserved(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(JOBS.c.lease_until.is_(None), JOBS.c.lease_until <= now)


def _first(which: Conditions) -> sa.Select[int]:
    order = JOBS.c.priority, JOBS.c.due_at, JOBS.c.id
    return sa.select(JOBS.c.id).where(*which).order_by(*order).limit(1)


def _take(connection: Connection, first: sa.Select[int], values: Mapping[str, Any]) -> int | None:
    """Changes that job; of those that another process is changing now, the next is taken."""
    chosen = first.with_for_update(skip_locked=True).scalar_subquery()
    changed = sa.update(JOBS).where(JOBS.c.id == chosen).values(**values).returning(JOBS.c.id)
    return connection.execute(changed).scalar_one_or_none()
