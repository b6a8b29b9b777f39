"""Records as the receiver, routing and the worker make them, short to write in a test."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from storage.catalog import Catalog
from storage.queue import Queue
from storage.records import (
    Instance,
    Job,
    JobRequest,
    Priority,
    Result,
    SeriesArrival,
    Vector,
    Verdict,
)

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
TAKERS = {"segmentation": ("pacs",), "measurement_report": ("pacs", "archive")}


def after(seconds: float) -> datetime:
    """A moment that many seconds after START."""
    return START + timedelta(seconds=seconds)


def digest(text: str) -> str:
    """Some SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def instance(
    number: int,
    *,
    series: str = "1.2.1",
    study: str = "1.2",
    content: str = "",
    at: datetime = START,
    header: Mapping[str, tuple[str, ...]] | None = None,
) -> Instance:
    """The instance of that number in a series; another `content`, other bytes."""
    uid = f"{series}.{number}"
    sha = digest(uid + content)
    return Instance(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=sha,
        key=f"instances/{sha[:2]}/{sha}.dcm",
        size=100,
        received_at=at,
        calling_ae_title="SCANNER",
        header={"Modality": ("CT",), "PatientID": ("4711",)} | dict(header or {}),
    )


def arrive(
    catalog: Catalog,
    count: int = 3,
    *,
    series: str = "1.2.1",
    study: str = "1.2",
    at: datetime = START,
) -> SeriesArrival:
    """Registers a series and gives it as routing sees it."""
    catalog.register([instance(n, series=series, study=study, at=at) for n in range(1, count + 1)])
    return ripe(catalog, series)


def ripe(catalog: Catalog, series: str = "1.2.1") -> SeriesArrival:
    """The series, which must be RECEIVING, as routing sees it."""
    found = catalog.ripe_series(after(86400 * 365))
    return next(one for one in found if one.series_instance_uid == series)


def request(
    arrival: SeriesArrival,
    *,
    scope: str | None = None,
    model: str = "lung-ct",
    version: str = "1.0.0",
    routes: Sequence[str] = ("chest",),
    destinations: Sequence[str] = ("pacs",),
    priority: Priority = Priority.ROUTINE,
) -> JobRequest:
    """A job for the series as it is."""
    return JobRequest(
        scope=scope or f"series {arrival.series_id}",
        series_id=arrival.series_id,
        fingerprint=arrival.fingerprint,
        model=model,
        model_version=version,
        configuration=digest("configuration"),
        routes=tuple(routes),
        destinations=tuple(destinations),
        priority=priority,
        reason="a CT of the chest",
    )


def claim(queue: Queue, *, now: datetime = START, seconds: float = 60) -> Job:
    """The next job of any model used here; there must be one."""
    job = queue.claim(
        worker="worker",
        models=["lung-ct", "spleen"],
        now=now,
        lease_until=now + timedelta(seconds=seconds),
    )
    assert job is not None
    return job


def results(job: Job) -> tuple[Result, ...]:
    """A segmentation and the report that refers to it: deterministic, as those of a model are."""
    return tuple(
        Result(
            kind=kind,
            sop_class_uid=f"1.2.840.10008.5.1.4.1.1.{kind}",
            sop_instance_uid=f"2.25.{digest(job.request.fingerprint + kind)}",
            series_instance_uid=f"2.25.{digest(job.series_instance_uid + kind)}",
            digest=digest(job.request.fingerprint + kind),
            key=f"results/{kind}",
            size=7,
        )
        for kind in ("segmentation", "measurement_report")
    )


def vector(value: float = 1.0) -> Vector:
    """A vector of two equal values."""
    return Vector(
        kind="histogram", version="1", dimensions=2, data=np.full(2, value, "<f4").tobytes()
    )


def complete(queue: Queue, job: Job, *, now: datetime = START) -> bool:
    """DONE with `results` and one vector."""
    return queue.complete(
        job,
        verdict=Verdict.MEASURED,
        reason=None,
        results=results(job),
        destinations=TAKERS,
        vectors=[vector()],
        now=now,
    )


def done(catalog: Catalog, queue: Queue, *, destinations: Sequence[str] = ("pacs",)) -> Job:
    """A whole path: a series came, its job is DONE."""
    arrival = arrive(catalog)
    assert catalog.close_series(arrival, [request(arrival, destinations=destinations)], [], START)
    job = claim(queue)
    assert complete(queue, job)
    return job
