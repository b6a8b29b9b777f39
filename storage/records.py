"""What the catalogue says, as frozen values: every state a thing can be in; no session, cursor or
SQL crosses a layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

Header = Mapping[str, tuple[str, ...]]
"""DICOM keyword -> its values as text, for the indexed elements (service/header.py lists them)."""


class SeriesState(StrEnum):
    """Of a received series."""

    RECEIVING = "receiving"  # instances still arrive, or arrived too recently
    COMPLETE = "complete"  # quiet for the configured time
    QUARANTINED = "quarantined"  # cannot be read; a person has to look


class Registration(StrEnum):
    """What the catalogue made of an instance that came."""

    NEW = "new"  # registered; its series is RECEIVING
    DUPLICATE = "duplicate"  # the same object came before: nothing changed
    CONFLICT = "conflict"  # its SOP Instance UID came before with other bytes: kept, not analysed


class JobState(StrEnum):
    """Of one model's work on one set of instances."""

    WAITING = "waiting"  # to be claimed at or after `due_at`
    RUNNING = "running"  # leased by a worker
    DONE = "done"  # has a verdict, its result objects and their deliveries
    FAILED = "failed"  # attempts are used up; the reason is stated
    CANCELLED = "cancelled"  # superseded before it came to its end


class Verdict(StrEnum):
    """How a job that is DONE ended."""

    MEASURED = "measured"  # everything the model measures
    WITHHELD = (
        "withheld"  # found something, but named measurements are withheld; the reason is stated
    )
    NOT_ANALYSED = "not_analysed"  # the reason is stated


class DeliveryState(StrEnum):
    """Of one result object at one destination."""

    DUE = "due"  # to be sent at or after `due_at`
    SENT = "sent"  # the destination answered Success
    COMMITTED = "committed"  # the destination took responsibility (storage commitment, fsync)
    FAILED = "failed"  # given up; the last error is stated
    WITHDRAWN = "withdrawn"  # superseded before it was sent


class Priority(StrEnum):
    """Of a route; the order in which waiting jobs are claimed."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One received SOP instance whose bytes are on disk.

    `digest` is the SHA-256 of transfer syntax UID and data set bytes; `key` names the bytes in the
    instance store.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    key: str
    size: int
    received_at: datetime
    calling_ae_title: str
    header: Header
    conflict: bool = (
        False  # same SOP Instance UID as an earlier instance, other bytes: kept, not analysed
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesArrival:
    """A series as routing sees it: what it is, what came, since when it is quiet.

    `attributes` holds for each indexed keyword the value that most of its instances carry.
    `fingerprint` identifies the set of instances; it changes when one arrives.
    """

    series_id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    state: SeriesState
    instances: int
    conflicts: int
    first_received_at: datetime
    last_received_at: datetime
    attributes: Header
    fingerprint: str
    own_result: bool  # one of our results, come back
    forgotten: int = (
        0  # of `instances`: those whose bytes retention gave up; they cannot be analysed again
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A job as routing asks for it.

    `scope` names what a newer job supersedes: the series for a route that runs on each, the study
    and the route for one that picks the best. Unique by (fingerprint, model, model_version,
    configuration). `inputs`: for a model that wants several series, the `series_id` of each role,
    its own included, and the fingerprint is `arrivals.combined` of theirs; empty for any other.
    """

    scope: str
    series_id: int
    fingerprint: str
    model: str
    model_version: str
    configuration: str  # digest of the model's settings
    routes: tuple[str, ...]
    destinations: tuple[str, ...]
    priority: Priority
    reason: str  # why this series, in words
    inputs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposition:
    """Why a series has no job (of that route): visible until a job takes its place."""

    series_id: int
    state: str  # "not_analysed", or "waiting" while a route waits for the study to be complete
    route: str | None
    model: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as claimed or shown. `token` fences: a worker whose token is not the row's has lost the
    job.
    """

    job_id: int
    state: JobState
    request: JobRequest
    study_instance_uid: str
    series_instance_uid: str
    generation: (
        int  # 1 for the first job of its scope and model, 2 for the one that supersedes it, ...
    )
    supersedes: int | None  # job_id
    attempts: int
    token: int
    due_at: datetime
    lease_until: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    verdict: Verdict | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Where the model of a job that is DONE ran and what it took; None where it does not say."""

    device: str | None = None
    arithmetic: str | None = None  # "float32", "bfloat16"
    peak_bytes: int | None = None  # of memory of that device
    seconds: float | None = None  # of the model itself


UNKNOWN_EFFORT = Effort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One result object on disk."""

    kind: str  # "segmentation" | "measurement_report" | ...: a file in inference/encoding
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    key: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One result object on its way to one destination. `order`: a SEG leaves before the SR that
    refers to it.
    """

    delivery_id: int
    job_id: int
    destination: str
    result: Result
    order: int
    state: DeliveryState
    attempts: int
    token: int = 0  # fences, as a job's does
    due_at: datetime
    created_at: datetime
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """A feature vector of a series: float32, little endian, `dimensions` long; comparable within
    one (kind, version).
    """

    kind: str
    version: str
    dimensions: int
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != 4 * self.dimensions:
            raise ValueError(f"{len(self.data)} bytes are not {self.dimensions} float32 values")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedObject:
    """Bytes that were refused or cannot be read, kept for a person to see."""

    key: str
    size: int
    reason: str
    received_at: datetime
    calling_ae_title: str
