"""Whether and when something that failed is tried again is decided here and nowhere else.

Attempts wait twice as long each time, up to a longest wait, a little apart from each other so that
what failed together does not come back together.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

LARGEST_EXPONENT = 32  # 2**32 seconds is beyond every longest wait
SPREAD = 0.25  # the share of a wait that jitter may take off


class Failure(StrEnum):
    """What kind of failure an attempt met."""

    TRANSIENT = "transient"  # the same may go through later: back off
    REFUSED = "refused"  # needs a person elsewhere: try again, but seldom
    PERMANENT = "permanent"  # no later attempt can help


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often and how long something is tried; a limit that is None does not limit."""

    first: timedelta  # the wait after the first failure
    maximum: timedelta  # the longest wait
    attempts: int | None = None  # in all
    give_up_after: timedelta | None = None  # since it was first due


def next_attempt(
    attempts: int,
    *,
    failure: Failure,
    now: datetime,
    since: datetime,
    policy: Policy,
    jitter: float,
) -> datetime | None:
    """When to try again after `attempts` failures (1 or more), or None to give up.

    `since`: when it was first due; `jitter`: a random number from 0 to 1 that shortens the wait.
    """
    if failure is Failure.PERMANENT or _used_up(attempts, policy):
        return None
    at = now + _wait(attempts, failure, policy) * (1 - SPREAD * jitter)
    if policy.give_up_after is not None and at > since + policy.give_up_after:
        return None
    return at


def _used_up(attempts: int, policy: Policy) -> bool:
    return policy.attempts is not None and attempts >= policy.attempts


def _wait(attempts: int, failure: Failure, policy: Policy) -> timedelta:
    if failure is Failure.REFUSED:
        return policy.maximum
    doublings = min(max(attempts, 1) - 1, LARGEST_EXPONENT)
    seconds = policy.first.total_seconds() * 2.0**doublings
    return timedelta(seconds=min(seconds, policy.maximum.total_seconds()))
