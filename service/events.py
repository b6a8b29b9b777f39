"""What a line of the log may say: an event's fixed name, level, meaning and fields."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fixed name's level, what it means, and the fields that may go with it."""

    level: str
    meaning: str
    fields: tuple[str, ...] = ()


FIELDS: Mapping[str, str] = {
    "arithmetic": "of the network: float32, bfloat16 or float16",
    "attempts": "how often it was tried, this time included",
    "bytes": "bytes of data sets",
    "called_ae_title": "AE title that the peer called",
    "calling_ae_title": "AE title of the peer",
    "category": "class of the warning",
    "configuration": "digest of the configuration",
    "conflicts": "instances whose SOP Instance UID had come before with other bytes",
    "count": "how many",
    "deleted": "instances whose bytes were deleted",
    "delivery_id": "row of the delivery",
    "describe_seconds": "of an attempt: feature vectors, beyond the model's own time",
    "destination": "name of the destination in the configuration",
    "detail": "a short text of ours, without identifiers",
    "device": "where the model ran: cpu or cuda:N",
    "duplicates": "instances that had come before, byte for byte",
    "encode_seconds": "of an attempt: findings to checked result objects",
    "error_type": "class of the exception",
    "exit_code": "of the process; negative: the signal that ended it",
    "fields": "names of fields that were left out because the event does not list them",
    "free_bytes": "free space of the storage directory",
    "generation": "1 for the first result of a series and model, 2 for the one that supersedes it",
    "instances": "number of SOP instances",
    "job_id": "row of the job",
    "jobs": "number of jobs made",
    "kind": "kind of the result object",
    "library_level": "level of the library's message",
    "library": "name of the library's logger",
    "method": "HTTP method",
    "modality": "Modality (0008,0060)",
    "model": "name of the model in the configuration",
    "model_seconds": "of an attempt: the model itself",
    "model_version": "version of the model",
    "objects": "number of result objects",
    "outcome": "how it ended; the event's text lists the values",
    "path": "path of the request, or of a file of the node",
    "peak_bytes": "of an attempt: the most memory in use on its device, loaded models included",
    "peer_address": "IP address of the peer",
    "process_id": "of the process that the event is about",
    "read_ahead_seconds": "of an attempt: reading that was done while the job before it ran; "
    "on a CPU none beside the first run of a model",
    "read_seconds": "of an attempt: files to a volume, or what was left of that",
    "reason": "why, in words, without identifiers",
    "refused": "instances answered with a failure status",
    "retry_at": "when it is tried again",
    "role_name": "the role that the event is about",
    "roles": "the roles that run",
    "seconds": "duration in seconds",
    "series_instance_uid": "Series Instance UID",
    "signal": "name of the signal",
    "sop_class_uid": "SOP Class UID",
    "sop_instance_uid": "SOP Instance UID",
    "status": "DIMSE or HTTP status",
    "study_instance_uid": "Study Instance UID",
    "sweep": "name of the sweep",
    "tls": "whether the association was encrypted",
    "verdict": "measured, withheld or not_analysed",
    "version": "version of Hounsfield",
    "wait_seconds": "from the time it was due to the time it was begun",
    "where": "file, line and function of each frame, innermost last; or of the warning",
}

_SERIES = ("study_instance_uid", "series_instance_uid", "modality", "instances")
_FAILURE = ("error_type", "where")

EVENTS: Mapping[str, Event] = {
    "association": Event(
        level="info",
        meaning="an association ended; outcome: released, aborted, rejected, lost",
        fields=(
            "calling_ae_title", "called_ae_title", "peer_address", "tls", "outcome", "reason",
            "instances", "duplicates", "conflicts", "refused", "bytes", "seconds",
        ),
    ),
    "job": Event(
        level="info",
        meaning="an attempt of a job ended; "
        "outcome: done, retry, failed, quarantined, superseded, lost, released",
        fields=(
            "job_id", "model", "model_version", *_SERIES[:2], "instances", "attempts",
            "generation", "outcome", "verdict", "reason", "objects", "bytes", "retry_at",
            "wait_seconds", "read_seconds", "read_ahead_seconds", "model_seconds", "encode_seconds",
            "describe_seconds", "device", "arithmetic", "peak_bytes", "seconds",
        ),
    ),
    "delivery": Event(
        level="info",
        meaning="an attempt of a delivery ended; outcome: sent, committed, retry, failed",
        fields=(
            "delivery_id", "job_id", "destination", "kind", "sop_class_uid", "sop_instance_uid",
            "outcome", "attempts", "reason", "status", "bytes", "retry_at", "seconds",
        ),
    ),
    "series.complete": Event(
        level="info",
        meaning="a series was quiet for the configured time and was routed",
        fields=(*_SERIES, "conflicts", "jobs", "seconds"),
    ),
    "study.complete": Event(
        level="info",
        meaning="a study was quiet for the configured time and its study routes were decided",
        fields=("study_instance_uid", "count", "jobs"),
    ),
    "series.quarantined": Event(
        level="warning",
        meaning="a series cannot be read or routed; a person has to look",
        fields=("study_instance_uid", "series_instance_uid", "reason"),
    ),
    "object.refused": Event(
        level="warning",
        meaning="a received object was answered with a failure, or put into quarantine",
        fields=(
            "calling_ae_title", "sop_class_uid", "sop_instance_uid", "status", "reason", "bytes",
            "path",
        ),
    ),
    "job.rescued": Event(
        level="warning",
        meaning="a job's worker stopped renewing its lease; outcome: retry, failed",
        fields=("job_id", "model", "attempts", "outcome", "reason", "retry_at"),
    ),
    "child.started": Event(
        level="info",
        meaning="the process that runs the models has loaded them",
        fields=("process_id", "count", "seconds"),
    ),
    "child.ended": Event(
        level="warning",
        meaning="the process that runs the models ended or was killed",
        fields=("process_id", "exit_code", "signal", "reason"),
    ),
    "child.unconfined": Event(
        level="error",
        meaning="this machine cannot keep models from files or the network: no trusted model runs",
        fields=("reason",),
    ),
    "model.unavailable": Event(
        level="error",
        meaning="a configured model cannot be loaded; its jobs fail with this reason",
        fields=("model", "reason"),
    ),
    "retention": Event(
        level="info",
        meaning="source instances of studies were deleted; results and vectors stay",
        fields=("study_instance_uid", "deleted", "bytes", "reason"),
    ),
    "disk.low": Event(
        level="error",
        meaning="free space is below the watermark; C-STORE is refused",
        fields=("free_bytes", "reason"),
    ),
    "disk.recovered": Event(
        level="info", meaning="free space is above the watermark again", fields=("free_bytes",)
    ),
    "incoming.swept": Event(
        level="info", meaning="remains of broken transfers were removed", fields=("count",)
    ),
    "sweep.failed": Event(
        level="error",
        meaning="a maintenance sweep raised; it runs again at its next time",
        fields=("sweep", "seconds", *_FAILURE),
    ),
    "node.starting": Event(
        level="info", meaning="the node starts", fields=("version", "roles", "configuration")
    ),
    "node.ready": Event(
        level="info", meaning="every role is ready", fields=("roles", "seconds")
    ),
    "node.stopping": Event(level="info", meaning="the node was told to stop", fields=("signal",)),
    "node.stopped": Event(
        level="info", meaning="every role has ended", fields=("exit_code", "seconds")
    ),
    "node.failed": Event(
        level="error", meaning="the node cannot go on", fields=("reason", *_FAILURE)
    ),
    "role.ready": Event(
        level="info", meaning="a role serves", fields=("role_name", "process_id", "seconds")
    ),
    "role.died": Event(
        level="error",
        meaning="a role's process ended unasked and is started again",
        fields=("role_name", "process_id", "exit_code", "signal", "retry_at", "seconds"),
    ),
    "role.stopped": Event(
        level="info",
        meaning="a role's process ended as asked",
        fields=("role_name", "process_id", "exit_code", "seconds"),
    ),
    "role.killed": Event(
        level="warning",
        meaning="a role did not stop in time and was killed",
        fields=("role_name", "process_id", "seconds"),
    ),
    "role.failed": Event(
        level="error", meaning="a role's process raised", fields=("role_name", "reason", *_FAILURE)
    ),
    "request": Event(
        level="debug",
        meaning="an HTTP request was answered",
        fields=("method", "path", "status", "peer_address", "bytes", "seconds"),
    ),
    "failure": Event(
        level="error",
        meaning="something raised at a rim that goes on",
        fields=("detail", "destination", "job_id", "calling_ae_title", *_FAILURE),
    ),
    "warning": Event(
        level="warning",
        meaning="a library warned; its text is left out, since it may quote a data set",
        fields=("category", "where"),
    ),
    "library": Event(
        level="warning",
        meaning="a library logged; its text is left out, since it may quote a data set",
        fields=("library", "library_level", *_FAILURE),
    ),
    "log.dropped": Event(
        level="warning",
        meaning="an event was written with fields that it does not list",
        fields=("detail", "fields"),
    ),
}  # fmt: skip
