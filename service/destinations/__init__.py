"""How a result leaves: objects in, one outcome each out, in their order, as soon as it is known.

A kind is a module of this package that declares its `SETTINGS` (see service/config.py) and makes a
destination of them: `destination(settings, calling_ae_title=...)`. A destination never tries an
object twice by itself: that is decided by service/retry.py alone.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class DestinationError(Exception):
    """A destination does not answer as it should; `str(error)` says how, without identifiers."""


class Answer(StrEnum):
    """What became of one object."""

    SENT = "sent"  # the destination answered Success or a warning: it has the object
    COMMITTED = "committed"  # the destination took responsibility: the object is durable there
    TRANSIENT = "transient"  # not delivered; the same may go through later
    REFUSED = "refused"  # the destination does not take this object until a person changes that
    UNSENDABLE = "unsendable"  # missing or broken here: no later attempt can help
    HELD = "held"  # not attempted: an object it refers to is not there yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A result object to send, a DICOM file. `after`: SOP Instance UIDs that have to go first."""

    sop_instance_uid: str
    path: Path
    size: int  # bytes, as the catalogue knows it
    after: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an object. `note`: the error in words, or the warning of a success."""

    outgoing: Outgoing
    answer: Answer
    note: str | None = None

    @property
    def delivered(self) -> bool:
        """True when the destination has the object."""
        return self.answer in (Answer.SENT, Answer.COMMITTED)


class Destination(Protocol):
    """Where results go."""

    def send(self, results: Sequence[Outgoing]) -> Generator[Outcome, None, None]:
        """Yield each object's outcome before the next one leaves; closing the iterator stops."""
        ...

    def echo(self) -> None:
        """Return if objects could be taken now, else raise `DestinationError` with the reason."""
        ...


def in_order(
    results: Sequence[Outgoing], deliver: Callable[[Outgoing], Outcome]
) -> Generator[Outcome, None, None]:
    """Deliver one after the other; an object that refers to one that was not delivered is held."""
    missing: set[str] = set()
    for outgoing in results:
        outcome = deliver(outgoing) if outgoing.after.isdisjoint(missing) else held(outgoing)
        if not outcome.delivered:
            missing.add(outgoing.sop_instance_uid)
        yield outcome


def held(outgoing: Outgoing) -> Outcome:
    """The outcome of an object that waits for another one."""
    note = "waits for the object it refers to, which was not delivered"
    return Outcome(outgoing=outgoing, answer=Answer.HELD, note=note)


def broken(outgoing: Outgoing) -> Outcome | None:
    """The outcome of an object whose file is not what the catalogue says; None when it is."""
    try:
        size = outgoing.path.stat().st_size
    except FileNotFoundError:
        note = "the result file is missing in the instance store"
    else:
        note = f"the result file has {size} bytes instead of {outgoing.size}"
        if size == outgoing.size:
            return None
    return Outcome(outgoing=outgoing, answer=Answer.UNSENDABLE, note=note)
