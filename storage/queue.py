"""A job is done by one worker at a time, and what a worker finishes is whole: each arrow is one
fenced transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import claims, outbox, rows, states
from storage.closing import request_jobs, superseded
from storage.database import Database, insert, lock
from storage.planning import plan_deliveries, replace_results, withdraw
from storage.records import (
    UNKNOWN_EFFORT,
    Delivery,
    DeliveryState,
    Effort,
    Job,
    JobState,
    Result,
    SeriesState,
    Vector,
    Verdict,
)
from storage.schema import DELIVERIES, INSTANCES, JOBS, RESULTS, SERIES, STUDIES, VECTORS


class Queue:
    """Jobs. A method that takes a Job answers False, and changes nothing, when its token is not the
    row's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        *,
        worker: str,
        models: Sequence[str],
        now: datetime,
        lease_until: datetime,
        reserved: Job | None = None,
    ) -> Job | None:
        """WAITING -> RUNNING for the most urgent job of these models that is due; None when there
        is none, which is found out without keeping anybody from writing.

        Of those alike `reserved`, this worker's own, comes first, and last what others reserved.
        """
        with self._database.read() as connection:
            if claims.most_urgent(connection, models=models, now=now) is None:
                return None
        with self._database.transaction() as connection:
            job_id = claims.claim(
                connection,
                worker=worker,
                models=models,
                now=now,
                lease_until=lease_until,
                reserved=reserved,
            )
            return None if job_id is None else _job(connection, job_id)

    def reserve(
        self, *, worker: str, models: Sequence[str], now: datetime, until: datetime
    ) -> Job | None:
        """The job that this worker will claim next stays WAITING and is noted as read ahead; None
        when there is none, or it was tried before.

        Nobody is kept from claiming it. It costs no attempt, and after `until` it never was.
        """
        with self._database.read() as connection:
            if connection.execute(claims.reservable(models, now)).first() is None:
                return None
        with self._database.transaction() as connection:
            job_id = claims.reserve(connection, worker=worker, models=models, now=now, until=until)
            return None if job_id is None else _job(connection, job_id)

    def keep_reserved(self, job: Job, *, until: datetime) -> bool:
        """The worker lives. False: the job was claimed by another, superseded or reserved anew."""
        with self._database.transaction() as connection:
            return _move(connection, job, "reserve", {"lease_until": until})

    def unreserve(self, job: Job) -> bool:
        """As if it had not been reserved."""
        with self._database.transaction() as connection:
            return _move(connection, job, "reserve", {"lease_until": None})

    def heartbeat(self, job: Job, *, lease_until: datetime) -> bool:
        """The worker lives: the lease is longer. False: the job was lost, cancelled or rescued."""
        with self._database.transaction() as connection:
            return _move(connection, job, "heartbeat", {"lease_until": lease_until})

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
        effort: Effort = UNKNOWN_EFFORT,
    ) -> bool:
        """RUNNING -> DONE with its results, their deliveries and the vectors of its series, all or
        nothing.

        `results` are in the order of sending: one that refers to another comes after it.
        `destinations`: for each result kind the destinations that take it, of all that are
        configured; those the job names get a delivery. What is undelivered of the jobs it
        supersedes is withdrawn.
        """
        done = {
            "state": JobState.DONE,
            "lease_until": None,
            "finished_at": now,
            "verdict": verdict,
            "reason": reason,
            "takers": {kind: tuple(names) for kind, names in destinations.items()},
            "device": effort.device,
            "arithmetic": effort.arithmetic,
            "peak_bytes": effort.peak_bytes,
            "model_seconds": effort.seconds,
        }
        with self._database.transaction() as connection:
            if not _move(connection, job, "complete", done):
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
            return _move(connection, job, "retry", again)

    def fail(self, job: Job, *, error: str, now: datetime) -> bool:
        """RUNNING -> FAILED."""
        failed = {
            "state": JobState.FAILED,
            "lease_until": None,
            "finished_at": now,
            "reason": error,
        }
        with self._database.transaction() as connection:
            return _move(connection, job, "fail", failed)

    def release(self, job: Job) -> bool:
        """RUNNING -> WAITING as if it had not been claimed: a clean shutdown."""
        free = {
            "state": JobState.WAITING,
            "lease_until": None,
            "attempts": JOBS.c.attempts - 1,
        }
        with self._database.transaction() as connection:
            return _move(connection, job, "release", free)

    def renew(self, job: Job, *, model_version: str, configuration: str, now: datetime) -> bool:
        """RUNNING -> CANCELLED; a job for the model as it is now supersedes it."""
        request = replace(job.request, model_version=model_version, configuration=configuration)
        with self._database.transaction() as connection:
            connection.execute(
                sa.select(STUDIES.c.id)
                .where(STUDIES.c.study_instance_uid == job.study_instance_uid)
                .with_for_update(key_share=True)
            )
            if not _move(connection, job, "supersede", {"lease_until": None}):
                return False
            request_jobs(connection, [request], now)
            return True

    def expired(self, now: datetime) -> tuple[Job, ...]:
        """The jobs RUNNING whose lease ended before `now`, taken from their workers: `retry` or
        `fail` them.
        """
        taken = (
            sa.update(JOBS)
            .where(JOBS.c.state.in_(states.JOBS.sources("expired")), JOBS.c.lease_until < now)
            .values(token=JOBS.c.token + 1)
            .returning(JOBS.c.id)
        )
        with self._database.transaction() as connection:
            ids = connection.execute(taken).scalars().all()
            found = connection.execute(rows.JOB.where(JOBS.c.id.in_(ids)).order_by(JOBS.c.id))
            return tuple(rows.job(row) for row in found)

    def requeue(
        self,
        *,
        now: datetime,
        study: str | None = None,
        failed: bool = False,
        model: str | None = None,
    ) -> int:
        """DONE | FAILED -> WAITING: of a study, or (`failed`) all that FAILED; the number of jobs.

        Left out are superseded jobs and those whose sources were given up. Results stay until the
        job is DONE again. A series in quarantine is COMPLETE again.
        """
        if study is None and not failed:
            raise ValueError("requeue: name a study, or failed=True")
        before = (JobState.FAILED,) if failed else states.JOBS.sources("requeue")
        chosen = sa.select(JOBS.c.id).where(JOBS.c.state.in_(before), ~superseded(), ~_gone())
        if study is not None:
            chosen = chosen.where(JOBS.c.series_id.in_(_series_of(study)))
        if model is not None:
            chosen = chosen.where(JOBS.c.model == model)
        with self._database.transaction() as connection:
            return _requeue(connection, connection.execute(chosen).scalars().all(), now)

    def tell_unserved(self, *, models: Sequence[str], destinations: Sequence[str]) -> None:
        """What waits for another model or destination than these, which are all there are, says so.

        It stays WAITING or DUE: a configuration that names them again serves it.
        """
        jobs = JOBS.c.state == JobState.WAITING, JOBS.c.model.not_in(models)
        deliveries = (
            DELIVERIES.c.state == DeliveryState.DUE,
            DELIVERIES.c.destination.not_in(destinations),
        )
        with self._database.transaction() as connection:
            for name in connection.execute(
                sa.select(JOBS.c.model).where(*jobs).distinct()
            ).scalars():
                connection.execute(
                    sa.update(JOBS)
                    .where(*jobs, JOBS.c.model == name)
                    .values(reason=f"waits, as no model {name!r} is configured")
                )
            names = sa.select(DELIVERIES.c.destination).where(*deliveries).distinct()
            for name in connection.execute(names).scalars():
                connection.execute(
                    sa.update(DELIVERIES)
                    .where(*deliveries, DELIVERIES.c.destination == name)
                    .values(last_error=f"waits, as no destination {name!r} is configured")
                )

    def results(self, job_id: int) -> tuple[Result, ...]:
        """The current results of a job, in the order of sending; also of one that another
        supersedes.
        """
        query = (
            sa.select(RESULTS)
            .where(RESULTS.c.job_id == job_id, RESULTS.c.current)
            .order_by(RESULTS.c.place)
        )
        with self._database.read() as connection:
            return tuple(rows.result(row) for row in connection.execute(query))

    def claim_deliveries(
        self, destination: str, *, now: datetime, lease_until: datetime, limit: int
    ) -> tuple[Delivery, ...]:
        """Leases what is due there, most urgent and oldest job first, each job's objects in order.

        An object is given only when those of its job before it were sent there, or come before it
        in the answer. That there is nothing is found out without keeping anybody from writing.
        """
        with self._database.read() as connection:
            if not outbox.is_due(connection, destination, now=now):
                return ()
        with self._database.transaction() as connection:
            lock(connection, f"deliveries to {destination}")
            return outbox.claim(
                connection, destination, now=now, lease_until=lease_until, limit=limit
            )

    def delivered(self, delivery: Delivery, state: DeliveryState, now: datetime) -> bool:
        """DUE -> SENT or COMMITTED, SENT -> COMMITTED; also when it was withdrawn on its way."""
        with self._database.transaction() as connection:
            return outbox.delivered(connection, delivery, state, now)

    def delivery_retry(self, delivery: Delivery, at: datetime, error: str) -> bool:
        """DUE again at `at`, with the error."""
        again = {"due_at": at, "lease_until": None, "last_error": error}
        with self._database.transaction() as connection:
            return outbox.move(connection, delivery, "delivery_retry", again)

    def delivery_failed(self, delivery: Delivery, error: str) -> bool:
        """DUE -> FAILED, with those of its job to that destination that come after it and refer to
        it.
        """
        with self._database.transaction() as connection:
            return outbox.failed(connection, delivery, error)

    def delivery_heartbeat(self, deliveries: Sequence[Delivery], *, lease_until: datetime) -> int:
        """The sender lives: longer leases; the number of those it still has."""
        longer = {"lease_until": lease_until}
        with self._database.transaction() as connection:
            return sum(outbox.move(connection, d, "claim_deliveries", longer) for d in deliveries)

    def delivery_release(self, deliveries: Sequence[Delivery]) -> int:
        """As if they had not been claimed (clean shutdown, or the destination did not answer at
        all).
        """
        free = outbox.UNCLAIMED
        with self._database.transaction() as connection:
            return sum(outbox.move(connection, d, "delivery_release", free) for d in deliveries)

    def delivery_hasten(self, destination: str, *, now: datetime) -> int:
        """What waits there for a later attempt is DUE now, as it takes objects again; how many."""
        with self._database.transaction() as connection:
            return outbox.hasten(connection, destination, now)

    def redeliver(
        self,
        *,
        now: datetime,
        study: str | None = None,
        failed: bool = False,
        destination: str | None = None,
    ) -> int:
        """SENT | COMMITTED | FAILED -> DUE: of a study, or (`failed`) all that FAILED; their
        number.
        """
        if study is None and not failed:
            raise ValueError("redeliver: name a study, or failed=True")
        chosen = None if study is None else _series_of(study)
        with self._database.transaction() as connection:
            return outbox.redeliver(
                connection, chosen, failed=failed, destination=destination, now=now
            )


def _job(connection: Connection, job_id: int) -> Job:
    return rows.job(connection.execute(rows.JOB.where(JOBS.c.id == job_id)).one())


def _move(connection: Connection, job: Job, verb: str, values: Mapping[str, Any]) -> bool:
    """Changes the row if it still carries the job's token and is in a state that the verb starts
    from.
    """
    changed = connection.execute(
        sa.update(JOBS)
        .where(
            JOBS.c.id == job.job_id,
            JOBS.c.token == job.token,
            JOBS.c.state.in_(states.JOBS.sources(verb)),
        )
        .values(**values)
    )
    return changed.rowcount == 1


def _requeue(connection: Connection, job_ids: Sequence[int], now: datetime) -> int:
    requeued = connection.execute(
        sa.update(JOBS)
        .where(JOBS.c.id.in_(job_ids), JOBS.c.state.in_(states.JOBS.sources("requeue")))
        .values(
            state=JobState.WAITING,
            token=JOBS.c.token + 1,
            attempts=0,
            due_at=now,
            finished_at=None,
            verdict=None,
            reason=None,
        )
        .returning(JOBS.c.series_id)
    )
    series = requeued.scalars().all()
    connection.execute(
        sa.update(SERIES)
        .where(SERIES.c.id.in_(series), SERIES.c.state.in_(states.SERIES.sources("requeue")))
        .values(state=SeriesState.COMPLETE, reason=None)
    )
    return len(series)


def _gone() -> sa.Exists:
    return sa.exists().where(
        INSTANCES.c.series_id == JOBS.c.series_id, INSTANCES.c.forgotten_at.is_not(None)
    )


def _series_of(study: str) -> sa.Select[int]:
    return (
        sa.select(SERIES.c.id)
        .join(STUDIES, SERIES.c.study_id == STUDIES.c.id)
        .where(STUDIES.c.study_instance_uid == study)
    )


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
