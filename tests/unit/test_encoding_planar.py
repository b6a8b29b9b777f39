"""Planar images: masks, boxes and points come back from the result objects pixel for pixel.

Not covered: reading planar images (test_planar_reading), validators (tests/conformance).
"""

import io
from collections.abc import Sequence
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from inference import planar, regions
from inference.encoding import measurement_report, report_words, segmentation, summary
from inference.encoding.common import to_bytes
from inference.errors import EncodingError
from inference.findings import (
    Box,
    Detection,
    Findings,
    Keypoint,
    Measurement,
    Segment,
    SegmentDefinition,
    Verdict,
)
from inference.planar import Views
from tests import encoded
from tests.pictures import CINE, CR, DX, PHOTO, picture
from tests.reports import groups, of_type, tracking, values
from tests.unit.test_encoding_places import BONE_AGE

Mask = NDArray[np.bool_]
NAMES = ("Heart", "Lung", "Rib")


def definition(label: str) -> SegmentDefinition:
    return replace(encoded.NODULE, label=label)


def series(count: int, frames: int | None, shape: tuple[int, int], **elements: object) -> Views:
    """Radiographs, or cines of so many frames."""
    size = shape if frames is None else (frames, *shape)
    values = np.arange(np.prod(size), dtype=np.uint8).reshape(size)
    kind = CR if frames is None else CINE
    made = [picture(values, kind, name=str(n + 1), frames=frames, **elements) for n in range(count)]
    return planar.read(made)


def segmented(masks: Sequence[Sequence[Mask]]) -> list[Findings]:
    return [
        Findings(
            verdict=Verdict.MEASURED,
            segments=tuple(
                Segment(definition=definition(name), mask=regions.of_mask(mask))  # type: ignore[arg-type]
                for name, mask in zip(NAMES, chosen, strict=False)
                if mask.any()
            ),
        )
        for chosen in masks
    ]


def reread(result: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(result)))


def read_back(objects: Sequence[Dataset]) -> dict[tuple[str, str, int], Mask]:
    """Masks by label, source instance and frame (0: one image), by pydicom alone."""
    found = {}
    for seg in map(reread, objects):
        frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
        labels = {one.SegmentNumber: str(one.SegmentLabel) for one in seg.SegmentSequence}
        shared = seg.SharedFunctionalGroupsSequence[0]
        for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            owner = group if "SegmentIdentificationSequence" in group else shared
            number = owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            image = group.DerivationImageSequence[0].SourceImageSequence[0]
            place = int(image.get("ReferencedFrameNumber", 0))
            key = (labels[number], str(image.ReferencedSOPInstanceUID), place)
            assert key not in found
            found[key] = frame > 0
    return found


@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(1, 3),
    frames=st.sampled_from([None, 2, 4]),
    shape=st.tuples(st.integers(3, 12), st.integers(3, 17)),
    density=st.floats(0.02, 0.5),
    seed=st.integers(0, 999),
)
def test_masks_come_back_pixel_for_pixel(
    count: int, frames: int | None, shape: tuple[int, int], density: float, seed: int
) -> None:
    views = series(count, frames, shape)
    random = np.random.default_rng(seed)
    masks = [[random.random(shape) < density for _ in NAMES] for _ in views.views]
    found = segmented(masks)
    objects = segmentation.encode_views(views, found, provenance=encoded.PROVENANCE)
    again = segmentation.encode_views(views, found, provenance=encoded.PROVENANCE)
    assert [to_bytes(one) for one in objects] == [to_bytes(one) for one in again]
    expected = {
        (name, view.source.sop_instance_uid, view.source.frame_number or 0): mask
        for view, chosen in zip(views.views, masks, strict=True)
        for name, mask in zip(NAMES, chosen, strict=True)
        if mask.any()
    }
    read = read_back(objects)
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[key], mask) for key, mask in expected.items())
    assert len({one.SeriesInstanceUID for one in objects}) == len(objects)
    report = measurement_report.encode_views(
        views, found, provenance=encoded.PROVENANCE, segmentations=objects
    )
    assert len(groups(report)) == len(expected)


def test_highdicom_reads_the_masks_of_an_instance() -> None:
    views = series(1, None, (8, 11))
    mask = np.zeros((8, 11), np.bool_)
    mask[2:5, 3:9] = True
    (seg,) = segmentation.encode_views(
        views, segmented([[mask, ~mask]]), provenance=encoded.PROVENANCE
    )
    opened = hd.seg.Segmentation.from_dataset(reread(seg))
    uid = views.views[0].source.sop_instance_uid
    read = opened.get_pixels_by_source_instance([uid], ignore_spatial_locations=True)
    assert np.array_equal(read[0, ..., 0], mask)
    assert np.array_equal(read[0, ..., 1], ~mask)


def test_it_lies_nowhere_in_the_patient_but_keeps_its_orientation() -> None:
    views = series(1, None, (8, 11), PatientOrientation=["L", "F"], PixelSpacing=["0.5", "0.25"])
    mask = np.ones((8, 11), np.bool_)
    (seg,) = segmentation.encode_views(views, segmented([[mask]]), provenance=encoded.PROVENANCE)
    assert list(seg.PatientOrientation) == ["L", "F"]
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert "FrameOfReferenceUID" not in seg
    assert "PlaneOrientationSequence" not in shared


@pytest.mark.parametrize("kind", [CR, DX, PHOTO])
@settings(max_examples=10, deadline=None)
@given(
    centre=st.tuples(st.floats(0, 10), st.floats(0, 7)),
    size=st.tuples(st.floats(0.2, 30), st.floats(0.2, 30)),
    angle=st.floats(-3, 3),
)
def test_boxes_and_points_come_back_where_they_are(
    kind: str, centre: tuple[float, float], size: tuple[float, float], angle: float
) -> None:
    colour = kind == PHOTO
    pixels = np.zeros((8, 11, 3) if colour else (8, 11), np.uint8)
    views = planar.read([picture(pixels, kind, colour=colour)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    edges = turn * np.reshape(size, (2, 1))
    box = Box(centre=centre, edges=tuple((float(x), float(y)) for x, y in edges))
    found = Findings(
        verdict=Verdict.MEASURED,
        detections=(Detection(definition=encoded.NODULE, box=box, probability=0.5),),
        keypoints=(Keypoint(definition=encoded.RIGHT, position=centre),),
    )
    report = reread(measurement_report.encode_views(views, [found], provenance=encoded.PROVENANCE))
    region, point = groups(report)
    (outline,) = of_type(region, "SCOORD")
    corners = np.reshape(outline.GraphicData, (-1, 2)) - 0.5  # column, row; centres are whole
    parts = np.linalg.solve(edges.T, (corners - centre).T).T
    assert np.abs(parts).max() <= 0.5 + 1e-4 / min(size)
    inside = np.concatenate([corners + 0.5, [11, 8] - corners - 0.5])
    assert inside.min() >= -1e-4
    (place,) = of_type(point, "SCOORD")
    assert np.allclose(np.array(place.GraphicData) - 0.5, centre, atol=1e-4)
    assert not of_type(region, "SCOORD3D") + of_type(point, "SCOORD3D")


def detected(views: Views) -> list[Findings]:
    box = Box(centre=(5.0, 3.0), edges=((4.0, 0.0), (0.0, 2.0)))
    one = Detection(definition=encoded.NODULE, box=box, probability=0.9)
    return [Findings(verdict=Verdict.MEASURED, detections=(one,)) for _ in views.views]


@pytest.mark.parametrize(
    ("stated", "lengths", "words"),
    [
        ({}, {}, "the image states no pixel spacing"),
        ({"PixelSpacing": ["0.5", "0.25"]}, {"Width": 1.0, "Height": 1.0}, "none of them"),
        ({"ImagerPixelSpacing": ["0.5", "0.25"]}, {"Width": 1.0, "Height": 1.0}, "at the detector"),
    ],
)
def test_lengths_are_given_where_they_are_known(
    stated: dict[str, object], lengths: dict[str, float], words: str
) -> None:
    views = series(1, None, (8, 11), **stated)
    report = measurement_report.encode_views(views, detected(views), provenance=encoded.PROVENANCE)
    (group,) = groups(report)
    assert values(group) == {**lengths, "Certainty of Finding": 90.0}
    about = [note for note in (report_words.AT_DETECTOR, report_words.NO_SPACING) if words in note]
    assert [note for note in about if note in encoded.texts(report)] == about


def test_the_area_of_a_segment_is_given_in_square_millimetres() -> None:
    views = series(1, None, (8, 11), PixelSpacing=["0.5", "0.25"])
    mask = np.zeros((8, 11), np.bool_)
    mask[2:4, 3:7] = True
    found = segmented([[mask]])
    segs = segmentation.encode_views(views, found, provenance=encoded.PROVENANCE)
    report = measurement_report.encode_views(
        views, found, provenance=encoded.PROVENANCE, segmentations=segs
    )
    (group,) = groups(report)
    assert values(group) == {"Long axis": pytest.approx(2**0.5, rel=1e-5), "Area": 1.0}
    assert tracking(group) == ("Heart", segs[0].SegmentSequence[0].TrackingUID)


@pytest.mark.parametrize(
    ("frames", "elements", "words"),
    [
        (None, {}, "24 pixels"),
        (None, {"PixelSpacing": [5.0, 5.0], "PixelSpacingCalibrationType": "GEOMETRY"}, "6 cm2"),
        (2, {"PixelSpacing": [5.0, 5.0]}, "48 pixels"),
    ],
)
def test_the_size_of_a_segment_is_summed_up_as_far_as_it_is_known(
    frames: int | None, elements: dict[str, object], words: str
) -> None:
    views = series(1, frames, (6, 10), **elements)
    mask = np.zeros((6, 10), np.bool_)
    mask[1:5, 2:8] = True
    found = segmented([[mask]] * len(views.views))
    (seg,) = segmentation.encode_views(views, found, provenance=encoded.PROVENANCE)
    (segment,) = summary.segments(reread(seg))
    assert segment.size == words
    assert not summary.in_patient(seg)


def test_images_are_told_apart_in_words_and_uids() -> None:
    views = series(2, None, (8, 11), ViewPosition="CC", ImageLaterality="L", Modality="MG")
    found = detected(views)
    found[1] = Findings(verdict=Verdict.MEASURED)
    report = measurement_report.encode_views(views, found, provenance=encoded.PROVENANCE)
    (group,) = groups(report)
    assert tracking(group)[0].startswith("image 1")
    texts = encoded.texts(report)
    first, second = (
        next(line for line in texts if end in line)
        for end in ("Located: Nodule (1).", "Analysed; nothing found.")
    )
    assert (first[:7], second[:7]) == ("image 1", "image 2")
    both = measurement_report.encode_views(views, detected(views), provenance=encoded.PROVENANCE)
    assert len({tracking(group)[1] for group in groups(both)}) == 2
    assert "Located: Nodule (1)." in encoded.texts(both)  # of all images, so without a name


def test_numbers_of_an_image_stay_with_it() -> None:
    views = series(1, 3, (8, 11))
    number = Measurement(name=BONE_AGE.name, value=7.0, unit=BONE_AGE.unit)
    found = [Findings(verdict=Verdict.MEASURED) for _ in views.views]
    found[1] = replace(found[1], measurements=(number,))
    report = measurement_report.encode_views(views, found, provenance=encoded.PROVENANCE)
    (group,) = groups(report)
    (point,) = of_type(group, "SCOORD")
    assert point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    assert values(group) == {"Bone age": 7.0}


def test_what_is_of_another_image_is_refused() -> None:
    views = series(2, None, (8, 11))
    wrong = segmented([[np.ones((7, 11), np.bool_)], []])
    with pytest.raises(EncodingError, match="not on the matrix"):
        segmentation.encode_views(views, wrong, provenance=encoded.PROVENANCE)
    with pytest.raises(EncodingError, match="2 images, but 1 findings"):
        segmentation.encode_views(views, wrong[:1], provenance=encoded.PROVENANCE)
    right = segmented([[np.ones((8, 11), np.bool_)], []])
    with pytest.raises(EncodingError, match="the same findings"):
        measurement_report.encode_views(views, right, provenance=encoded.PROVENANCE)
