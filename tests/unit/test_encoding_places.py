"""Boxes, points, answers and intervals in reports: what is read back is what was found, where.

Not covered: planar images (test_encoding_planar), validators and other readers (tests/conformance).
"""

import hashlib
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from inference import phantom, volume
from inference.encoding import measurement_report, segmentation
from inference.encoding.common import to_bytes
from inference.errors import EncodingError
from inference.findings import (
    Box,
    Classification,
    Detection,
    Findings,
    Keypoint,
    Measurement,
    Verdict,
)
from inference.volume import Stack
from tests import encoded
from tests.reports import certainty, groups, of_type, said, tracking, values
from tests.volumes import orientations, turned

BEFORE = {  # SHA-256 of segmentation and report, from before there were other kinds of findings
    "plain": (
        "559003a9064058e0b679115c0c0ea6a8492e0ae6f173e7dc178d2f8d52fb3062",
        "50949730906e9749adaca622c1c805cbf62f0b460122a7e49685d94e26fdde62",
    ),
    "enhanced": (
        "ec295e4f58150279871a58407dd6c33a4decd2e728f5af5801686de0e7d6bc80",
        "d84e8b02d59f6e5f1f4f129a7aeb4f7ed22278cfff4c09ecd105f0dc3678c487",
    ),
}
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
PRESENT = Code("52101004", "SCT", "Present")
BONE_AGE = Measurement(
    name=Code("63932-8", "LN", "Bone age"),
    value=12.3,
    unit=Code("a", "UCUM", "year"),
    interval=(10.0, 14.9),
)


def report_of(stack: Stack, **found: object) -> Dataset:
    """The report of these findings alone, read back from its bytes."""
    findings = Findings(verdict=Verdict.MEASURED, **found)  # type: ignore[arg-type]
    made = measurement_report.encode(stack, findings, provenance=encoded.PROVENANCE)
    return dcmread(io.BytesIO(to_bytes(made)))


@pytest.fixture(scope="module")
def stack() -> Stack:
    return volume.read(encoded.series())


def digest(result: Dataset) -> str:
    return hashlib.sha256(to_bytes(result)).hexdigest()


@pytest.mark.parametrize("name", BEFORE)
def test_what_uses_nothing_new_keeps_its_bytes(name: str) -> None:
    grid = phantom.regular((6, 12, 10), (3.0, 2.0, 2.5))
    sources = {
        "plain": encoded.series(),
        "enhanced": [phantom.enhanced(phantom.markers(grid))],
    }
    _, seg, report = encoded.results(sources[name])
    assert (digest(seg), digest(report)) == BEFORE[name]


@settings(max_examples=25, deadline=None)
@given(
    orientation=orientations,
    reverse=st.booleans(),
    where=st.tuples(st.floats(-0.4, 4.4), st.floats(0, 6), st.floats(0, 8)),
    sizes=st.tuples(st.floats(0.2, 30), st.floats(0.2, 30), st.floats(0.2, 30)),
    angles=st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)),
)
def test_boxes_and_points_are_read_back_where_they_are(
    orientation: tuple[tuple[float, float, float], tuple[float, float, float]],
    reverse: bool,
    where: tuple[float, float, float],
    sizes: tuple[float, float, float],
    angles: tuple[float, float, float],
) -> None:
    grid = phantom.regular((5, 7, 9), (3.0, 2.0, 2.5), right=orientation[0], down=orientation[1])
    datasets = phantom.datasets(phantom.markers(grid))
    stack = volume.read(datasets[::-1] if reverse else datasets)
    point = stack.image.volume.map_indices_to_reference(np.array([where]))[0]
    right, down = turned(angles)
    axes = np.array([right, down, np.cross(right, down)]) * np.reshape(sizes, (3, 1))
    place = (float(point[0]), float(point[1]), float(point[2]))
    box = Box(centre=place, edges=tuple(tuple(map(float, edge)) for edge in axes))
    report = report_of(
        stack,
        detections=(Detection(definition=encoded.NODULE, box=box, probability=0.9),),
        keypoints=(Keypoint(definition=encoded.RIGHT, position=place),),
    )
    section, whole, landmark = groups(report)
    assert_section(section, stack, box)
    assert_whole(whole, box)
    assert_landmark(landmark, stack, point)


def assert_section(group: Dataset, stack: Stack, box: Box) -> None:
    """The outline lies in the image, in the nearest slice, on the sides of the box."""
    (region,) = of_type(group, "SCOORD")
    plane, places = in_stack(region, stack)
    assert np.allclose(places[0], places[-1])
    index = stack.image.volume.map_reference_to_indices(np.array([box.centre]))[0]
    assert abs(plane - index[0]) <= 0.5 + 1e-6
    assert (places >= -0.5 - 1e-4).all()
    assert (places <= np.array(stack.image.volume.spatial_shape[1:]) - 0.5 + 1e-4).all()
    patient = stack.image.volume.map_indices_to_reference(
        np.insert(places, 0, index[0], axis=1)  # the section through the middle
    )
    parts = np.linalg.solve(np.array(box.edges).T, (patient - box.centre).T).T
    assert np.abs(parts).max() <= 0.5 + 1e-3 * (1 + 1 / np.linalg.norm(box.edges, axis=1).min())


def assert_whole(group: Dataset, box: Box) -> None:
    surfaces = of_type(group, "SCOORD3D")
    assert {surface.GraphicType for surface in surfaces} == {"POLYGON"}
    assert len(surfaces) == 6
    corners = np.concatenate([np.reshape(s.GraphicData, (5, 3))[:4] for s in surfaces])
    assert np.allclose(corners.mean(axis=0), box.centre, atol=1e-3)
    parts = np.linalg.solve(np.array(box.edges).T, (corners - box.centre).T).T
    assert np.allclose(np.abs(parts), 0.5, atol=2e-3)
    lengths = sorted(float(np.linalg.norm(edge)) for edge in box.edges)
    found = values(group)
    assert sorted(found[name] for name in ("Width", "Height", "Depth")) == pytest.approx(
        lengths, rel=1e-4
    )


def assert_landmark(group: Dataset, stack: Stack, point: NDArray[np.float64]) -> None:
    (solid,) = of_type(group, "SCOORD3D")
    assert np.allclose(solid.GraphicData, point, atol=1e-3)
    (region,) = of_type(group, "SCOORD")
    plane, places = in_stack(region, stack)
    index = stack.image.volume.map_reference_to_indices(point[None])[0]
    assert abs(plane - index[0]) <= 0.5 + 1e-6
    assert np.allclose(places[0], index[1:], atol=1e-3)


def in_stack(region: Dataset, stack: Stack) -> tuple[int, NDArray[np.float64]]:
    """The slice of a drawing and its (row, column) places there; pixel centres are whole."""
    image = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    planes = {source.sop_instance_uid: k for k, source in enumerate(stack.sources)}
    return planes[image], np.reshape(region.GraphicData, (-1, 2))[:, ::-1] - 0.5


CENTRED = Box(centre=(0.0, 0.0, 0.0), edges=((8.0, 0, 0), (0, 6.0, 0), (0, 0, 4.0)))


def test_width_height_and_depth_are_those_of_the_image(stack: Stack) -> None:
    found = Detection(definition=encoded.NODULE, box=CENTRED, probability=0.93)
    section, whole = groups(report_of(stack, detections=(found,)))
    assert values(whole) == {"Width": 8.0, "Height": 6.0, "Depth": 4.0}
    assert certainty(section) == 93.0
    assert tracking(section) == tracking(whole)


def test_detections_of_one_label_are_told_apart_and_the_same_is_the_same(stack: Stack) -> None:
    one = Detection(definition=encoded.NODULE, box=CENTRED, probability=0.9)
    other = replace(one, box=replace(CENTRED, centre=(4.0, 0.0, 0.0)))
    both = groups(report_of(stack, detections=(one, other, one)))
    names = [tracking(group) for group in both]
    assert [name for name, _ in names[::2]] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    assert len({uid for _, uid in names}) == 3
    turned_round = groups(report_of(stack, detections=(other, one)))
    assert tracking(turned_round[0])[1] == names[2][1]  # a finding is where it is, not its number
    assert tracking(turned_round[2])[1] == names[0][1]


def test_a_box_that_reaches_beyond_the_image_is_cut_there(stack: Stack) -> None:
    wide = replace(CENTRED, edges=((999.0, 0, 0), (0, 6.0, 0), (0, 0, 999.0)))
    found = Detection(definition=encoded.NODULE, box=wide, probability=0.5)
    (region,) = of_type(groups(report_of(stack, detections=(found,)))[0], "SCOORD")
    columns = np.reshape(region.GraphicData, (-1, 2))[:, 0]
    assert (columns.min(), columns.max()) == (0.0, 20.0)


def test_counts_are_said(stack: Stack) -> None:
    one = Detection(definition=encoded.NODULE, box=CENTRED, probability=0.9)
    report = report_of(stack, detections=(one, one))
    assert "Located: Nodule (2)." in encoded.texts(report)
    assert "Analysed; nothing found." not in encoded.texts(report)


def test_an_answer_is_a_code_with_its_certainty(stack: Stack) -> None:
    answer = Classification(question=PNEUMONIA, answer=PRESENT, probability=0.612)
    report = report_of(stack, classifications=(answer, replace(answer, probability=None)))
    first, second = groups(report)
    assert said(first) == {"233604007": "52101004"}
    assert certainty(first) == 61.2
    assert certainty(second) is None
    assert tracking(first)[1] != tracking(second)[1]
    assert "Pneumonia: Present (probability 61.2 %)." in encoded.texts(report)


def test_an_interval_is_the_uncertainty_of_its_number(stack: Stack) -> None:
    report = report_of(stack, measurements=(BONE_AGE,))
    (group,) = groups(report)
    (number,) = of_type(group, "NUM")
    reach = {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in number.ContentSequence
    }
    assert reach == pytest.approx({"371886008": 2.6, "371885007": 2.3})
    assert "Bone age: 95 % prediction interval 10 to 14.9 a." in encoded.texts(report)


def test_an_interval_that_is_none_is_said(stack: Stack) -> None:
    report = report_of(stack, measurements=(replace(BONE_AGE, interval=(math.nan, 13.0)),))
    assert "Not given: the interval of Bone age. It could not be computed." in encoded.texts(report)
    assert "ContentSequence" not in of_type(groups(report)[0], "NUM")[0]


def test_the_probability_of_a_segment_goes_with_it(stack: Stack) -> None:
    found = encoded.findings(stack)
    sure = replace(
        found, segments=(replace(found.segments[0], probability=0.87), *found.segments[1:])
    )
    segs = segmentation.encode(stack, sure, provenance=encoded.PROVENANCE)
    report = measurement_report.encode(
        stack, sure, provenance=encoded.PROVENANCE, segmentations=segs
    )
    assert [certainty(group) for group in groups(report)[:2]] == [87.0, None]


def test_digest_and_licence_of_the_model_go_with_every_result(stack: Stack) -> None:
    provenance = replace(
        encoded.PROVENANCE,
        model_digest="ab" * 32,
        model_licence="Apache-2.0",
        computed="bfloat16 on cpu",
    )
    said = (f"weights SHA-256 {'ab' * 32}", "licence Apache-2.0", "computed in bfloat16 on cpu")
    found = encoded.findings(stack)
    (seg,) = segmentation.encode(stack, found, provenance=provenance)
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmParameters == "; ".join(said)
    report = measurement_report.encode(stack, found, provenance=provenance, segmentations=[seg])
    for group in groups(report):
        parameters = [
            item.TextValue
            for item in group.ContentSequence
            if item.ConceptNameCodeSequence[0].CodeValue == "111002"
        ]
        assert parameters == list(said)


OUTSIDE = Box(centre=(0.0, 0.0, 400.0), edges=CENTRED.edges)
FLAT = Box(centre=(0.0, 0.0, 0.0), edges=((8.0, 0, 0), (0, 6.0, 0), (0, 0, 0.0)))
PIXELS = Box(centre=(4.0, 4.0), edges=((2.0, 0.0), (0.0, 2.0)))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"detections": (Detection(definition=encoded.NODULE, box=OUTSIDE, probability=1.0),)},
         "outside the image"),
        ({"detections": (Detection(definition=encoded.NODULE, box=FLAT, probability=1.0),)},
         "no extent"),
        ({"detections": (Detection(definition=encoded.NODULE, box=PIXELS, probability=1.0),)},
         "3 coordinates"),
        ({"detections": (Detection(definition=encoded.NODULE, box=CENTRED, probability=1.2),)},
         "between 0 and 1"),
        ({"keypoints": (Keypoint(definition=encoded.NODULE, position=(0.0, 99.0, 0.0)),)},
         "outside the image"),
        ({"keypoints": (Keypoint(definition=encoded.NODULE, position=(0.0, math.nan, 0.0)),)},
         "none of this image"),
        ({"keypoints": (Keypoint(definition=encoded.NODULE, position=(1.0, 2.0)),)},
         "three coordinates"),
        ({"measurements": (replace(BONE_AGE, interval=(13.0, 14.0)),)},
         "does not hold its value"),
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_refused(stack: Stack, found: dict[str, object], words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        report_of(stack, **found)
