"""What came is routed once complete, a job without its worker is taken up, what is done with goes.

Each sweep is a function of the time, may be ended at any point, and may run in several processes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service import log, routing
from service.config import Route
from service.retry import Failure, Policy, next_attempt
from storage.catalog import Catalog
from storage.queue import Queue
from storage.records import Job, SeriesArrival

CRASHED = "its worker ended or could not renew its lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Routes a series, then a study, once nothing came for it during the quiet period."""

    catalog: Catalog
    routes: Sequence[Route]
    series_quiet: timedelta
    study_quiet: timedelta

    def sweep(self, now: datetime) -> None:
        """Close every series that is ripe, then every study."""
        for arrival in self.catalog.ripe_series(now - self.series_quiet):
            self._close_series(arrival, now)
        for study in self.catalog.ripe_studies(now - self.study_quiet):
            self._close_study(study, now)

    def _close_series(self, arrival: SeriesArrival, now: datetime) -> None:
        decision = routing.decide_series(arrival, self.routes)
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
