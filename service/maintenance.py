"""What came is routed once complete, a job without its worker is taken up, what is done with goes.

Each sweep is a function of the time, may be ended at any point, and may run in several processes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service import log, routing
from service.config import Route
from service.retry import Failure, Policy, next_attempt
from service.routing import SeriesDecision
from storage import retention
from storage.catalog import Catalog
from storage.errors import CatalogueUnavailable
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Disposition, Job, SeriesArrival

FRESH = timedelta(minutes=10)  # bytes as new as this may belong to an object that comes again
STALE = timedelta(hours=6)  # a transfer that is not whole after this never will be
PURGED_AT_ONCE = 500
NEVER = datetime.min.replace(tzinfo=UTC)
CRASHED = "its worker ended or could not renew its lease"


Complete = Callable[..., bool]
"""`complete(arrivals, *, now, quiet)` of a module of service/triggers."""


@dataclass(slots=True, kw_only=True)
class Completion:
    """Routes a series, then a study, once it is quiet and the trigger calls it complete.

    Time in which nothing could come is not quiet, as an interrupted sender comes back: `since` this
    process looks or the catalogue answers again, and since a receiver last began to listen.
    """

    catalog: Catalog
    complete: Complete
    routes: Sequence[Route]
    series_quiet: timedelta
    study_quiet: timedelta
    since: datetime
    listening_since: Callable[[], datetime | None]

    def sweep(self, now: datetime) -> None:
        """Close every series that is ripe, then every study."""
        self.since = min(self.since, now)  # the clock may have been set back
        try:
            self._sweep(now)
        except CatalogueUnavailable:  # meanwhile every object was refused
            self.since = now
            raise

    def _sweep(self, now: datetime) -> None:
        for arrival in self.catalog.ripe_series(self._quiet_since(now, self.series_quiet)):
            if self.complete((arrival,), now=now, quiet=self.series_quiet):
                self._close_series(arrival, now)
        for study in self.catalog.ripe_studies(self._quiet_since(now, self.study_quiet)):
            if self.complete(study, now=now, quiet=self.study_quiet):
                self._close_study(study, now)

    def _quiet_since(self, now: datetime, quiet: timedelta) -> datetime:
        """What came last at or before this is ripe."""
        since = now - quiet
        return since if self._heard_since(now) <= since else NEVER

    def _heard_since(self, now: datetime) -> datetime:
        listening = self.listening_since()
        return self.since if listening is None or listening > now else max(self.since, listening)

    def _close_series(self, arrival: SeriesArrival, now: datetime) -> None:
        decision = self._decide(arrival)
        if not self.catalog.close_series(arrival, decision.jobs, decision.dispositions, now):
            return  # an instance came meanwhile: the next sweep sees it
        log.event(
            "series.complete",
            study_instance_uid=arrival.study_instance_uid,
            series_instance_uid=arrival.series_instance_uid,
            modality=arrival.modality,
            instances=arrival.instances,
            conflicts=arrival.conflicts,
            jobs=len(decision.jobs),
            seconds=(now - arrival.first_received_at).total_seconds(),
        )

    def _decide(self, arrival: SeriesArrival) -> SeriesDecision:
        """What becomes of a series; one that cannot be decided on says so and holds up no other."""
        try:
            return routing.decide_series(arrival, self.routes)
        except Exception as error:  # noqa: BLE001  (rim: the reason is shown at the series)
            log.failure("failure", error, detail="a series could not be routed")
            return undecided(
                arrival, f"routing failed: {type(error).__name__} at {log.place(error)}"
            )

    def _close_study(self, study: Sequence[SeriesArrival], now: datetime) -> None:
        decision = routing.decide_study(study, self.routes)
        if not self.catalog.close_study(study, decision.jobs, decision.dispositions, now):
            return
        log.event(
            "study.complete",
            study_instance_uid=study[0].study_instance_uid,
            count=len(study),
            jobs=len(decision.jobs),
        )


def undecided(arrival: SeriesArrival, reason: str) -> SeriesDecision:
    """No job, and the reason for it."""
    disposition = Disposition(
        series_id=arrival.series_id,
        state=routing.NOT_ANALYSED,
        route=None,
        model=None,
        reason=reason,
    )
    return SeriesDecision(arrival=arrival, decisions=(), jobs=(), dispositions=(disposition,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """Gives jobs whose worker fell silent another attempt, or fails them with the reason."""

    queue: Queue
    policy: Policy

    def sweep(self, now: datetime) -> None:
        """Rescue every job whose lease has expired."""
        for job in self.queue.expired(now):
            self._rescue(job, now)

    def _rescue(self, job: Job, now: datetime) -> None:
        at = next_attempt(
            job.attempts,
            failure=Failure.TRANSIENT,
            now=now,
            since=job.created_at,
            policy=self.policy,
            jitter=random.random(),  # noqa: S311  (spreads load, guards nothing)
        )
        if at is None:
            reason = f"{CRASHED}; given up after {job.attempts} attempts"
            self.queue.fail(job, error=reason, now=now)
        else:
            self.queue.retry(job, at=at, error=CRASHED)
        log.event(
            "job.rescued",
            job_id=job.job_id,
            model=job.request.model,
            attempts=job.attempts,
            outcome="failed" if at is None else "retry",
            reason=CRASHED,
            retry_at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """Work left by an earlier configuration says that nobody will do it; nothing of it is lost."""

    queue: Queue
    models: Sequence[str]
    destinations: Sequence[str]

    def sweep(self, now: datetime) -> None:
        """Tell it to all that waits."""
        del now
        self.queue.tell_unserved(models=self.models, destinations=self.destinations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Gives up received bytes that nothing needs: old ones, and others while the disk is full.

    Results and vectors stay. `free_bytes`: with less free disk, the oldest go before their time.
    """

    catalog: Catalog
    store: InstanceStore
    keep: timedelta
    free_bytes: int

    def sweep(self, now: datetime) -> None:
        """Forget sources in the catalogue, then remove their bytes from the store."""
        wanted = max(0, self.free_bytes - self.store.free_bytes())
        expendable = retention.expendable(
            self.catalog.retention_candidates(now), older_than=now - self.keep, wanted_bytes=wanted
        )
        for study in expendable:
            self._forget(study, now)
        self._purge(now)

    def _forget(self, study: retention.StudySources, now: datetime) -> None:
        keys = self.catalog.forget_sources(study.study_instance_uid, now)
        if not keys:
            return  # something needs it after all
        old = study.last_received_at < now - self.keep
        log.event(
            "retention",
            study_instance_uid=study.study_instance_uid,
            deleted=len(keys),
            bytes=study.size,
            reason="older than the configured days" if old else "the disk is below its watermark",
        )

    def _purge(self, now: datetime) -> None:
        """Remove bytes that were forgotten, also by a sweep that did not come to its end."""
        keys = self.catalog.unpurged(PURGED_AT_ONCE)
        while keys:
            gone = [key for key in keys if self.store.delete(key, unchanged_since=now - FRESH)]
            self.catalog.purged(gone)
            keys = self.catalog.unpurged(PURGED_AT_ONCE) if len(gone) == PURGED_AT_ONCE else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Removes what broken transfers left behind; their senders got no Success."""

    store: InstanceStore

    def sweep(self, now: datetime) -> None:
        """Remove `.part` files that nobody has written to for long."""
        if count := self.store.sweep_incoming(now - STALE):
            log.event("incoming.swept", count=count)
