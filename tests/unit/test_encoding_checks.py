"""Checks: each thing that can be wrong in a result is wrong here once, and found.

Not covered: that right results pass (every other test of encoding does).
"""

import re
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from pydicom import Dataset

from inference import volume
from inference.encoding import canvas, checks, planes, source_headers
from inference.errors import EncodingError
from inference.volume import Stack
from tests import encoded

Damage = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def made() -> tuple[Stack, Dataset, Dataset]:
    return encoded.results(encoded.series())


def group(dataset: Dataset, index: int = 0) -> Dataset:
    chosen: Dataset = dataset.PerFrameFunctionalGroupsSequence[index]
    return chosen


def set_to(keyword: str, value: object) -> Damage:
    return lambda dataset: setattr(dataset, keyword, value)


def flip_one_bit(dataset: Dataset) -> None:
    bits = bytearray(dataset.PixelData)
    bits[7] ^= 4
    dataset.PixelData = bytes(bits)


def forget_a_frame(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.NumberOfFrames -= 1


def move_a_frame(dataset: Dataset) -> None:
    group(dataset).PlanePositionSequence[0].ImagePositionPatient[2] += 0.01


def swap_segments(dataset: Dataset) -> None:
    for one in dataset.PerFrameFunctionalGroupsSequence:
        item = one.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 3 - item.ReferencedSegmentNumber


def source_of(dataset: Dataset) -> Dataset:
    item: Dataset = group(dataset).DerivationImageSequence[0].SourceImageSequence[0]
    return item


def shared(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.SharedFunctionalGroupsSequence[0]
    return item


SEGMENTATION_DAMAGE: dict[str, tuple[Damage, str]] = {
    "study": (set_to("StudyInstanceUID", "1.2.3"), "study"),
    "patient": (set_to("PatientID", "someone else"), "PatientID"),
    "name": (set_to("PatientName", "Else^Someone"), "PatientName"),
    "frame of reference": (set_to("FrameOfReferenceUID", "1.2.3"), "frame of reference"),
    "matrix": (set_to("Rows", 25), "matrix"),
    "type": (set_to("SegmentationType", "FRACTIONAL"), "segmentation type"),
    "bit": (flip_one_bit, "segmentation voxels"),
    "frame lost": (forget_a_frame, "set of frames"),
    "frame moved": (move_a_frame, "position of a frame"),
    "segments swapped": (swap_segments, "segmentation voxels"),
    "no reference": (lambda d: delattr(group(d), "DerivationImageSequence"), "no source reference"),
    "foreign reference": (
        lambda d: setattr(source_of(d), "ReferencedSOPInstanceUID", "1.2.3"),
        "no slice of the source",
    ),
    "numbers": (lambda d: setattr(d.SegmentSequence[0], "SegmentNumber", 5), "numbering"),
    "tracking": (
        lambda d: setattr(d.SegmentSequence[0], "TrackingUID", d.SegmentSequence[1].TrackingUID),
        "tracking of the segments",
    ),
    "colour": (
        lambda d: delattr(d.SegmentSequence[0], "RecommendedDisplayCIELabValue"),
        "colour of a segment",
    ),
    "orientation": (
        lambda d: setattr(
            shared(d).PlaneOrientationSequence[0], "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]
        ),
        "orientation",
    ),
    "pixel spacing": (
        lambda d: setattr(shared(d).PixelMeasuresSequence[0], "PixelSpacing", [2.5, 2.0]),
        "pixel spacing",
    ),
    "slice spacing": (
        lambda d: setattr(shared(d).PixelMeasuresSequence[0], "SpacingBetweenSlices", 2.9),
        "spacing between slices",
    ),
}


@pytest.mark.parametrize("name", SEGMENTATION_DAMAGE)
def test_a_damaged_segmentation_is_found(made: tuple[Stack, Dataset, Dataset], name: str) -> None:
    stack, seg, _ = made
    damage, words = SEGMENTATION_DAMAGE[name]
    damaged = deepcopy(seg)
    damage(damaged)
    with pytest.raises(EncodingError, match=re.escape(words)):
        checks.segmentation(
            damaged,
            [np.asarray(s.mask.array) for s in encoded.findings(stack).segments],
            grid=planes.of_stack(stack),
            source=source_headers.read(stack.headers),
        )


def measurement_groups(report: Dataset) -> list[Dataset]:
    container = next(
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    return list(container.ContentSequence)


def content(report: Dataset, value_type: str) -> Dataset:
    found: Dataset = next(
        item
        for one in measurement_groups(report)
        for item in one.ContentSequence
        if item.ValueType == value_type
    )
    return found


def undraw(report: Dataset) -> None:
    first = measurement_groups(report)[0]
    first.ContentSequence = [i for i in first.ContentSequence if "SCOORD" not in i.ValueType]


def untrack(report: Dataset) -> None:
    first = measurement_groups(report)[0]
    first.ContentSequence = [i for i in first.ContentSequence if i.ValueType != "UIDREF"]


def add_evidence(report: Dataset) -> None:
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


REPORT_DAMAGE: dict[str, tuple[Damage, str]] = {
    "study": (set_to("StudyInstanceUID", "1.2.3"), "study"),
    "patient": (set_to("PatientID", "someone else"), "PatientID"),
    "evidence": (add_evidence, "evidence"),
    "reference": (
        lambda d: setattr(
            content(d, "IMAGE").ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "1.2.3"
        ),
        "reference of the report",
    ),
    "value": (
        lambda d: source_headers.put(
            content(d, "NUM").MeasuredValueSequence[0], "NumericValue", "nan"
        ),
        "value of a measurement",
    ),
    "place": (
        lambda d: setattr(content(d, "SCOORD3D"), "ReferencedFrameOfReferenceUID", "1.2.3"),
        "frame of reference of a coordinate",
    ),
    "tracking": (
        lambda d: setattr(content(d, "UIDREF"), "UID", "1.2.3"),
        "tracking of the report",
    ),
    "no tracking": (untrack, "no tracking identifier"),
    "segment": (
        lambda d: setattr(
            content(d, "IMAGE").ReferencedSOPSequence[0], "ReferencedSegmentNumber", 7
        ),
        "tracking of the report",
    ),
    "drawing": (undraw, "drawing of a finding"),
}


@pytest.mark.parametrize("name", REPORT_DAMAGE)
def test_a_damaged_report_is_found(made: tuple[Stack, Dataset, Dataset], name: str) -> None:
    stack, seg, report = made
    damage, words = REPORT_DAMAGE[name]
    damaged = deepcopy(report)
    damage(damaged)
    source = source_headers.read(stack.headers)
    canvases = [canvas.of_planes(planes.of_stack(stack))]
    with pytest.raises(EncodingError, match=re.escape(words)):
        checks.measurement_report(damaged, source=source, segmentations=[seg], canvases=canvases)


def test_the_frames_are_unpacked_across_bytes() -> None:
    """A matrix whose pixels are no multiple of eight: frames begin inside a byte."""
    grid_series = encoded.series((6, 7, 5))
    stack = volume.read(grid_series)
    _, seg, _ = encoded.results(grid_series)
    assert (seg.Rows * seg.Columns) % 8
    assert len(stack.sources) == 6
