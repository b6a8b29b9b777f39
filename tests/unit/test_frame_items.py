"""The frames' items are the bytes that pydicom itself would write, for any values.

Not covered: items that hold an element of ambiguous VR (a segmentation has none).
"""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.datadict import dictionary_VR

from inference import phantom
from inference.encoding import frame_items
from inference.encoding.common import FRAMES, to_bytes
from inference.encoding.source_headers import UNICODE, put, quiet
from tests import encoded

VALUES = {
    "ImageComments": st.text(max_size=9),
    "FrameComments": st.sampled_from(["", "a", "Größe", "肺"]),
    "ImagePositionPatient": st.lists(st.sampled_from(["0", "-1.50", "1.5", "3e-2"]), max_size=3),
    "DimensionIndexValues": st.lists(st.integers(0, 2**32 - 1), max_size=3),
    "SlabThickness": st.floats(allow_nan=False) | st.sampled_from([0.1, np.float32(0.1)]),
    "SOPInstanceUID": st.sampled_from(["", "1.2", "1.2.3"]),
    "StackID": st.sampled_from(["1", "1 ", " 1"]),
    "InStackPositionNumber": st.integers(0, 9),
    "FrameAcquisitionDateTime": st.sampled_from(["", "20260102030405.5"]),
}


def items(depth: int = 2) -> st.SearchStrategy[list[Dataset]]:
    """Few values and many items: the same one comes back under the same and other keywords."""
    leaves = st.fixed_dictionaries({}, optional=VALUES)
    inner = st.just([]) if depth == 0 else items(depth - 1)
    return st.lists(st.builds(_item, leaves, st.none() | inner), max_size=4)


def _item(values: dict[str, object], inner: list[Dataset] | None) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        put(item, keyword, value)
    if inner is not None:
        item.SourceImageSequence = inner
    return item


@settings(max_examples=200, deadline=None)
@given(sequence=items())
def test_equal_to_pydicom_s(sequence: list[Dataset]) -> None:
    assert {dictionary_VR(keyword) for keyword in VALUES} >= {"DS", "UL", "FD", "UI", "LT"}
    whole = Dataset()
    setattr(whole, FRAMES, sequence)
    written, prepared = io.BytesIO(), io.BytesIO()
    with quiet():
        dcmwrite(written, _in_utf8(whole), implicit_vr=False, little_endian=True)
        replaced = Dataset()
        frames = frame_items.encoded(whole[FRAMES], UNICODE)
        replaced[frames.tag] = frames
        dcmwrite(prepared, _in_utf8(replaced), implicit_vr=False, little_endian=True)
    assert prepared.getvalue() == written.getvalue()


def _in_utf8(dataset: Dataset) -> Dataset:
    dataset.SpecificCharacterSet = UNICODE
    return dataset


@pytest.mark.parametrize("multi_frame", [False, True])
def test_a_whole_segmentation_is_written_alike(multi_frame: bool) -> None:
    drawn = phantom.markers(phantom.regular((8, 24, 20), (3.0, 2.0, 2.5)))
    datasets = [phantom.enhanced(drawn)] if multi_frame else phantom.datasets(drawn)
    _, made, _ = encoded.results(datasets)
    written = io.BytesIO()
    with quiet():
        dcmwrite(written, made, enforce_file_format=True)
    assert to_bytes(made) == written.getvalue()
    assert len(made[FRAMES].value) > 2
