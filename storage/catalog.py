"""What was received is registered once and every series of it ends in a row; one method, one
transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage import arrivals, sources, states
from storage.closing import (
    cancel_stale,
    readable,
    replace_dispositions,
    request_jobs,
    standing,
)
from storage.database import Database, chunks, insert
from storage.overview import Counts, Overview, counts, overview
from storage.records import (
    Disposition,
    Instance,
    JobRequest,
    QuarantinedObject,
    Registration,
    SeriesArrival,
    SeriesState,
)
from storage.registration import identity, register
from storage.retention import StudySources
from storage.schema import DISPOSITIONS, INSTANCES, QUARANTINE, SERIES, STUDIES


class Catalog:
    """Instances, series and studies. Methods raise CatalogueUnavailable or OutOfSpace; then nothing
    changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, instances: Sequence[Instance]) -> tuple[Registration, ...]:
        """Registers a batch in one transaction; the answers are in the order of `instances`.

        The bytes must be on disk. After the return the rows survive a power cut.
        """
        if not instances:
            return ()
        with self._database.transaction() as connection:
            registered = register(connection, instances)
        seen: set[tuple[str, str]] = set()
        return tuple(_answer(registered, instance, seen) for instance in instances)

    def quarantine_object(self, quarantined: QuarantinedObject) -> None:
        """Records bytes that were refused; the same key again changes nothing."""
        with self._database.transaction() as connection:
            connection.execute(
                insert(connection, QUARANTINE)
                .values(
                    key=quarantined.key,
                    size=quarantined.size,
                    reason=quarantined.reason,
                    received_at=quarantined.received_at,
                    calling_ae_title=quarantined.calling_ae_title,
                )
                .on_conflict_do_nothing()
            )

    def quarantine_series(self, series_id: int, reason: str, now: datetime) -> bool:
        """COMPLETE -> QUARANTINED. False when it is RECEIVING (it is looked at again) or is
        already.

        Its study is routed anew: another series may be the best one now.
        """
        del now
        with self._database.transaction() as connection:
            study_id = _lock_study_of(connection, series_id)
            before = states.SERIES.sources("quarantine_series")
            quarantined = connection.execute(
                sa.update(SERIES)
                .where(SERIES.c.id == series_id, SERIES.c.state.in_(before))
                .values(state=SeriesState.QUARANTINED, reason=reason)
            )
            if quarantined.rowcount == 0:
                return False
            connection.execute(
                sa.update(STUDIES).where(STUDIES.c.id == study_id).values(routed=False)
            )
            return True

    def ripe_series(self, quiet_since: datetime) -> tuple[SeriesArrival, ...]:
        """The series RECEIVING whose last instance came at or before `quiet_since`, longest quiet
        first.
        """
        with self._database.read() as connection:
            return arrivals.ripe(connection, quiet_since)

    def ripe_studies(self, quiet_since: datetime) -> tuple[tuple[SeriesArrival, ...], ...]:
        """The studies quiet since then, with no series RECEIVING, that `close_study` has not seen
        as they are.
        """
        receiving = sa.exists().where(
            SERIES.c.study_id == STUDIES.c.id, SERIES.c.state == SeriesState.RECEIVING
        )
        query = (
            sa.select(STUDIES.c.id)
            .where(~STUDIES.c.routed, STUDIES.c.last_received_at <= quiet_since, ~receiving)
            .order_by(STUDIES.c.last_received_at, STUDIES.c.id)
        )
        with self._database.read() as connection:
            ids = connection.execute(query).scalars().all()
            return tuple(arrivals.of_study(connection, study_id) for study_id in ids)

    def close_series(
        self,
        arrival: SeriesArrival,
        jobs: Sequence[JobRequest],
        dispositions: Sequence[Disposition],
        now: datetime,
    ) -> bool:
        """RECEIVING -> COMPLETE with its jobs and dispositions; False, and nothing done, when it
        changed since.

        A job that exists is left alone and gains routes and destinations. Earlier jobs of the
        series, or of the same scope and model, are cancelled unless they are DONE; what is
        undelivered of those is withdrawn when the new job is DONE.
        """
        with self._database.transaction() as connection:
            study_id = _lock_study_of(connection, arrival.series_id)
            if study_id is None or not _unchanged(connection, arrival, SeriesState.RECEIVING):
                return False
            connection.execute(
                sa.update(SERIES)
                .where(SERIES.c.id == arrival.series_id)
                .values(
                    state=SeriesState.COMPLETE,
                    fingerprint=arrival.fingerprint,
                    attributes=arrival.attributes,
                )
            )
            connection.execute(
                sa.delete(DISPOSITIONS).where(DISPOSITIONS.c.series_id == arrival.series_id)
            )
            cancel_stale(connection, arrival.series_id, arrival.fingerprint, now)
            request_jobs(connection, jobs, now)
            replace_dispositions(connection, dispositions, now)
            return True

    def close_study(
        self,
        study: Sequence[SeriesArrival],
        jobs: Sequence[JobRequest],
        dispositions: Sequence[Disposition],
        now: datetime,
    ) -> bool:
        """The study is routed with its jobs and dispositions; False, and nothing done, when it
        changed since.

        Of the dispositions of its series, those of the routes named in `jobs` and `dispositions`
        and those "waiting" are replaced. Call it with no jobs when no route looks at whole studies.
        """
        with self._database.transaction() as connection:
            study_id = _lock_study_of(connection, study[0].series_id)
            if study_id is None or not _study_unchanged(connection, study_id, study):
                return False
            connection.execute(
                sa.update(STUDIES).where(STUDIES.c.id == study_id).values(routed=True)
            )
            _drop_dispositions(connection, study, _routes(jobs, dispositions))
            request_jobs(connection, jobs, now)
            replace_dispositions(connection, dispositions, now)
            return True

    def study(self, study_instance_uid: str) -> tuple[SeriesArrival, ...]:
        """The series of a study as they were closed; () when there is no such study."""
        query = sa.select(STUDIES.c.id).where(STUDIES.c.study_instance_uid == study_instance_uid)
        with self._database.read() as connection:
            study_id = connection.execute(query).scalar_one_or_none()
            return () if study_id is None else arrivals.of_study(connection, study_id)

    def route_again(
        self,
        study: Sequence[SeriesArrival],
        jobs: Sequence[JobRequest],
        dispositions: Sequence[Disposition],
        now: datetime,
        *,
        model: str | None = None,
    ) -> tuple[JobRequest, ...] | None:
        """A study that was routed is routed by other routes: the jobs that are new; None, and
        nothing done, when it is not routed yet or changed since.

        `jobs` and `dispositions`: of all its series, or those of one `model` and of none. A job
        that exists is left alone and gains routes and destinations. Jobs that other routes asked
        for stay, and are then what became of their series: it gets no disposition beside them.
        """
        with self._database.transaction() as connection:
            study_id = _lock_study_of(connection, study[0].series_id)
            if study_id is None or not _routed(connection, study_id, study):
                return None
            asked, refused = readable(connection, jobs)
            said = (*dispositions, *refused)
            touched = {job.series_id for job in asked} | {one.series_id for one in said}
            _drop_replaced(connection, study, touched, model)
            new = request_jobs(connection, asked, now)
            replace_dispositions(connection, _needed(connection, study, said), now)
            return new

    def instances(self, series_id: int) -> tuple[Instance, ...]:
        """The instances that may be analysed (no conflicts, bytes in the store), in the order they
        came.
        """
        with self._database.read() as connection:
            return arrivals.instances(connection, series_id)

    def all_instances(self, series_id: int) -> tuple[Instance, ...]:
        """The same with those in conflict."""
        with self._database.read() as connection:
            return arrivals.instances(connection, series_id, conflicts=True)

    def overview(
        self, study_instance_uid: str | None = None, *, latest: int | None = None
    ) -> Overview:
        """What came and what became of it: of one study, the `latest` studies, or all."""
        with self._database.read() as connection:
            return overview(connection, study_instance_uid, latest)

    def counts(self) -> Counts:
        """The numbers for /metrics."""
        with self._database.read() as connection:
            return counts(connection)

    def retention_candidates(self, now: datetime) -> tuple[StudySources, ...]:
        """The studies with bytes in the store, come before `now`, for `retention.expendable`."""
        with self._database.read() as connection:
            found = sources.candidates(connection)
        return tuple(study for study in found if study.last_received_at <= now)

    def forget_sources(self, study_instance_uid: str, now: datetime) -> tuple[str, ...]:
        """Gives up the received bytes of a study: their keys; () when something holds them after
        all.

        The rows stay, so that a fingerprint stays. Delete the keys of `unpurged`, then tell
        `purged`.
        """
        with self._database.transaction() as connection:
            _lock_study(connection, study_instance_uid)
            return sources.forget(connection, study_instance_uid, now)

    def unpurged(self, limit: int = 1000) -> tuple[str, ...]:
        """Keys given up whose bytes may still be in the store, also after a crash."""
        with self._database.read() as connection:
            return sources.unpurged(connection, limit)

    def purged(self, keys: Sequence[str]) -> None:
        """The store has the bytes of these keys no more."""
        with self._database.transaction() as connection:
            for part in chunks(keys):
                connection.execute(
                    sa.update(INSTANCES)
                    .where(INSTANCES.c.key.in_(part), INSTANCES.c.forgotten_at.is_not(None))
                    .values(purged=True)
                )


def _answer(
    registered: dict[tuple[str, str], Registration],
    instance: Instance,
    seen: set[tuple[str, str]],
) -> Registration:
    if identity(instance) in seen:
        return Registration.DUPLICATE
    seen.add(identity(instance))
    return registered[identity(instance)]


def _lock_study_of(connection: Connection, series_id: int) -> int | None:
    """The study's row is the lock of all that belongs to it: to register or close is to hold it."""
    of_series = sa.select(SERIES.c.study_id).where(SERIES.c.id == series_id).scalar_subquery()
    query = sa.select(STUDIES.c.id).where(STUDIES.c.id == of_series)
    return connection.execute(query.with_for_update(key_share=True)).scalar_one_or_none()


def _lock_study(connection: Connection, study_instance_uid: str) -> None:
    query = sa.select(STUDIES.c.id).where(STUDIES.c.study_instance_uid == study_instance_uid)
    connection.execute(query.with_for_update(key_share=True))


def _unchanged(connection: Connection, arrival: SeriesArrival, state: SeriesState) -> bool:
    now = connection.execute(
        sa.select(SERIES.c.state).where(SERIES.c.id == arrival.series_id)
    ).scalar_one_or_none()
    if now is not state:
        return False
    return arrivals.current_fingerprint(connection, arrival.series_id) == arrival.fingerprint


def _study_unchanged(connection: Connection, study_id: int, study: Sequence[SeriesArrival]) -> bool:
    rows = connection.execute(
        sa.select(SERIES.c.id, SERIES.c.state).where(SERIES.c.study_id == study_id)
    ).all()
    if {(row.id, row.state) for row in rows} != {(one.series_id, one.state) for one in study}:
        return False
    return all(_unchanged(connection, one, one.state) for one in study)


def _routed(connection: Connection, study_id: int, study: Sequence[SeriesArrival]) -> bool:
    routed = connection.execute(sa.select(STUDIES.c.routed).where(STUDIES.c.id == study_id))
    closed = all(one.state is not SeriesState.RECEIVING for one in study)
    return routed.scalar_one() and closed and _study_unchanged(connection, study_id, study)


def _drop_replaced(
    connection: Connection,
    study: Sequence[SeriesArrival],
    touched: Iterable[int],
    model: str | None,
) -> None:
    """Removes what was said of the series: all, or of one model and, if it is there, of none."""
    of_study = DISPOSITIONS.c.series_id.in_([one.series_id for one in study])
    of_none = sa.and_(DISPOSITIONS.c.model.is_(None), DISPOSITIONS.c.series_id.in_(touched))
    which = sa.true() if model is None else sa.or_(DISPOSITIONS.c.model == model, of_none)
    connection.execute(sa.delete(DISPOSITIONS).where(of_study, which))


def _needed(
    connection: Connection, study: Sequence[SeriesArrival], said: Sequence[Disposition]
) -> Iterator[Disposition]:
    """Those of series of which nothing else is said: of the model, or of any when of none."""
    series = [one.series_id for one in study]
    jobs = standing(connection, series)
    kept = sa.select(DISPOSITIONS.c.series_id).where(DISPOSITIONS.c.series_id.in_(series))
    of_any = {series_id for series_id, _ in jobs} | {*connection.execute(kept).scalars()}
    for one in said:
        known = one.series_id in of_any if one.model is None else (one.series_id, one.model) in jobs
        if not known:
            yield one


def _routes(
    jobs: Iterable[JobRequest], dispositions: Iterable[Disposition]
) -> frozenset[str | None]:
    of_jobs = {route for job in jobs for route in job.routes}
    return frozenset(of_jobs | {one.route for one in dispositions if one.route is not None})


def _drop_dispositions(
    connection: Connection, study: Sequence[SeriesArrival], routes: frozenset[str | None]
) -> None:
    connection.execute(
        sa.delete(DISPOSITIONS).where(
            DISPOSITIONS.c.series_id.in_([one.series_id for one in study]),
            sa.or_(DISPOSITIONS.c.route.in_(routes), DISPOSITIONS.c.state == "waiting"),
        )
    )
