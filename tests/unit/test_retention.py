"""Which studies' sources may go, and in what order: the decision alone.

Not covered here: where the holds come from and the deletion itself
(tests/contracts/test_storage_sources.py).
"""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.retention import Hold, StudySources, expendable
from tests.records import START, after


def study(
    uid: str, *, seconds: float = 0, size: int = 10, holds: frozenset[Hold] = frozenset()
) -> StudySources:
    return StudySources(
        study_instance_uid=uid, last_received_at=after(seconds), size=size, holds=holds
    )


def chosen(studies: list[StudySources], *, before: datetime, wanted: int = 0) -> list[str]:
    found = expendable(studies, older_than=before, wanted_bytes=wanted)
    return [one.study_instance_uid for one in found]


def test_those_older_than_the_limit_go_oldest_first() -> None:
    studies = [study("b", seconds=2), study("a", seconds=1), study("c", seconds=3)]
    assert chosen(studies, before=after(3)) == ["a", "b"]


@pytest.mark.parametrize("hold", Hold)
def test_a_hold_keeps_a_study_whatever_its_age_and_the_disk(hold: Hold) -> None:
    studies = [study("a", holds=frozenset({hold})), study("b", seconds=1)]
    assert chosen(studies, before=after(99), wanted=10**9) == ["b"]


def test_below_the_watermark_just_enough_younger_ones_go_too() -> None:
    studies = [study(uid, seconds=at) for at, uid in enumerate("abcd")]
    assert chosen(studies, before=START, wanted=11) == ["a", "b"]
    assert chosen(studies, before=after(3), wanted=11) == ["a", "b", "c"]


def test_a_study_without_bytes_is_not_named() -> None:
    assert chosen([study("a", size=0)], before=after(9)) == []


STUDIES = st.lists(
    st.builds(
        study,
        st.uuids().map(str),
        seconds=st.integers(0, 9),
        size=st.integers(0, 5),
        holds=st.frozensets(st.sampled_from(Hold), max_size=1),
    ),
    max_size=12,
)


@given(STUDIES, st.integers(0, 9), st.integers(0, 30))
def test_what_goes_is_a_prefix_by_age_of_what_is_free(
    studies: list[StudySources], limit: int, wanted: int
) -> None:
    gone = expendable(studies, older_than=after(limit), wanted_bytes=wanted)
    free = [one for one in studies if not one.holds and one.size]
    kept = [one for one in free if one not in gone]
    assert not any(one.holds for one in gone)
    assert all(one.last_received_at >= after(limit) for one in kept)
    assert all(a.last_received_at <= b.last_received_at for a in gone for b in kept)
    assert not kept or sum(one.size for one in gone) >= wanted
