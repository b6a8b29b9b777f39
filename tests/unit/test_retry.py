"""When something that failed is tried again.

Not covered: who calls it (tests/integration/test_delivery.py, the worker's tests).
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.retry import SPREAD, Failure, Policy, next_attempt

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(first=timedelta(seconds=10), maximum=timedelta(hours=1))


def after(attempts: int, *, policy: Policy = POLICY, **other: object) -> timedelta | None:
    """The wait until the next attempt, without jitter."""
    facts = {"failure": Failure.TRANSIENT, "now": NOW, "since": NOW, "jitter": 0.0} | other
    at = next_attempt(attempts, policy=policy, **facts)
    return None if at is None else at - NOW


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 10), (2, 20), (3, 40), (9, 2560), (10, 3600), (10_000, 3600)]
)
def test_the_wait_doubles_up_to_the_longest(attempts: int, seconds: int) -> None:
    assert after(attempts) == timedelta(seconds=seconds)


def test_a_permanent_failure_is_given_up_at_once() -> None:
    assert after(1, failure=Failure.PERMANENT) is None


def test_a_refusal_waits_the_longest_from_the_start() -> None:
    assert after(1, failure=Failure.REFUSED) == timedelta(hours=1)


def test_attempts_are_counted() -> None:
    policy = Policy(first=timedelta(seconds=10), maximum=timedelta(hours=1), attempts=3)
    assert after(2, policy=policy) == timedelta(seconds=20)
    assert after(3, policy=policy) is None


def test_it_is_given_up_when_the_next_attempt_would_come_too_late() -> None:
    policy = Policy(
        first=timedelta(seconds=10),
        maximum=timedelta(hours=1),
        give_up_after=timedelta(days=7),
    )
    nearly = NOW - timedelta(days=7) + timedelta(seconds=10)
    assert after(1, policy=policy, since=nearly) == timedelta(seconds=10)
    assert after(1, policy=policy, since=nearly - timedelta(seconds=1)) is None


@given(
    attempts=st.integers(1, 100_000),
    first=st.floats(0.001, 1e5),
    maximum=st.floats(0.001, 1e6),
    jitter=st.floats(0, 1),
)
def test_a_wait_is_never_longer_than_the_longest_nor_in_the_past(
    attempts: int, first: float, maximum: float, jitter: float
) -> None:
    policy = Policy(first=timedelta(seconds=first), maximum=timedelta(seconds=maximum))
    wait = after(attempts, policy=policy, jitter=jitter)
    assert wait is not None
    assert timedelta(0) <= wait <= policy.maximum
    assert wait >= min(policy.first, policy.maximum) * (1 - SPREAD) - timedelta(microseconds=1)
