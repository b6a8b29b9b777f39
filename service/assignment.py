"""A job becomes a task only while the store has exactly the instances that the job was made for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.tasks import Predecessor, Task
from storage.arrivals import combined, fingerprint
from storage.catalog import Catalog
from storage.instances import InstanceStore
from storage.records import Instance, Job, Result

Instances = tuple[Instance, ...]

REPORT = "measurement_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A job and what the store has for it. `others`: of its further series, by their role."""

    job: Job
    instances: Instances
    others: Mapping[str, Instances]

    @property
    def count(self) -> int:
        """Of all instances."""
        return len(self.instances) + sum(map(len, self.others.values()))

    @property
    def is_there(self) -> bool:
        """Whether every series of it still has instances."""
        return bool(self.instances) and all(self.others.values())

    @property
    def is_as_made(self) -> bool:
        """Whether the instances are those that the job was made for."""
        return self.is_there and self._fingerprint() == self.job.request.fingerprint

    def task(self, store: InstanceStore, predecessor: Result | None) -> Task:
        """What a child is asked; `predecessor`: the report that the new one supersedes."""
        request = self.job.request
        roles = (role for role, series in request.inputs.items() if series == request.series_id)
        return Task(
            model=request.model,
            paths=_paths(store, self.instances),
            role=next(roles, ""),
            others={role: _paths(store, found) for role, found in self.others.items()},
            fingerprint=request.fingerprint,
            generation=self.job.generation,
            predecessor=None if predecessor is None else _predecessor(predecessor),
        )

    def _fingerprint(self) -> str:
        if not self.others:
            return _of_series(self.instances)
        inputs = self.job.request.inputs
        return combined(
            {role: _of_series(self.others.get(role, self.instances)) for role in inputs}
        )


def assigned(job: Job, catalog: Catalog) -> Assignment:
    """The job with its instances as they are now."""
    request = job.request
    return Assignment(
        job=job,
        instances=catalog.instances(request.series_id),
        others={
            role: catalog.instances(series_id)
            for role, series_id in request.inputs.items()
            if series_id != request.series_id
        },
    )


def _paths(store: InstanceStore, instances: Instances) -> tuple[Path, ...]:
    return tuple(store.path(instance.key) for instance in instances)


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
