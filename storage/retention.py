"""Sources are given up only when nothing needs them: no open work, nothing undelivered, nothing
that failed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Hold(StrEnum):
    """Why the received bytes of a study are kept whatever their age."""

    RECEIVING = "receiving"  # instances still arrive
    NOT_ROUTED = "not_routed"  # no decision about the whole study yet
    QUARANTINED = "quarantined"  # a person has to look at a series
    JOB_OPEN = "job_open"  # waiting or running
    JOB_FAILED = "job_failed"  # may be run again
    DELIVERY_DUE = "delivery_due"  # a result is not delivered yet
    DELIVERY_FAILED = "delivery_failed"  # may be sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySources:
    """The received bytes of a study that are in the store. `size` in bytes."""

    study_instance_uid: str
    last_received_at: datetime
    size: int
    holds: frozenset[Hold]


def expendable(
    studies: Iterable[StudySources], *, older_than: datetime, wanted_bytes: int = 0
) -> tuple[StudySources, ...]:
    """The studies whose sources may go now, oldest first.

    Those whose last instance came before `older_than`; when these give less than `wanted_bytes`
    (the disk is below its watermark), further ones until they give that much or none without a hold
    is left.
    """
    return tuple(_chosen(sorted(_free(studies), key=_age), older_than, wanted_bytes))


def _free(studies: Iterable[StudySources]) -> Iterator[StudySources]:
    return (study for study in studies if not study.holds and study.size > 0)


def _age(study: StudySources) -> tuple[datetime, str]:
    return study.last_received_at, study.study_instance_uid


def _chosen(
    studies: Iterable[StudySources], older_than: datetime, wanted_bytes: int
) -> Iterator[StudySources]:
    freed = 0
    for study in studies:
        if study.last_received_at >= older_than and freed >= wanted_bytes:
            return
        freed += study.size
        yield study
