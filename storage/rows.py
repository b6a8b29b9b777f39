"""Rows become frozen records here and nowhere else."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from storage.records import Delivery, Effort, Job, JobRequest, Result
from storage.schema import DELIVERIES, JOBS, RESULTS, SERIES, STUDIES

JOB = (
    sa.select(STUDIES.c.study_instance_uid, SERIES.c.series_instance_uid, JOBS)
    .join(SERIES, JOBS.c.series_id == SERIES.c.id)
    .join(STUDIES, SERIES.c.study_id == STUDIES.c.id)
)
DELIVERY = sa.select(
    DELIVERIES,
    RESULTS.c.kind,
    RESULTS.c.sop_class_uid,
    RESULTS.c.sop_instance_uid,
    RESULTS.c.series_instance_uid,
    RESULTS.c.digest,
    RESULTS.c.key,
    RESULTS.c.size,
).join(RESULTS, DELIVERIES.c.result_id == RESULTS.c.id)


def job(row: Row[Any]) -> Job:
    """The job of a row of JOB."""
    return Job(
        job_id=row.id,
        state=row.state,
        request=_request(row),
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        generation=row.generation,
        supersedes=row.supersedes,
        attempts=row.attempts,
        token=row.token,
        due_at=row.due_at,
        lease_until=row.lease_until,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        verdict=row.verdict,
        reason=row.reason,
    )


def effort(row: Row[Any]) -> Effort:
    """What the model of a job took, of a row of JOBS."""
    return Effort(
        device=row.device,
        arithmetic=row.arithmetic,
        peak_bytes=row.peak_bytes,
        seconds=row.model_seconds,
    )


def result(row: Row[Any]) -> Result:
    """The result of a row of RESULTS or DELIVERY."""
    return Result(
        kind=row.kind,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        digest=row.digest,
        key=row.key,
        size=row.size,
    )


def delivery(row: Row[Any]) -> Delivery:
    """The delivery of a row of DELIVERY."""
    return Delivery(
        delivery_id=row.id,
        job_id=row.job_id,
        destination=row.destination,
        result=result(row),
        order=row.place,
        state=row.state,
        attempts=row.attempts,
        token=row.token,
        due_at=row.due_at,
        created_at=row.created_at,
        last_error=row.last_error,
    )


def _request(row: Row[Any]) -> JobRequest:
    return JobRequest(
        scope=row.scope,
        series_id=row.series_id,
        fingerprint=row.fingerprint,
        model=row.model,
        model_version=row.model_version,
        configuration=row.configuration,
        routes=row.routes,
        destinations=row.destinations,
        priority=row.priority,
        reason=row.request_reason,
        inputs=row.inputs,
    )
