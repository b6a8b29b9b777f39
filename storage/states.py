"""Every change of state that the catalogue allows is an arrow here; the SQL of a verb starts from
its sources.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from storage.records import DeliveryState, JobState, SeriesState

State = TypeVar("State", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow(Generic[State]):
    """`verb` takes a row from `source` (None: there was no row) to `target`."""

    source: State | None
    verb: str
    target: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Generic[State]):
    """The arrows of one kind of row."""

    states: type[State]
    arrows: tuple[Arrow[State], ...]

    def sources(self, verb: str) -> tuple[State, ...]:
        """The states from which a verb may go; KeyError when there is no such verb."""
        found = tuple(a.source for a in self.arrows if a.verb == verb and a.source is not None)
        if not found:
            raise KeyError(verb)
        return found

    def allows(self, source: State, verb: str) -> bool:
        """Whether a verb changes a row in that state."""
        return any(arrow.source is source and arrow.verb == verb for arrow in self.arrows)


def _from(sources: tuple[State | None, ...], verb: str, target: State) -> Iterator[Arrow[State]]:
    return (Arrow(source=source, verb=verb, target=target) for source in sources)


SERIES = Machine(
    states=SeriesState,
    arrows=(
        *_from((None, *SeriesState), "register", SeriesState.RECEIVING),
        *_from((SeriesState.RECEIVING,), "close_series", SeriesState.COMPLETE),
        *_from((SeriesState.COMPLETE,), "quarantine_series", SeriesState.QUARANTINED),
        *_from((SeriesState.QUARANTINED,), "requeue", SeriesState.COMPLETE),
    ),
)

JOBS = Machine(
    states=JobState,
    arrows=(
        *_from((None, JobState.CANCELLED), "close", JobState.WAITING),
        *_from((JobState.WAITING,), "reserve", JobState.WAITING),
        *_from((JobState.WAITING,), "claim", JobState.RUNNING),
        *_from((JobState.RUNNING,), "heartbeat", JobState.RUNNING),
        *_from((JobState.RUNNING,), "expired", JobState.RUNNING),
        *_from((JobState.RUNNING,), "complete", JobState.DONE),
        *_from((JobState.RUNNING,), "retry", JobState.WAITING),
        *_from((JobState.RUNNING,), "release", JobState.WAITING),
        *_from((JobState.RUNNING,), "fail", JobState.FAILED),
        *_from((JobState.DONE, JobState.FAILED), "requeue", JobState.WAITING),
        *_from(
            (JobState.WAITING, JobState.RUNNING, JobState.FAILED), "supersede", JobState.CANCELLED
        ),
    ),
)

DELIVERIES = Machine(
    states=DeliveryState,
    arrows=(
        *_from((None, DeliveryState.WITHDRAWN), "plan", DeliveryState.DUE),
        *_from((DeliveryState.DUE,), "claim_deliveries", DeliveryState.DUE),
        *_from((DeliveryState.DUE,), "delivery_retry", DeliveryState.DUE),
        *_from((DeliveryState.DUE,), "delivery_release", DeliveryState.DUE),
        *_from((DeliveryState.DUE,), "delivery_hasten", DeliveryState.DUE),
        *_from((DeliveryState.DUE,), "delivery_failed", DeliveryState.FAILED),
        *_from((DeliveryState.DUE, DeliveryState.WITHDRAWN), "sent", DeliveryState.SENT),
        *_from(
            (DeliveryState.DUE, DeliveryState.SENT, DeliveryState.WITHDRAWN),
            "committed",
            DeliveryState.COMMITTED,
        ),
        *_from((DeliveryState.DUE, DeliveryState.FAILED), "withdraw", DeliveryState.WITHDRAWN),
        *_from(
            (DeliveryState.SENT, DeliveryState.COMMITTED, DeliveryState.FAILED),
            "redeliver",
            DeliveryState.DUE,
        ),
        *_from(tuple(DeliveryState), "complete_again", DeliveryState.DUE),
    ),
)
