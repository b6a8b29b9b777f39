"""The items of a P-DATA-TF are read as they were written, or the PDU is refused.

Not covered here: what an association does then (tests/integration/test_receive_associations.py).
"""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.data_phase import ProtocolError, _values

ITEMS = st.lists(st.tuples(st.integers(0, 255), st.binary(min_size=1, max_size=40)), max_size=5)


def written(items: list[tuple[int, bytes]]) -> bytes:
    """Presentation data value items (PS3.8 9.3.5.1)."""
    return b"".join(struct.pack(">LB", len(value) + 1, context) + value for context, value in items)


@given(ITEMS)
def test_items_are_read_as_written(items: list[tuple[int, bytes]]) -> None:
    found = [(context, bytes(value)) for context, value in _values(memoryview(written(items)))]
    assert found == items


@given(ITEMS.filter(bool), st.data())
def test_a_cut_item_is_refused(items: list[tuple[int, bytes]], data: st.DataObject) -> None:
    body = written(items)
    last = len(written(items[-1:]))
    kept = len(body) - data.draw(st.integers(1, last - 1))
    with pytest.raises(ProtocolError):
        list(_values(memoryview(body[:kept])))


def test_an_item_without_a_context_is_refused() -> None:
    with pytest.raises(ProtocolError):
        list(_values(memoryview(struct.pack(">LB", 0, 1))))
