"""A job is done by one worker at a time, and what a worker finishes is whole: each arrow is one fenced transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import rows
from storage.database import Database, insert
from storage.planning import plan_deliveries, replace_results, withdraw
from storage.records import Job, JobState, Result, Vector, Verdict
from storage.schema import JOBS, RESULTS, VECTORS


class Queue:
    """Jobs. A method that takes a Job answers False, and changes nothing, when its token is not the row's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, *, worker: str, models: Sequence[str], now: datetime, lease_until: datetime
    ) -> Job | None:
        """WAITING -> RUNNING for the most urgent job of these models that is due; None when there is none."""
        first = (
            sa.select(JOBS.c.id)
            .where(JOBS.c.state == JobState.WAITING, JOBS.c.due_at <= now)
            .where(JOBS.c.model.in_(models))
            .order_by(JOBS.c.priority, JOBS.c.due_at, JOBS.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claimed = (
            sa.update(JOBS)
            .where(JOBS.c.id == first)
            .values(
                state=JobState.RUNNING,
                worker=worker,
                attempts=JOBS.c.attempts + 1,
                token=JOBS.c.token + 1,
                lease_until=lease_until,
                started_at=now,
                finished_at=None,
            )
            .returning(JOBS.c.id)
        )
        with self._database.transaction() as connection:
            job_id = connection.execute(claimed).scalar_one_or_none()
            return None if job_id is None else _job(connection, job_id)

    def heartbeat(self, job: Job, *, lease_until: datetime) -> bool:
        """The worker lives: the lease is longer. False: the job was lost, cancelled or rescued."""
        with self._database.transaction() as connection:
            return _move(connection, job, {"lease_until": lease_until})

    def complete(
        self,
        job: Job,
        *,
        verdict: Verdict,
        reason: str | None,
        results: Sequence[Result],
        destinations: Mapping[str, Sequence[str]],
        vectors: Sequence[Vector],
        now: datetime,
    ) -> bool:
        """RUNNING -> DONE with its results, their deliveries and the vectors of its series, all or nothing.

        `results` are in the order of sending: one that refers to another comes after it. `destinations`: for each
        result kind the destinations that take it, of all that are configured; those the job names get a delivery.
        What is undelivered of the jobs it supersedes is withdrawn.
        """
        done = {
            "state": JobState.DONE,
            "lease_until": None,
            "finished_at": now,
            "verdict": verdict,
            "reason": reason,
            "takers": {kind: tuple(names) for kind, names in destinations.items()},
        }
        with self._database.transaction() as connection:
            if not _move(connection, job, done):
                return False
            replace_results(connection, job.job_id, results, now)
            plan_deliveries(connection, job.job_id, now, again=True)
            _keep_vectors(connection, job, vectors, now)
            withdraw(
                connection,
                scope=job.request.scope,
                model=job.request.model,
                but=job.job_id,
                now=now,
            )
            return True

    def retry(self, job: Job, *, at: datetime, error: str) -> bool:
        """RUNNING -> WAITING until `at`; the error is shown until the next end."""
        again = {"state": JobState.WAITING, "lease_until": None, "due_at": at, "reason": error}
        with self._database.transaction() as connection:
            return _move(connection, job, again)

    def fail(self, job: Job, *, error: str, now: datetime) -> bool:
        """RUNNING -> FAILED."""
        failed = {
            "state": JobState.FAILED,
            "lease_until": None,
            "finished_at": now,
            "reason": error,
        }
        with self._database.transaction() as connection:
            return _move(connection, job, failed)

    def release(self, job: Job) -> bool:
        """RUNNING -> WAITING as if it had not been claimed: a clean shutdown."""
        free = {
            "state": JobState.WAITING,
            "lease_until": None,
            "attempts": JOBS.c.attempts - 1,
        }
        with self._database.transaction() as connection:
            return _move(connection, job, free)

    def expired(self, now: datetime) -> tuple[Job, ...]:
        """The jobs RUNNING whose lease ended before `now`, taken from their workers: `retry` or `fail` them."""
        taken = (
            sa.update(JOBS)
            .where(JOBS.c.state == JobState.RUNNING, JOBS.c.lease_until < now)
            .values(token=JOBS.c.token + 1)
            .returning(JOBS.c.id)
        )
        with self._database.transaction() as connection:
            ids = connection.execute(taken).scalars().all()
            found = connection.execute(rows.JOB.where(JOBS.c.id.in_(ids)).order_by(JOBS.c.id))
            return tuple(rows.job(row) for row in found)

    def results(self, job_id: int) -> tuple[Result, ...]:
        """The current results of a job, in the order of sending; also of one that another supersedes."""
        query = (
            sa.select(RESULTS)
            .where(RESULTS.c.job_id == job_id, RESULTS.c.current)
            .order_by(RESULTS.c.place)
        )
        with self._database.read() as connection:
            return tuple(rows.result(row) for row in connection.execute(query))


def _job(connection: Connection, job_id: int) -> Job:
    return rows.job(connection.execute(rows.JOB.where(JOBS.c.id == job_id)).one())


def _move(connection: Connection, job: Job, values: Mapping[str, Any]) -> bool:
    """Changes the RUNNING row that still carries the job's token."""
    changed = connection.execute(
        sa.update(JOBS)
        .where(
            JOBS.c.id == job.job_id,
            JOBS.c.token == job.token,
            JOBS.c.state == JobState.RUNNING,
        )
        .values(**values)
    )
    return changed.rowcount == 1


def _keep_vectors(
    connection: Connection, job: Job, vectors: Sequence[Vector], now: datetime
) -> None:
    for vector in vectors:
        values = {"dimensions": vector.dimensions, "data": vector.data, "created_at": now}
        connection.execute(
            insert(connection, VECTORS)
            .values(
                series_id=job.request.series_id, kind=vector.kind, version=vector.version, **values
            )
            .on_conflict_do_update(index_elements=["series_id", "kind", "version"], set_=values)
        )
