"""UIDs: valid, repeatable, different whenever an input differs.

Not covered: their use in objects.
"""

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from inference import uids

words = st.text(max_size=20)


@given(st.lists(words, max_size=5))
def test_a_derived_uid_is_valid_and_repeatable(parts: list[str]) -> None:
    uid = uids.derived(*parts)
    assert UID(uid).is_valid
    assert uid.startswith("2.25.")
    assert uid == uids.derived(*parts)


@given(st.lists(words, max_size=5), st.lists(words, max_size=5))
def test_different_parts_give_different_uids(one: list[str], other: list[str]) -> None:
    assert (uids.derived(*one) == uids.derived(*other)) == (one == other)


def test_the_uids_of_a_result_depend_on_everything_that_makes_it() -> None:
    given_parts = {
        "source_series_uid": "1.2.3",
        "model": "lung_ct",
        "version": "1.0.0",
        "configuration": "c",
        "kind": "segmentation",
    }
    first = uids.series_uid(**given_parts)
    changed = {uids.series_uid(**{**given_parts, key: "other"}) for key in given_parts}
    assert len({first, *changed}) == 6


def test_the_uid_of_an_instance_depends_on_everything_that_is_written_into_it() -> None:
    parts = {
        "series_uid": "2.25.1",
        "fingerprint": "a",
        "described": "AI: lung_ct 1.0.0",
        "generation": 1,
        "predecessor": "",
        "computed": "",
    }
    others = {
        uids.instance_uid(**{**parts, key: 2 if key == "generation" else "other"}) for key in parts
    }
    assert len({uids.instance_uid(**parts), *others}) == 7


def test_the_published_values_stay_as_they_are() -> None:
    """Archives hold objects under these: a change here would duplicate every result."""
    assert uids.derived("a", "b") == "2.25.327670644216913033623214200952309814893"
