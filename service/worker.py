"""A claimed job ends done, to be tried again at a stated time, failed with its reason, or released.

This process never runs the science: it asks a child (service/child.py), keeps the job's lease alive
meanwhile, ends the child at the model's deadline, and records what comes back in one transaction.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service import log
from service.assignment import REPORT, Assignment, assigned
from service.child import Child, ChildEnded
from service.endings import LOST, Ending, Endings
from service.next_job import NextJob
from service.retry import Policy
from service.stopping import Stop
from service.tasks import Analysed, Answer, Failed, Ready, Setup, Task, Unreadable
from service.warm_child import WarmChild
from storage.catalog import Catalog
from storage.errors import CatalogueUnavailable, OutOfSpace
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Job

CLAIM_SECONDS = 0.1  # between two looks for work
ANSWER_SECONDS = 0.2  # between two looks at stop and lease
LATE = timedelta(seconds=5)  # a job whose series grows waits for what the series becomes
LATEST = timedelta(hours=1)  # and not for ever: instances may also have been given up
NOT_ALONE = "may still read for another job; what is tried again runs alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How jobs are worked on.

    `deadlines`: model name -> seconds; `takers`: result kind -> destinations that take it;
    `read_ahead`: the next study may be read while one is computed.
    """

    worker: str
    deadlines: Mapping[str, float]
    takers: Mapping[str, tuple[str, ...]]
    lease: timedelta
    policy: Policy
    stop_seconds: float = 20.0  # for the job in hand, before it is released
    read_ahead: bool = True


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
        self._models = {model.name: model for model in setup.models}
        self._terms = terms
        self._stop = stop
        self._child = WarmChild(setup, stop)
        self._endings = Endings(
            queue=queue, catalog=catalog, store=store, takers=terms.takers, policy=terms.policy
        )
        self._next = NextJob(
            queue=queue,
            worker=terms.worker,
            models=tuple(terms.deadlines),
            lease=terms.lease,
            policy=terms.policy,
            task=self._task_ahead,
        )

    def run(self, ready: Callable[[], None]) -> None:
        """Until told to stop; calls `ready` once the models are loaded."""
        try:
            self._child.warm()
            ready()
            while not self._stop.asked:
                if not self.step():
                    self._stop.wait(CLAIM_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """End the child."""
        self._child.close()
        self._next.give_up(None)

    @property
    def child_process_id(self) -> int | None:
        """Of the child, None while there is none."""
        return self._child.process_id

    def step(self) -> bool:
        """Work one job if one is due; whether there was one. Claims only with a warm child."""
        child = self._child.warm()
        now = datetime.now(UTC)
        if child is None:
            return False
        job = self._queue.claim(
            worker=self._terms.worker,
            models=tuple(self._terms.deadlines),
            now=now,
            lease_until=now + self._terms.lease,
            reserved=self._next.job,
        )
        if job is None:
            self._next.give_up(child)
            return False
        self._next.claimed(job)
        self._attempt(child, job, now)
        return True

    def _attempt(self, child: Child, job: Job, now: datetime) -> None:
        began = time.monotonic()
        work = assigned(job, self._catalog)
        ending = self._outdated(job) or self._unanalysable(work) or self._analyse(child, work)
        log.event(
            "job",
            job_id=job.job_id,
            model=job.request.model,
            model_version=job.request.model_version,
            study_instance_uid=job.study_instance_uid,
            series_instance_uid=job.series_instance_uid,
            instances=work.count,
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
            read_ahead_seconds=ending.durations.read_ahead,
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
        if self._is_current(job):
            return None
        model = self._models[job.request.model]
        return self._endings.renewed(job, version=model.version, configuration=model.configuration)

    def _is_current(self, job: Job) -> bool:
        model = self._models[job.request.model]
        made_for = (job.request.model_version, job.request.configuration)
        return made_for == (model.version, model.configuration)

    def _unanalysable(self, work: Assignment) -> Ending | None:
        """The end of a job whose instances are not those it was made for."""
        if not work.is_there:
            return self._endings.failed(work.job, "its instances are no longer in the store")
        if work.is_as_made:
            return None
        now = datetime.now(UTC)
        if now - work.job.created_at > LATEST:
            reason = "its instances are no longer those it was made for"
            return self._endings.failed(work.job, reason)
        reason = "instances came since; waits until the series is complete again"
        return self._endings.later(work.job, reason, at=now + LATE)

    def _analyse(self, child: Child, work: Assignment) -> Ending:
        job = work.job
        if not self._next.leaves_alone(job):
            self._bury_child(NOT_ALONE)
            return self._endings.released(job, NOT_ALONE)
        try:
            deadline = self._terms.deadlines[job.request.model]
            child.ask(self._task(work), deadline_seconds=deadline)
            answer = self._answer(child, job)
        except ChildEnded as end:
            self._bury_child(str(end))
            return self._endings.again(job, str(end))
        match answer:
            case Analysed():
                return self._endings.analysed(job, answer, work.instances[0])
            case Unreadable():
                return self._quarantine(job, answer.reason)
            case Failed(final=True):
                return self._endings.failed(job, answer.reason)
            case Failed():
                if answer.exhausted:
                    self._bury_child(answer.reason)
                return self._endings.again(job, answer.reason)
            case Ending():
                self._bury_child(answer.outcome)
                return answer

    def _task(self, work: Assignment) -> Task:
        earlier = work.job.supersedes
        results = () if earlier is None else self._queue.results(earlier)
        report = next((result for result in results if result.kind == REPORT), None)
        return work.task(self._store, report)

    def _task_ahead(self, job: Job) -> Task | None:
        """What a job would be asked as; None of one that would not be analysed now."""
        work = assigned(job, self._catalog)
        return self._task(work) if self._is_current(job) and work.is_as_made else None

    def _answer(self, child: Child, job: Job) -> Answer | Ending:
        """The child's answer, or how the job ended without one."""
        beat = time.monotonic()
        patience = _Patience(self._stop, self._terms.stop_seconds)
        self._look_ahead(child, job)
        while (answer := child.answer(seconds=ANSWER_SECONDS)) is None or isinstance(answer, Ready):
            if patience.ended():
                return self._endings.released(job, "the node stops")
            if time.monotonic() - beat >= self._terms.lease.total_seconds() / 4:
                beat = time.monotonic()
                if not self._heartbeat(job):
                    return LOST
            self._look_ahead(child, job)
        return answer

    def _look_ahead(self, child: Child, job: Job) -> None:
        if self._stop.asked:
            self._next.give_up(child)
        elif self._terms.read_ahead:
            self._next.look(child, beside=job)

    def _heartbeat(self, job: Job) -> bool:
        try:
            return self._queue.heartbeat(job, lease_until=datetime.now(UTC) + self._terms.lease)
        except (CatalogueUnavailable, OutOfSpace) as error:  # the token decides at the end
            log.failure("failure", error, detail="no heartbeat", job_id=job.job_id)
            return True

    def _quarantine(self, job: Job, reason: str) -> Ending:
        return self._endings.quarantined(job, reason) if self._heartbeat(job) else LOST

    def _bury_child(self, reason: str) -> None:
        """What it was reading goes with it; another worker may have that job at once."""
        self._child.bury(reason)
        self._next.give_up(None)


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
