"""When a series or a study is complete.

Not covered: the sweep that asks (the maintenance tests).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from service import kinds
from service.config import DEFINING, TRIGGERS
from service.triggers.quiet_period import complete
from tests.arrivals import NOON, arrival

QUIET = timedelta(seconds=30)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, False), (29.9, False), (30, True), (1e6, True)]
)
def test_a_series_is_complete_when_it_was_quiet_for_the_whole_time(
    seconds: float, expected: bool
) -> None:
    now = NOON + timedelta(seconds=seconds)
    assert complete([arrival(1)], now=now, quiet=QUIET) is expected


def test_a_study_is_complete_when_its_last_series_is() -> None:
    late = replace(arrival(2), last_received_at=NOON + timedelta(seconds=20))
    study = [arrival(1), late]
    assert not complete(study, now=NOON + timedelta(seconds=49), quiet=QUIET)
    assert complete(study, now=NOON + timedelta(seconds=50), quiet=QUIET)


def test_every_trigger_is_a_kind() -> None:
    assert kinds.kinds(TRIGGERS, defining=DEFINING[TRIGGERS]) == kinds.kinds(TRIGGERS)
