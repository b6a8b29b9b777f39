"""An attempt ends in one way, in one transaction, which a worker that lost its job cannot do."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from service import log
from service.result_check import wrong
from service.retry import Failure, Policy, next_attempt
from service.tasks import Analysed, Computed, Durations
from storage.catalog import Catalog
from storage.errors import OutOfSpace
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Effort, Instance, Job, Result, Vector, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended: the canonical line of the log says it."""

    outcome: str  # done, retry, failed, quarantined, superseded, lost, released
    reason: str | None = None
    verdict: str | None = None
    retry_at: datetime | None = None
    objects: int = 0
    size: int = 0  # bytes of the result objects
    durations: Durations = field(default_factory=Durations)  # of the steps of an analysis
    computed: Computed = field(default_factory=Computed)


LOST = Ending(outcome="lost", reason="superseded, or taken by another worker")


class Endings:
    """What becomes of a job, in the catalogue and the store.

    `takers`: result kind -> destinations that take it.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        catalog: Catalog,
        store: InstanceStore,
        takers: Mapping[str, tuple[str, ...]],
        policy: Policy,
    ) -> None:
        self._queue = queue
        self._catalog = catalog
        self._store = store
        self._takers = takers
        self._policy = policy

    def analysed(self, job: Job, analysed: Analysed, source: Instance) -> Ending:
        """Done, unless objects are no results of the study of `source`.

        Results go to the store, then everything about them into one transaction.
        """
        problems = (wrong(made, source=source) for made in analysed.objects)
        reason = next((problem for problem in problems if problem is not None), None)
        if reason is not None:
            return self.failed(job, reason)
        try:
            return self._keep(job, analysed)
        except OutOfSpace as error:
            return self.again(job, str(error))

    def again(self, job: Job, error: str) -> Ending:
        """Another attempt later, or none: the policy decides."""
        at = next_attempt(
            job.attempts,
            failure=Failure.TRANSIENT,
            now=datetime.now(UTC),
            since=job.created_at,
            policy=self._policy,
            jitter=random.random(),  # noqa: S311  (spreads load, guards nothing)
        )
        if at is None:
            return self.failed(job, given_up(error, job.attempts))
        return self.later(job, error, at=at)

    def later(self, job: Job, reason: str, *, at: datetime) -> Ending:
        """Another attempt then."""
        kept = self._queue.retry(job, at=at, error=reason)
        return Ending(outcome="retry" if kept else "lost", reason=reason, retry_at=at)

    def failed(self, job: Job, error: str) -> Ending:
        """No other attempt."""
        kept = self._queue.fail(job, error=error, now=datetime.now(UTC))
        return Ending(outcome="failed" if kept else "lost", reason=error)

    def quarantined(self, job: Job, reason: str) -> Ending:
        """Failed, and so has its series, for which the worker must still have the job."""
        now = datetime.now(UTC)
        self._catalog.quarantine_series(job.request.series_id, reason, now)
        log.event(
            "series.quarantined",
            study_instance_uid=job.study_instance_uid,
            series_instance_uid=job.series_instance_uid,
            reason=reason,
        )
        return replace(self.failed(job, reason), outcome="quarantined")

    def renewed(self, job: Job, *, version: str, configuration: str) -> Ending:
        """A job for the model as it is now takes its place."""
        kept = self._queue.renew(
            job, model_version=version, configuration=configuration, now=datetime.now(UTC)
        )
        reason = "the model was changed since; a job for it as it is now takes its place"
        return Ending(outcome="superseded" if kept else "lost", reason=reason)

    def released(self, job: Job, reason: str) -> Ending:
        """As if it had not been claimed."""
        kept = self._queue.release(job)
        return Ending(outcome="released" if kept else "lost", reason=reason)

    def _keep(self, job: Job, analysed: Analysed) -> Ending:
        results = self._write(analysed)
        done = self._queue.complete(
            job,
            verdict=Verdict(analysed.verdict),
            reason=analysed.reason,
            results=results,
            destinations=self._takers,
            vectors=[
                Vector(
                    kind=vector.kind,
                    version=vector.version,
                    dimensions=vector.dimensions,
                    data=vector.data,
                )
                for vector in analysed.vectors
            ],
            now=datetime.now(UTC),
            effort=Effort(
                device=analysed.computed.device,
                arithmetic=analysed.computed.arithmetic,
                peak_bytes=analysed.computed.peak_bytes,
                seconds=analysed.durations.model,
            ),
        )
        return Ending(
            outcome="done" if done else "lost",
            verdict=analysed.verdict,
            reason=analysed.reason,
            objects=len(results),
            size=sum(result.size for result in results),
            durations=analysed.durations,
            computed=analysed.computed,
        )

    def _write(self, analysed: Analysed) -> list[Result]:
        results = []
        for produced in analysed.objects:
            key, digest, size = self._store.write_result(produced.data)
            results.append(
                Result(
                    kind=produced.kind,
                    sop_class_uid=produced.sop_class_uid,
                    sop_instance_uid=produced.sop_instance_uid,
                    series_instance_uid=produced.series_instance_uid,
                    digest=digest,
                    key=key,
                    size=size,
                )
            )
        return results


def given_up(error: str, attempts: int) -> str:
    """The reason of a job that is tried no more."""
    return error if attempts == 1 else f"{error}; given up after {attempts} attempts"
