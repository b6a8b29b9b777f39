"""Every due delivery ends delivered, due again at a stated time, or given up with its reason.

Each destination has a thread of its own, so that a slow or dead one blocks no other. What a
destination says of an object is written before the next object leaves: a later abort, or the end
of this process, never sends again what was acknowledged.
"""

import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service import log
from service.destinations import Answer, Destination, Outcome, Outgoing
from service.retry import Failure, Policy, next_attempt
from service.stopping import Stop
from storage.instances import InstanceStore
from storage.queue import Queue
from storage.records import Delivery, DeliveryState

CLAIM_SECONDS = 0.1  # between two looks for deliveries that are due
BATCH = 64  # objects of one association; two presentation contexts each fit into its 128
STOP_SECONDS = 5.0  # for the object in hand, when the node stops
DELIVERED = {Answer.SENT: DeliveryState.SENT, Answer.COMMITTED: DeliveryState.COMMITTED}
FAILURES = {
    Answer.TRANSIENT: Failure.TRANSIENT,
    Answer.REFUSED: Failure.REFUSED,
    Answer.UNSENDABLE: Failure.PERMANENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How deliveries are tried. `lease`: how long a silent sender keeps what it claimed."""

    policy: Policy
    lease: timedelta


class Sender:
    """Delivers what is due to each of its destinations."""

    def __init__(
        self,
        *,
        queue: Queue,
        store: InstanceStore,
        destinations: Mapping[str, Destination],
        terms: Terms,
        stop: Stop,
    ) -> None:
        self._queue = queue
        self._store = store
        self._destinations = destinations
        self._terms = terms
        self._stop = stop
        self._errors: list[Exception] = []
        self._in_hand: dict[str, tuple[Delivery, ...]] = {}
        self._down = set(destinations)  # not one object was taken in the last batch

    def run(self, ready: Callable[[], None]) -> None:
        """Until told to stop; raises what ended a destination's thread."""
        threads = [
            threading.Thread(target=self._serve, args=(name,), name=f"to {name}", daemon=True)
            for name in self._destinations
        ]
        for thread in threads:
            thread.start()
        ready()
        self._renew_leases()
        _join(threads)
        if self._errors:
            raise self._errors[0]

    def step(self, name: str) -> int:
        """Deliver one batch to a destination; how many objects were claimed for it."""
        now = _now()
        batch = self._queue.claim_deliveries(
            name, now=now, lease_until=now + self._terms.lease, limit=BATCH
        )
        if batch:
            self._deliver(name, batch)
        return len(batch)

    def _serve(self, name: str) -> None:
        try:
            while not self._stop.asked and not self._errors:
                if not self.step(name):
                    self._stop.wait(CLAIM_SECONDS)
        except Exception as error:  # noqa: BLE001  (rim of the thread: `run` raises it)
            self._errors.append(error)

    def _renew_leases(self) -> None:
        """Keep what the threads have in hand until told to stop, or until one of them ended."""
        renewed = time.monotonic()
        while not self._errors and not self._stop.wait(CLAIM_SECONDS):
            if time.monotonic() - renewed > self._terms.lease.total_seconds() / 3:
                until = _now() + self._terms.lease
                for batch in list(self._in_hand.values()):
                    self._queue.delivery_heartbeat(batch, lease_until=until)
                renewed = time.monotonic()

    def _deliver(self, name: str, batch: Sequence[Delivery]) -> None:
        left, began, taken = list(batch), time.monotonic(), False
        self._in_hand[name] = tuple(left)
        with closing(self._outcomes(name, outgoing(batch, self._store))) as outcomes:
            for outcome in outcomes:
                delivery = left.pop(0)
                self._in_hand[name] = tuple(left)
                self._settle(delivery, outcome, seconds=time.monotonic() - began)
                taken = taken or outcome.delivered
                if self._stop.asked:
                    break
                began = time.monotonic()
        self._in_hand[name] = ()
        self._queue.delivery_release(left)
        self._note(name, taken=taken)

    def _note(self, name: str, *, taken: bool) -> None:
        """A destination that was down and takes objects again gets at once what waits for it."""
        if not taken:
            self._down.add(name)
        elif name in self._down:
            self._queue.delivery_hasten(name, now=_now())
            self._down.discard(name)

    def _outcomes(self, name: str, objects: Sequence[Outgoing]) -> Generator[Outcome, None, None]:
        """What the destination yields; when its code raises, that is the outcome of the object."""
        with closing(self._destinations[name].send(objects)) as sending:
            for each in objects:
                try:
                    outcome = next(sending)
                except Exception as error:  # noqa: BLE001  (rim: another destination's code may work)
                    log.failure("failure", error, detail="a destination raised", destination=name)
                    note = f"the destination failed: {type(error).__name__} at {log.place(error)}"
                    yield Outcome(outgoing=each, answer=Answer.TRANSIENT, note=note)
                    return
                yield outcome

    def _settle(self, delivery: Delivery, outcome: Outcome, *, seconds: float) -> None:
        now = _now()
        if outcome.answer is Answer.HELD:
            self._queue.delivery_release([delivery])
            return
        if outcome.delivered:
            state, at = DELIVERED[outcome.answer], None
            self._queue.delivered(delivery, state, now)
            ending = state.value
        else:
            at = self._next_attempt(delivery, FAILURES[outcome.answer], now)
            ending = self._put_off(delivery, outcome.note or "", at)
        _tell(delivery, outcome, ending=ending, retry_at=at, seconds=seconds)

    def _next_attempt(self, delivery: Delivery, failure: Failure, now: datetime) -> datetime | None:
        return next_attempt(
            delivery.attempts,
            failure=failure,
            now=now,
            since=delivery.created_at,
            policy=self._terms.policy,
            jitter=random.random(),  # noqa: S311  (spreads load, hides nothing)
        )

    def _put_off(self, delivery: Delivery, error: str, at: datetime | None) -> str:
        if at is None:
            self._queue.delivery_failed(delivery, error)
            return "failed"
        self._queue.delivery_retry(delivery, at, error)
        return "retry"


def outgoing(batch: Sequence[Delivery], store: InstanceStore) -> list[Outgoing]:
    """The objects of deliveries; an object goes after those of its job that come before it."""
    return [
        Outgoing(
            sop_instance_uid=each.result.sop_instance_uid,
            path=store.path(each.result.key),
            size=each.result.size,
            after=frozenset(
                other.result.sop_instance_uid
                for other in batch
                if other.job_id == each.job_id and other.order < each.order
            ),
        )
        for each in batch
    ]


def _now() -> datetime:
    return datetime.now(UTC)


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for the objects in hand; what a dead peer holds up is sent again by its lease."""
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))


def _tell(
    delivery: Delivery,
    outcome: Outcome,
    *,
    ending: str,
    retry_at: datetime | None,
    seconds: float,
) -> None:
    log.event(
        "delivery",
        delivery_id=delivery.delivery_id,
        job_id=delivery.job_id,
        destination=delivery.destination,
        kind=delivery.result.kind,
        sop_class_uid=delivery.result.sop_class_uid,
        sop_instance_uid=delivery.result.sop_instance_uid,
        outcome=ending,
        attempts=delivery.attempts,
        reason=outcome.note,
        bytes=delivery.result.size,
        retry_at=retry_at,
        seconds=seconds,
    )
