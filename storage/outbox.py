"""A result leaves in order: what refers to another object is not given before it; each verb is
fenced by a token.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import rows, states
from storage.records import Delivery, DeliveryState
from storage.schema import DELIVERIES, JOBS, RESULTS

UNCLAIMED: Mapping[str, Any] = MappingProxyType(
    {"lease_until": None, "attempts": DELIVERIES.c.attempts - 1}
)
_VERBS = {DeliveryState.SENT: "sent", DeliveryState.COMMITTED: "committed"}


def is_due(connection: Connection, destination: str, *, now: datetime) -> bool:
    """Whether anything waits for the destination, be it behind another object of its job."""
    waiting = sa.select(DELIVERIES.c.id).where(
        DELIVERIES.c.destination == destination, _claimable(DELIVERIES, now)
    )
    return connection.execute(waiting.limit(1)).first() is not None


def claim(
    connection: Connection,
    destination: str,
    *,
    now: datetime,
    lease_until: datetime,
    limit: int,
) -> tuple[Delivery, ...]:
    """Leases up to `limit` deliveries; the caller holds the destination's lock."""
    due = (
        sa.select(DELIVERIES.c.id)
        .join(JOBS, DELIVERIES.c.job_id == JOBS.c.id)
        .where(
            DELIVERIES.c.destination == destination,
            _claimable(DELIVERIES, now),
            ~_blocked(now),
        )
        .order_by(JOBS.c.priority, DELIVERIES.c.job_id, DELIVERIES.c.place, DELIVERIES.c.id)
        .limit(limit)
    )
    ids = connection.execute(due).scalars().all()
    connection.execute(
        sa.update(DELIVERIES)
        .where(DELIVERIES.c.id.in_(ids))
        .values(
            lease_until=lease_until,
            attempts=DELIVERIES.c.attempts + 1,
            token=DELIVERIES.c.token + 1,
        )
    )
    found = {
        row.id: rows.delivery(row)
        for row in connection.execute(rows.DELIVERY.where(DELIVERIES.c.id.in_(ids)))
    }
    return tuple(found[delivery_id] for delivery_id in ids)


def move(connection: Connection, delivery: Delivery, verb: str, values: Mapping[str, Any]) -> bool:
    """Changes the row if it still carries the token and is in a state that the verb starts from."""
    changed = connection.execute(
        sa.update(DELIVERIES)
        .where(
            DELIVERIES.c.id == delivery.delivery_id,
            DELIVERIES.c.token == delivery.token,
            DELIVERIES.c.state.in_(states.DELIVERIES.sources(verb)),
        )
        .values(**values)
    )
    return changed.rowcount == 1


def delivered(
    connection: Connection, delivery: Delivery, state: DeliveryState, now: datetime
) -> bool:
    """SENT or COMMITTED; ValueError for another state."""
    if state not in _VERBS:
        raise ValueError(f"delivered: {state}; allowed: sent, committed")
    values = {"state": state, "lease_until": None, "finished_at": now, "last_error": None}
    return move(connection, delivery, _VERBS[state], values)


def failed(connection: Connection, delivery: Delivery, error: str) -> bool:
    """FAILED, and so are those after it: what refers to an object that never came helps nobody."""
    values = {"state": DeliveryState.FAILED, "lease_until": None, "last_error": error}
    if not move(connection, delivery, "delivery_failed", values):
        return False
    connection.execute(
        sa.update(DELIVERIES)
        .where(
            DELIVERIES.c.job_id == delivery.job_id,
            DELIVERIES.c.destination == delivery.destination,
            DELIVERIES.c.place > delivery.order,
            DELIVERIES.c.state.in_(states.DELIVERIES.sources("delivery_failed")),
        )
        .values(
            state=DeliveryState.FAILED,
            lease_until=None,
            token=DELIVERIES.c.token + 1,
            last_error=f"not sent, as the {delivery.result.kind} before it failed: {error}",
        )
    )
    return True


def hasten(connection: Connection, destination: str, now: datetime) -> int:
    """DUE now instead of later, but for what somebody has in hand."""
    hastened = connection.execute(
        sa.update(DELIVERIES)
        .where(
            DELIVERIES.c.destination == destination,
            DELIVERIES.c.state.in_(states.DELIVERIES.sources("delivery_hasten")),
            DELIVERIES.c.due_at > now,
            sa.or_(DELIVERIES.c.lease_until.is_(None), DELIVERIES.c.lease_until <= now),
        )
        .values(due_at=now)
    )
    return hastened.rowcount


def redeliver(
    connection: Connection,
    series: sa.Select[int] | None,
    *,
    failed: bool,
    destination: str | None,
    now: datetime,
) -> int:
    """DUE again, of current results only; all series when `series` is None."""
    before = (DeliveryState.FAILED,) if failed else states.DELIVERIES.sources("redeliver")
    current = sa.select(RESULTS.c.id).where(RESULTS.c.current)
    again = sa.update(DELIVERIES).where(
        DELIVERIES.c.state.in_(before), DELIVERIES.c.result_id.in_(current)
    )
    if series is not None:
        jobs = sa.select(JOBS.c.id).where(JOBS.c.series_id.in_(series))
        again = again.where(DELIVERIES.c.job_id.in_(jobs))
    if destination is not None:
        again = again.where(DELIVERIES.c.destination == destination)
    changed = connection.execute(
        again.values(
            state=DeliveryState.DUE,
            attempts=0,
            token=DELIVERIES.c.token + 1,
            due_at=now,
            created_at=now,  # giving up is counted from here
            finished_at=None,
            last_error=None,
        )
    )
    return changed.rowcount


def _claimable(table: sa.FromClause, now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.state == DeliveryState.DUE,
        table.c.due_at <= now,
        sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= now),
    )


def _blocked(now: datetime) -> sa.Exists:
    """One before it in its job is not there yet and cannot be given now either."""
    before = DELIVERIES.alias("before")
    return sa.exists().where(
        before.c.job_id == DELIVERIES.c.job_id,
        before.c.destination == DELIVERIES.c.destination,
        before.c.place < DELIVERIES.c.place,
        before.c.state.in_((DeliveryState.DUE, DeliveryState.FAILED)),
        ~_claimable(before, now),
    )
