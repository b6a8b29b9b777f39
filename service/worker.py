"""A claimed job ends done, to be tried again at a stated time, failed with its reason, or released.

This process never runs the science: it asks a child (service/child.py), keeps the job's lease alive
meanwhile, ends the child at the model's deadline, and records what comes back in one transaction.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service import log, processes
from service.child import Child, ChildEnded
from service.result_check import wrong
from service.retry import Failure, Policy, next_attempt
from service.stopping import Stop
from service.tasks import (
    Analysed,
    Answer,
    Computed,
    Durations,
    Failed,
    Predecessor,
    Ready,
    Setup,
    Task,
    Unreadable,
)
from storage.arrivals import combined, fingerprint
from storage.catalog import Catalog
from storage.errors import CatalogueUnavailable, OutOfSpace
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Effort, Instance, Job, Result, Vector, Verdict

Instances = tuple[Instance, ...]
Others = Mapping[str, Instances]
"""The instances of a job's further series, by their role."""

CLAIM_SECONDS = 0.1  # between two looks for work
ANSWER_SECONDS = 0.2  # between two looks at stop and lease
LATE = timedelta(seconds=5)  # a job whose series grows waits for what the series becomes
LATEST = timedelta(hours=1)  # and not for ever: instances may also have been given up
REPORT = "measurement_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How jobs are worked on.

    `deadlines`: model name -> seconds; `takers`: result kind -> destinations that take it.
    """

    worker: str
    deadlines: Mapping[str, float]
    takers: Mapping[str, tuple[str, ...]]
    lease: timedelta
    policy: Policy
    stop_seconds: float = 20.0  # for the job in hand, before it is released


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


class Worker:
    """Works jobs one after the other, with one warm child."""

    def __init__(
        self,
        *,
        queue: Queue,
        catalog: Catalog,
        store: InstanceStore,
        setup: Setup,
        terms: Terms,
        stop: Stop,
    ) -> None:
        self._queue = queue
        self._catalog = catalog
        self._store = store
        self._setup = setup
        self._models = {model.name: model for model in setup.models}
        self._terms = terms
        self._stop = stop
        self._child: Child | None = None

    def run(self, ready: Callable[[], None]) -> None:
        """Until told to stop; calls `ready` once the models are loaded."""
        try:
            self._warm_child()
            ready()
            while not self._stop.asked:
                if not self.step():
                    self._stop.wait(CLAIM_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    @property
    def child_process_id(self) -> int | None:
        """Of the child, None while there is none."""
        return None if self._child is None else self._child.process_id

    def step(self) -> bool:
        """Work one job if one is due; whether there was one. Claims only with a warm child."""
        child = self._warm_child()
        now = datetime.now(UTC)
        if child is None:
            return False
        job = self._queue.claim(
            worker=self._terms.worker,
            models=tuple(self._terms.deadlines),
            now=now,
            lease_until=now + self._terms.lease,
        )
        if job is None:
            return False
        self._attempt(child, job, now)
        return True

    def _attempt(self, child: Child, job: Job, now: datetime) -> None:
        began = time.monotonic()
        instances = self._catalog.instances(job.request.series_id)
        others = {
            role: self._catalog.instances(series_id)
            for role, series_id in job.request.inputs.items()
            if series_id != job.request.series_id
        }
        ending = (
            self._outdated(job)
            or self._unanalysable(job, instances, others)
            or self._analyse(child, job, instances, others)
        )
        log.event(
            "job",
            job_id=job.job_id,
            model=job.request.model,
            model_version=job.request.model_version,
            study_instance_uid=job.study_instance_uid,
            series_instance_uid=job.series_instance_uid,
            instances=len(instances) + sum(map(len, others.values())),
            attempts=job.attempts,
            generation=job.generation,
            outcome=ending.outcome,
            verdict=ending.verdict,
            reason=ending.reason,
            objects=ending.objects,
            bytes=ending.size,
            retry_at=ending.retry_at,
            wait_seconds=max(0.0, (now - job.due_at).total_seconds()),
            read_seconds=ending.durations.read,
            model_seconds=ending.durations.model,
            encode_seconds=ending.durations.encode,
            describe_seconds=ending.durations.describe,
            device=ending.computed.device,
            arithmetic=ending.computed.arithmetic,
            peak_bytes=ending.computed.peak_bytes,
            seconds=time.monotonic() - began,
        )

    def _outdated(self, job: Job) -> Ending | None:
        """The end of a job that was made for the model as it was before."""
        model = self._models[job.request.model]
        made_for = (job.request.model_version, job.request.configuration)
        if made_for == (model.version, model.configuration):
            return None
        kept = self._queue.renew(
            job,
            model_version=model.version,
            configuration=model.configuration,
            now=datetime.now(UTC),
        )
        reason = "the model was changed since; a job for it as it is now takes its place"
        return Ending(outcome="superseded" if kept else "lost", reason=reason)

    def _unanalysable(self, job: Job, instances: Instances, others: Others) -> Ending | None:
        """The end of a job whose instances are not those it was made for."""
        if not instances or not all(others.values()):
            return self._fail(job, "its instances are no longer in the store")
        if _fingerprint(job, instances, others) == job.request.fingerprint:
            return None
        now = datetime.now(UTC)
        if now - job.created_at > LATEST:
            return self._fail(job, "its instances are no longer those it was made for")
        at = now + LATE
        reason = "instances came since; waits until the series is complete again"
        kept = self._queue.retry(job, at=at, error=reason)
        return Ending(outcome="retry" if kept else "lost", reason=reason, retry_at=at)

    def _analyse(self, child: Child, job: Job, instances: Instances, others: Others) -> Ending:
        deadline = self._terms.deadlines[job.request.model]
        try:
            child.ask(self._task(job, instances, others), deadline_seconds=deadline)
            answer = self._answer(child, job)
        except ChildEnded as end:
            self._bury_child(str(end))
            return self._again(job, str(end))
        match answer:
            case Analysed():
                return self._refused(job, answer, instances) or self._keep(job, answer)
            case Unreadable():
                return self._quarantine(job, answer.reason)
            case Failed(final=True):
                return self._fail(job, answer.reason)
            case Failed():
                if answer.exhausted:
                    self._bury_child(answer.reason)
                return self._again(job, answer.reason)
            case Ending():
                self._bury_child(answer.outcome)
                return answer

    def _task(self, job: Job, instances: Instances, others: Others) -> Task:
        inputs = job.request.inputs
        return Task(
            model=job.request.model,
            paths=self._paths(instances),
            role=next((r for r, i in inputs.items() if i == job.request.series_id), ""),
            others={role: self._paths(found) for role, found in others.items()},
            fingerprint=job.request.fingerprint,
            generation=job.generation,
            predecessor=self._predecessor(job),
        )

    def _paths(self, instances: Instances) -> tuple[Path, ...]:
        return tuple(self._store.path(instance.key) for instance in instances)

    def _predecessor(self, job: Job) -> Predecessor | None:
        if job.supersedes is None:
            return None
        reports = [r for r in self._queue.results(job.supersedes) if r.kind == REPORT]
        return next((_predecessor(report) for report in reports), None)

    def _answer(self, child: Child, job: Job) -> Answer | Ending:
        """The child's answer, or how the job ended without one."""
        beat = time.monotonic()
        patience = _Patience(self._stop, self._terms.stop_seconds)
        while (answer := child.answer(seconds=ANSWER_SECONDS)) is None or isinstance(answer, Ready):
            if patience.ended():
                return self._release(job)
            if time.monotonic() - beat >= self._terms.lease.total_seconds() / 4:
                beat = time.monotonic()
                if not self._heartbeat(job):
                    return LOST
        return answer

    def _heartbeat(self, job: Job) -> bool:
        try:
            return self._queue.heartbeat(job, lease_until=datetime.now(UTC) + self._terms.lease)
        except CatalogueUnavailable as error:  # the token decides at the end
            log.failure("failure", error, detail="no heartbeat", job_id=job.job_id)
            return True

    def _refused(self, job: Job, analysed: Analysed, instances: Instances) -> Ending | None:
        """The end of a job whose objects are not results of its study."""
        problems = (wrong(made, source=instances[0]) for made in analysed.objects)
        reason = next((problem for problem in problems if problem is not None), None)
        return None if reason is None else self._fail(job, reason)

    def _keep(self, job: Job, analysed: Analysed) -> Ending:
        """Results to the store, then everything about them in one transaction."""
        try:
            results = self._write(analysed)
            done = self._queue.complete(
                job,
                verdict=Verdict(analysed.verdict),
                reason=analysed.reason,
                results=results,
                destinations=self._terms.takers,
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
        except OutOfSpace as error:
            return self._again(job, str(error))
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

    def _again(self, job: Job, error: str) -> Ending:
        """Another attempt later, or none: the policy decides."""
        now = datetime.now(UTC)
        at = next_attempt(
            job.attempts,
            failure=Failure.TRANSIENT,
            now=now,
            since=job.created_at,
            policy=self._terms.policy,
            jitter=random.random(),  # noqa: S311  (spreads load, guards nothing)
        )
        if at is None:
            return self._fail(job, given_up(error, job.attempts))
        kept = self._queue.retry(job, at=at, error=error)
        return Ending(outcome="retry" if kept else "lost", reason=error, retry_at=at)

    def _fail(self, job: Job, error: str) -> Ending:
        kept = self._queue.fail(job, error=error, now=datetime.now(UTC))
        return Ending(outcome="failed" if kept else "lost", reason=error)

    def _quarantine(self, job: Job, reason: str) -> Ending:
        if not self._heartbeat(job):
            return LOST
        now = datetime.now(UTC)
        self._catalog.quarantine_series(job.request.series_id, reason, now)
        log.event(
            "series.quarantined",
            study_instance_uid=job.study_instance_uid,
            series_instance_uid=job.series_instance_uid,
            reason=reason,
        )
        return replace(self._fail(job, reason), outcome="quarantined")

    def _release(self, job: Job) -> Ending:
        kept = self._queue.release(job)
        return Ending(outcome="released" if kept else "lost", reason="the node stops")

    def _warm_child(self) -> Child | None:
        """The child, its models loaded; None when told to stop meanwhile.

        When it ends while it loads the models it is started once more without: then the job
        that wants the broken one pays for it, and not the node. Raises ChildEnded when it
        ends again.
        """
        if self._child is not None and self._child.exit_code is not None:
            self._bury_child("ended while it had nothing to do")
        if self._child is None:
            try:
                self._start_child()
            except ChildEnded as end:
                self._bury_child(str(end))
                if not self._setup.preload:
                    raise
                self._setup = replace(self._setup, preload=False)
                self._start_child()
        return self._child

    def _start_child(self) -> None:
        began = time.monotonic()
        self._child = child = Child(self._setup)
        while (answer := child.answer(seconds=ANSWER_SECONDS)) is None:
            if self._stop.asked:
                self.close()
                return
        if isinstance(answer, Ready):
            for model, reason in answer.unavailable.items():
                log.event("model.unavailable", model=model, reason=reason)
        log.event(
            "child.started",
            process_id=child.process_id,
            count=len(self._setup.models),
            seconds=time.monotonic() - began,
        )

    def _bury_child(self, reason: str) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        exit_code = child.exit_code
        child.kill()
        log.event(
            "child.ended",
            process_id=child.process_id,
            exit_code=exit_code,
            signal=processes.signal_name(exit_code),
            reason=reason,
        )


class _Patience:
    """With the job in hand once the node stops: some seconds, none when it hurries."""

    def __init__(self, stop: Stop, seconds: float) -> None:
        self._stop = stop
        self._seconds = seconds
        self._until: float | None = None

    def ended(self) -> bool:
        if not self._stop.asked:
            return False
        if self._until is None:
            self._until = time.monotonic() + self._seconds
        return self._stop.hurried or time.monotonic() >= self._until


def given_up(error: str, attempts: int) -> str:
    """The reason of a job that is tried no more."""
    return error if attempts == 1 else f"{error}; given up after {attempts} attempts"


def _fingerprint(job: Job, instances: Instances, others: Others) -> str:
    """Of what the store has for a job, as the fingerprint of its request was made."""
    if not others:
        return _of_series(instances)
    found = {role: _of_series(others.get(role, instances)) for role in job.request.inputs}
    return combined(found)


def _of_series(instances: Instances) -> str:
    first = instances[0]
    members = ((instance.sop_instance_uid, instance.digest) for instance in instances)
    return fingerprint(first.study_instance_uid, first.series_instance_uid, members)


def _predecessor(report: Result) -> Predecessor:
    return Predecessor(
        sop_class_uid=report.sop_class_uid,
        sop_instance_uid=report.sop_instance_uid,
        series_instance_uid=report.series_instance_uid,
    )
