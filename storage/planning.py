"""A result and its deliveries are one fact: every current result is due at each destination that
takes it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import states
from storage.database import insert
from storage.records import DeliveryState, Result
from storage.schema import DELIVERIES, JOBS, RESULTS


def replace_results(
    connection: Connection, job_id: int, results: Sequence[Result], now: datetime
) -> None:
    """The job's results are these, in the order of sending; those of an earlier run are not current
    any more.
    """
    connection.execute(sa.update(RESULTS).where(RESULTS.c.job_id == job_id).values(current=False))
    for place, result in enumerate(results):
        _keep(connection, job_id, result, place)
    stale = sa.select(RESULTS.c.id).where(RESULTS.c.job_id == job_id, ~RESULTS.c.current)
    _withdraw(connection, DELIVERIES.c.result_id.in_(stale), now)


def plan_deliveries(
    connection: Connection, job_id: int, now: datetime, *, again: bool = False
) -> None:
    """Makes the missing deliveries of a DONE job DUE, and those withdrawn; with `again` also those
    that were made.
    """
    job = connection.execute(
        sa.select(JOBS.c.destinations, JOBS.c.takers).where(JOBS.c.id == job_id)
    ).one()
    current = connection.execute(
        sa.select(RESULTS.c.id, RESULTS.c.kind, RESULTS.c.place).where(
            RESULTS.c.job_id == job_id, RESULTS.c.current
        )
    ).all()
    verb = "complete_again" if again else "plan"
    for result in current:
        takers = (job.takers or {}).get(result.kind, ())
        for destination in (name for name in job.destinations if name in takers):
            _plan(connection, job_id, result, destination, now=now, verb=verb)


def withdraw(connection: Connection, *, scope: str, model: str, but: int, now: datetime) -> None:
    """Withdraws what was not delivered of every other job of the scope and model."""
    others = sa.select(JOBS.c.id).where(
        JOBS.c.scope == scope, JOBS.c.model == model, JOBS.c.id != but
    )
    _withdraw(connection, DELIVERIES.c.job_id.in_(others), now)


def _keep(connection: Connection, job_id: int, result: Result, place: int) -> None:
    values: dict[str, Any] = {
        "job_id": job_id,
        "kind": result.kind,
        "sop_class_uid": result.sop_class_uid,
        "series_instance_uid": result.series_instance_uid,
        "digest": result.digest,
        "key": result.key,
        "size": result.size,
        "place": place,
        "current": True,
    }
    statement = insert(connection, RESULTS).values(
        sop_instance_uid=result.sop_instance_uid, **values
    )
    connection.execute(
        statement.on_conflict_do_update(index_elements=["sop_instance_uid"], set_=values)
    )


def _plan(
    connection: Connection,
    job_id: int,
    result: Any,
    destination: str,
    *,
    now: datetime,
    verb: str,
) -> None:
    due: dict[str, Any] = {
        "state": DeliveryState.DUE,
        "place": result.place,
        "attempts": 0,
        "due_at": now,
        "created_at": now,  # giving up is counted from here
        "lease_until": None,
        "finished_at": None,
        "last_error": None,
    }
    statement = insert(connection, DELIVERIES).values(
        job_id=job_id,
        result_id=result.id,
        destination=destination,
        token=0,
        **due,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["result_id", "destination"],
            set_=due | {"token": DELIVERIES.c.token + 1},
            where=DELIVERIES.c.state.in_(states.DELIVERIES.sources(verb)),
        )
    )


def _withdraw(connection: Connection, which: sa.ColumnElement[bool], now: datetime) -> None:
    connection.execute(
        sa.update(DELIVERIES)
        .where(which, DELIVERIES.c.state.in_(states.DELIVERIES.sources("withdraw")))
        .values(state=DeliveryState.WITHDRAWN, lease_until=None, finished_at=now)
    )
