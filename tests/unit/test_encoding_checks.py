"""Checks: each thing that can be wrong in a result is wrong here once, and found.

Not covered: that right results pass (every other test of encoding does).
"""

import math
import re
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from pydicom import Dataset

from inference import planar, regions, volume
from inference.encoding import (
    canvas,
    checks,
    measurement_report,
    planes,
    segmentation,
    sheets,
    source_headers,
)
from inference.errors import EncodingError
from inference.findings import Findings, Segment, Verdict
from inference.planar import Views
from inference.volume import Stack
from tests import encoded
from tests.pictures import picture

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
            [regions.of_mask(s.mask.array) for s in encoded.findings(stack).segments],
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
    "drawing outside the image": (
        lambda d: setattr(content(d, "SCOORD"), "GraphicData", [0.0, 0.0, 20.5, 3.0]),
        "place of a drawing",
    ),
    "drawing in another image": (
        lambda d: setattr(
            content(d, "SCOORD").ContentSequence[0].ReferencedSOPSequence[0],
            "ReferencedFrameNumber",
            1,
        ),
        "in no image of the source",
    ),
    "point outside the stack": (
        lambda d: setattr(content(d, "SCOORD3D"), "GraphicData", [0.0, 0.0, 0.0, 0.0, 0.0, 99.0]),
        "place of a coordinate",
    ),
    "point that is none": (
        lambda d: setattr(content(d, "SCOORD3D"), "GraphicData", [0.0, 0.0, math.nan]),
        "coordinate in the patient",
    ),
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


def planar_made() -> tuple[Views, Findings, Dataset]:
    pixels = np.zeros((8, 11), np.uint8)
    views = planar.read([picture(pixels)])
    masks = [pixels == 0, pixels == 0]
    masks[0][:4], masks[1][4:] = False, False
    segments = tuple(
        Segment(definition=definition, mask=regions.of_mask(mask))  # type: ignore[arg-type]
        for definition, mask in zip((encoded.RIGHT, encoded.LEFT), masks, strict=True)
    )
    found = Findings(verdict=Verdict.MEASURED, segments=segments)
    (seg,) = segmentation.encode_views(views, [found], provenance=encoded.PROVENANCE)
    return views, found, seg


PLANAR_DAMAGE: dict[str, tuple[Damage, str]] = {
    name: SEGMENTATION_DAMAGE[name]
    for name in ("study", "patient", "matrix", "type", "bit", "frame lost", "numbers", "colour")
} | {
    "place": (set_to("FrameOfReferenceUID", "1.2.3"), "frame of reference"),
    "swapped": (swap_segments, "segmentation voxels"),
    "foreign reference": (SEGMENTATION_DAMAGE["foreign reference"][0], "source of a frame"),
    "another frame": (
        lambda d: setattr(source_of(d), "ReferencedFrameNumber", 2),
        "source of a frame",
    ),
}


@pytest.mark.parametrize("name", PLANAR_DAMAGE)
def test_a_damaged_planar_segmentation_is_found(name: str) -> None:
    views, found, seg = planar_made()
    damage, words = PLANAR_DAMAGE[name]
    damage(seg)
    (sheet,) = sheets.of_views(views, [found])
    masks = [{0: mask} for mask in sheets.masks(sheet, found).values()]
    source = source_headers.read(views.headers)
    with pytest.raises(EncodingError, match=re.escape(words)):
        checks.planar_segmentation(seg, masks, sheet=sheet, source=source)


def test_a_group_of_a_planar_segment_must_be_under_its_own_uid() -> None:
    views, found, seg = planar_made()
    report = measurement_report.encode_views(
        views, [found], provenance=encoded.PROVENANCE, segmentations=[seg]
    )
    canvases = [canvas.of_sheet(sheet) for sheet in sheets.of_views(views, [found])]
    source = source_headers.read(views.headers)
    seg.SegmentSequence[0].TrackingUID = "1.2.3"
    with pytest.raises(EncodingError, match="tracking of the report"):
        checks.measurement_report(report, source=source, segmentations=[seg], canvases=canvases)
