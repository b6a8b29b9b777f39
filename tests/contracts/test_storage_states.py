"""Every verb in every state: it goes where storage/states.py has an arrow, and nowhere else.

Not covered here: what else a verb does (the other storage contracts); rows are put into a state by
SQL.
"""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa

from storage import rows, states
from storage.catalog import Catalog
from storage.database import Database
from storage.queue import Queue
from storage.records import Delivery, DeliveryState, Job, JobState, SeriesState
from storage.schema import DELIVERIES, JOBS, SERIES
from tests.records import START, after, claim, complete, done, instance, request, ripe


@dataclasses.dataclass
class Node:
    """A catalogue with one series, one DONE job and one delivery; ids are 1 each."""

    database: Database
    catalog: Catalog
    queue: Queue

    def put(self, table: sa.Table, **values: object) -> None:
        with self.database.transaction() as connection:
            connection.execute(sa.update(table).where(table.c.id == 1).values(**values))

    def state(self, table: sa.Table) -> StrEnum:
        with self.database.read() as connection:
            found: StrEnum = connection.execute(
                sa.select(table.c.state).where(table.c.id == 1)
            ).scalar_one()
            return found

    def job(self) -> Job:
        with self.database.read() as connection:
            return rows.job(connection.execute(rows.JOB.where(JOBS.c.id == 1)).one())

    def delivery(self) -> Delivery:
        with self.database.read() as connection:
            return rows.delivery(
                connection.execute(rows.DELIVERY.where(DELIVERIES.c.id == 1)).one()
            )

    def close_again(self) -> None:
        self.put(SERIES, state=SeriesState.RECEIVING)
        arrival = ripe(self.catalog)
        wanted = [request(arrival, destinations=["archive"])]
        assert self.catalog.close_series(arrival, wanted, [], START)

    def reserve(self) -> None:
        """Every verb of a reservation, in turn."""
        self.put(JOBS, attempts=0)
        self.queue.reserve(worker="w", models=["lung-ct"], now=START, until=LATER)
        self.queue.keep_reserved(self.job(), until=LATER)
        self.queue.unreserve(self.job())

    def supersede(self) -> None:
        self.catalog.register([instance(99)])
        arrival = ripe(self.catalog)
        wanted = [request(arrival, destinations=["archive"])]
        assert self.catalog.close_series(arrival, wanted, [], START)

    def supersede_and_complete(self) -> None:
        self.supersede()
        assert complete(self.queue, claim(self.queue))

    def close_series(self) -> None:
        (arrival,) = self.catalog.ripe_series(START) or (None,)
        if arrival is not None:
            self.catalog.close_series(arrival, [], [], START)


@pytest.fixture
def node(database: Database) -> Node:
    node = Node(database, Catalog(database), Queue(database))
    done(node.catalog, node.queue, destinations=["archive"])
    return node


LATER: datetime = after(60)
VERBS_OF_SERIES: dict[str, Callable[[Node], Any]] = {
    "register": lambda node: node.catalog.register([instance(99)]),
    "close_series": Node.close_series,
    "quarantine_series": lambda node: node.catalog.quarantine_series(1, "unreadable", START),
    "requeue": lambda node: node.queue.requeue(study="1.2", now=START),
}
VERBS_OF_JOBS: dict[str, Callable[[Node], Any]] = {
    "close": Node.close_again,
    "supersede": Node.supersede,
    "claim": lambda node: node.queue.claim(
        worker="w", models=["lung-ct"], now=START, lease_until=LATER
    ),
    "reserve": Node.reserve,
    "heartbeat": lambda node: node.queue.heartbeat(node.job(), lease_until=LATER),
    "expired": lambda node: node.queue.expired(LATER),
    "complete": lambda node: complete(node.queue, node.job()),
    "retry": lambda node: node.queue.retry(node.job(), at=LATER, error="x"),
    "release": lambda node: node.queue.release(node.job()),
    "fail": lambda node: node.queue.fail(node.job(), error="x", now=START),
    "requeue": lambda node: node.queue.requeue(study="1.2", now=START),
}
VERBS_OF_DELIVERIES: dict[str, Callable[[Node], Any]] = {
    "plan": Node.close_again,
    "withdraw": Node.supersede_and_complete,
    "claim_deliveries": lambda node: node.queue.claim_deliveries(
        "archive", now=START, lease_until=LATER, limit=1
    ),
    "delivery_retry": lambda node: node.queue.delivery_retry(node.delivery(), LATER, "x"),
    "delivery_release": lambda node: node.queue.delivery_release([node.delivery()]),
    "delivery_hasten": lambda node: node.queue.delivery_hasten("archive", now=START),
    "delivery_failed": lambda node: node.queue.delivery_failed(node.delivery(), "x"),
    "sent": lambda node: node.queue.delivered(node.delivery(), DeliveryState.SENT, START),
    "committed": lambda node: node.queue.delivered(node.delivery(), DeliveryState.COMMITTED, START),
    "redeliver": lambda node: node.queue.redeliver(study="1.2", now=START),
    "complete_again": lambda node: (
        node.queue.requeue(study="1.2", now=START),
        complete(node.queue, claim(node.queue)),
    ),
}


def expected(machine: states.Machine[Any], source: StrEnum, verb: str) -> StrEnum:
    found = [a.target for a in machine.arrows if (a.source, a.verb) == (source, verb)]
    return found[0] if found else source


def cases(machine: states.Machine[Any], verbs: dict[str, Any]) -> list[tuple[Any, str]]:
    assert {arrow.verb for arrow in machine.arrows} == set(verbs)
    return [(source, verb) for source in machine.states for verb in verbs]


@pytest.mark.parametrize(("source", "verb"), cases(states.SERIES, VERBS_OF_SERIES))
def test_series(node: Node, source: SeriesState, verb: str) -> None:
    node.put(SERIES, state=source)
    VERBS_OF_SERIES[verb](node)
    assert node.state(SERIES) is expected(states.SERIES, source, verb)


@pytest.mark.parametrize(("source", "verb"), cases(states.JOBS, VERBS_OF_JOBS))
def test_jobs(node: Node, source: JobState, verb: str) -> None:
    node.put(JOBS, state=source, lease_until=START, due_at=START)
    VERBS_OF_JOBS[verb](node)
    assert node.state(JOBS) is expected(states.JOBS, source, verb)


@pytest.mark.parametrize(("source", "verb"), cases(states.DELIVERIES, VERBS_OF_DELIVERIES))
def test_deliveries(node: Node, source: DeliveryState, verb: str) -> None:
    node.put(DELIVERIES, state=source)
    VERBS_OF_DELIVERIES[verb](node)
    assert node.state(DELIVERIES) is expected(states.DELIVERIES, source, verb)
