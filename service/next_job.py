"""While a job runs, its worker reserves the next one, and its child may read that one's study.

- What fails beside a running job is nobody's attempt but that job's, since nothing says whose fault
  a crash was. So it happens to a job once at most: one that is tried again runs with nothing beside
  it, in another child if this one may still read (`leaves_alone`), and one that failed itself is
  not read ahead. Where jobs have one attempt, nothing is.
- A reservation holds nobody up (storage/claims.py) and ends with the child that reads for it.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from service import log
from service.child import Child
from service.retry import Policy
from service.tasks import Task
from storage.errors import CatalogueUnavailable, OutOfSpace
from storage.queue import Queue
from storage.records import Job

LOOK_SECONDS = 1.0  # between two looks for a job that comes next


class NextJob:
    """The reservation of one worker.

    `task`: what its child would be asked for a job; None when it cannot be done as it is.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        worker: str,
        models: Sequence[str],
        lease: timedelta,
        policy: Policy,
        task: Callable[[Job], Task | None],
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._models = models
        self._lease = lease
        self._policy = policy
        self._task = task
        self._job: Job | None = None
        self._told = False  # the child may hold something
        self._begun: set[int] = set()  # jobs whose studies it may still be reading
        self._next_look = 0.0
        self._next_beat = 0.0

    @property
    def job(self) -> Job | None:
        """What is reserved."""
        return self._job

    def look(self, child: Child, *, beside: Job) -> None:
        """Reserve, or keep what is reserved, as long as `beside` runs; called again and again."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + min(LOOK_SECONDS, self._beat_seconds)
        if not has_company(beside.attempts, self._policy):
            self.give_up(child)
            return
        try:
            self._look(child)
        except (CatalogueUnavailable, OutOfSpace) as error:  # a reservation ends by itself
            self._next_look = time.monotonic() + self._beat_seconds
            log.failure("failure", error, detail="no job could be reserved", job_id=beside.job_id)

    def claimed(self, job: Job) -> None:
        """The worker has this job now; if it was reserved, another can be."""
        self._next_look = 0.0
        self._begun.discard(job.job_id)
        if self._job is not None and self._job.job_id == job.job_id:
            self._job = None

    def leaves_alone(self, job: Job) -> bool:
        """Whether the child may be asked for a job as it is, whatever else it may be reading."""
        return not self._begun or has_company(job.attempts, self._policy)

    def give_up(self, child: Child | None) -> None:
        """Nothing comes next; None: the child ended, and with it what it had read."""
        job, self._job = self._job, None
        if child is None:
            self._begun.clear()
        if child is not None and self._told:
            child.read_next(None)
        self._told = False
        if job is None:
            return
        try:
            self._queue.unreserve(job)
        except (CatalogueUnavailable, OutOfSpace) as error:  # it ends by itself
            log.failure("failure", error, detail="a reservation was not ended", job_id=job.job_id)

    def _look(self, child: Child) -> None:
        now = datetime.now(UTC)
        if self._job is not None and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + self._beat_seconds
            if not self._queue.keep_reserved(self._job, until=now + self._lease):
                self._job = None
        if self._job is None:
            self._reserve(child, now)

    def _reserve(self, child: Child, now: datetime) -> None:
        self._job = self._queue.reserve(
            worker=self._worker, models=self._models, now=now, until=now + self._lease
        )
        self._next_beat = time.monotonic() + self._beat_seconds
        task = None if self._job is None else self._task(self._job)
        if self._job is not None and task is not None:
            self._begun.add(self._job.job_id)
        if task is not None or self._told:
            child.read_next(task)
        self._told = task is not None

    @property
    def _beat_seconds(self) -> float:
        return self._lease.total_seconds() / 4


def has_company(attempts: int, policy: Policy) -> bool:
    """Whether a study may be read beside a job that is tried for that many a time."""
    return attempts == 1 and policy.attempts != 1
