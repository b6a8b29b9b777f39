"""Reports: what they say, where it is drawn, what they refer to, and what they refuse to say.

Not covered: validators and other readers (tests/conformance), headers (test_encoding_headers).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from inference import phantom, regions, volume
from inference.encoding import Reference, measurement_report, planes, segmentation
from inference.encoding.drawing import of_region, point_inside
from inference.encoding.report_items import rounded
from inference.errors import EncodingError
from inference.findings import Findings, Verdict
from inference.volume import Stack
from tests import encoded
from tests.volumes import orientations


@pytest.fixture(scope="module")
def stack() -> Stack:
    return volume.read(encoded.series())


@pytest.fixture(scope="module")
def seg(stack: Stack) -> Dataset:
    (result,) = segmentation.encode(stack, encoded.findings(stack), provenance=encoded.PROVENANCE)
    return result


@pytest.fixture(scope="module")
def report(stack: Stack, seg: Dataset) -> Dataset:
    return measurement_report.encode(
        stack, encoded.findings(stack), provenance=encoded.PROVENANCE, segmentations=[seg]
    )


def items(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", ()):
        yield item
        yield from items(item)


def groups(report: Dataset) -> list[Dataset]:
    return [item for item in items(report) if named(item) == "125007"]


def named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def values(group: Dataset) -> dict[str, float]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(
            item.MeasuredValueSequence[0].NumericValue
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def test_highdicom_reads_the_measurements_of_each_segment(report: Dataset, seg: Dataset) -> None:
    content = hd.sr.Comprehensive3DSR.from_dataset(report).content
    assert isinstance(content, hd.sr.MeasurementReport)
    for segment in seg.SegmentSequence:
        (group,) = content.get_volumetric_roi_measurement_groups(tracking_uid=segment.TrackingUID)
        assert group.tracking_identifier == segment.SegmentLabel
        volumes = group.get_measurements(name=hd.sr.CodedConcept("118565006", "SCT", "Volume"))
        assert volumes[0].unit.value == "cm3"
        reference = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSegmentNumber == segment.SegmentNumber
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID


def test_it_is_an_unverified_preliminary_report_of_a_device(report: Dataset) -> None:
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.CompletionFlag == "COMPLETE"
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert report.VerificationFlag == "UNVERIFIED"
    assert named(report) == "126000"
    observers = [item for item in items(report) if named(item) == "121013"]
    assert [str(item.TextValue) for item in observers] == ["HOUNSFIELD"]


def test_it_says_what_is_withheld_why_and_what_limits_it(report: Dataset) -> None:
    said = encoded.texts(report)
    assert "Some measurements are withheld: the slices are 5.0 mm thick" in said
    assert "Not given: LAA-950, Perc15. Slices must be thin." in said
    assert "Not for diagnosis." in said
    assert "Limitation: Not tested on children." in said


def test_what_belongs_to_all_segments_has_a_group_of_its_own(report: Dataset) -> None:
    right, left, whole, together = groups(report)
    assert values(whole) == {"Volume": 1234.57}
    assert values(together) == {"Volume": 12.5}
    assert str(together.ContentSequence[0].TextValue) == "Right lung + Left lung"
    assert values(right).keys() == values(left).keys()
    references = [item for item in together.ContentSequence if named(item) == "121191"]
    assert list(references[0].ReferencedSOPSequence[0].ReferencedSegmentNumber) == [1, 2]


def test_every_tracked_group_is_drawn(report: Dataset) -> None:
    for group in groups(report):
        assert any(item.ValueType == "SCOORD3D" for item in group.ContentSequence)
        assert any(item.ValueType == "SCOORD" for item in group.ContentSequence)


def test_the_two_drawings_of_a_line_are_one_line(report: Dataset, stack: Stack) -> None:
    places = {source.sop_instance_uid: k for k, source in enumerate(stack.sources)}
    for group in groups(report)[:2]:
        flat = next(i for i in group.ContentSequence if i.ValueType == "SCOORD")
        solid = next(i for i in group.ContentSequence if i.ValueType == "SCOORD3D")
        image = flat.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        pixels = np.reshape(flat.GraphicData, (2, 2)) - 0.5
        indices = np.insert(pixels[:, ::-1], 0, places[image], axis=1)
        ends = stack.image.volume.map_indices_to_reference(indices)
        assert np.allclose(ends, np.reshape(solid.GraphicData, (2, 3)), atol=1e-3)
        length = float(np.linalg.norm(ends[1] - ends[0]))
        assert values(group)["Long axis"] == pytest.approx(length, rel=1e-5)


def test_evidence_is_every_instance_analysed_and_the_segmentation(
    report: Dataset, stack: Stack, seg: Dataset
) -> None:
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named_there = {
        one.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    analysed = {source.sop_instance_uid for source in stack.sources}
    assert named_there == analysed | {seg.SOPInstanceUID}


def test_a_report_that_replaces_another_names_it(stack: Stack, seg: Dataset) -> None:
    earlier = Reference(
        sop_class_uid=Comprehensive3DSRStorage, sop_instance_uid="1.2.3", series_instance_uid="1.2"
    )
    later = replace(encoded.PROVENANCE, predecessor=earlier, generation=2)
    newer = measurement_report.encode(
        stack, encoded.findings(stack), provenance=later, segmentations=[seg]
    )
    series = newer.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert newer.InstanceNumber == 2


def test_not_analysed_says_so_with_the_reason_from_headers_alone() -> None:
    datasets = encoded.series()
    for dataset in datasets:
        del dataset.PixelData
    report = encoded.not_analysed(datasets)
    said = encoded.texts(report)
    assert "Not analysed: slices 3 and 4 are 12.0 mm apart" in said
    assert "Not for diagnosis." in said
    assert named(report) != "126000"  # OHIF fails on a measurement report without measurements
    assert groups(report) == []


def test_not_analysed_series_of_any_class_have_a_report() -> None:
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.113619.4.26", "1.2.3.4"):
        (dataset,) = encoded.series()[:1]
        dataset.SOPClassUID, dataset.Modality = sop_class, "OT"
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
            delattr(dataset, keyword)
        report = encoded.not_analysed([dataset])
        study = report.CurrentRequestedProcedureEvidenceSequence[0]
        one = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert one.ReferencedSOPClassUID == sop_class


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_becomes_a_sentence(
    stack: Stack, seg: Dataset, value: float
) -> None:
    found = encoded.findings(stack)
    broken = (replace(found.measurements[0], value=value), *found.measurements[1:])
    report = measurement_report.encode(
        stack,
        replace(found, measurements=broken),
        provenance=encoded.PROVENANCE,
        segmentations=[seg],
    )
    assert "Volume" not in values(groups(report)[0])
    assert "Not given: Volume of Right lung. It could not be computed." in encoded.texts(report)


def test_measurements_without_segments_are_given_at_a_point_of_the_image(stack: Stack) -> None:
    found = encoded.findings(stack)
    bare = replace(found, segments=(), measurements=found.measurements[-2:-1])
    report = measurement_report.encode(stack, bare, provenance=encoded.PROVENANCE)
    (group,) = groups(report)
    assert values(group) == {"Volume": 1234.57}


def test_nothing_found_is_said(stack: Stack) -> None:
    nothing = Findings(verdict=Verdict.MEASURED)
    report = measurement_report.encode(stack, nothing, provenance=encoded.PROVENANCE)
    assert "Analysed; nothing found." in encoded.texts(report)


def test_a_report_and_its_segmentation_belong_together(stack: Stack, seg: Dataset) -> None:
    found = encoded.findings(stack)
    with pytest.raises(EncodingError, match="the same findings"):
        measurement_report.encode(stack, found, provenance=encoded.PROVENANCE)
    with pytest.raises(EncodingError, match="need the stack"):
        measurement_report.encode(
            stack.headers, found, provenance=encoded.PROVENANCE, segmentations=[seg]
        )
    stray = replace(found, measurements=(replace(found.measurements[0], segment="Spleen"),))
    with pytest.raises(EncodingError, match="no segment: Spleen"):
        measurement_report.encode(stack, stray, provenance=encoded.PROVENANCE, segmentations=[seg])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_fit_a_decimal_string(value: float) -> None:
    short = rounded(value)
    assert (
        len(
            str(
                hd.sr.NumContentItem(
                    name=hd.sr.CodedConcept("118565006", "SCT", "Volume"),
                    value=short,
                    unit=hd.sr.CodedConcept("cm3", "UCUM", "cm3"),
                    relationship_type="CONTAINS",
                )
                .MeasuredValueSequence[0]
                .NumericValue
            )
        )
        <= 16
    )
    assert short == pytest.approx(value, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(orientation=orientations, seed=st.integers(0, 999))
def test_the_long_axis_is_the_greatest_extent_of_the_widest_slice(
    orientation: tuple[tuple[float, float, float], tuple[float, float, float]], seed: int
) -> None:
    grid = phantom.regular((4, 7, 9), (3.0, 2.0, 2.5), right=orientation[0], down=orientation[1])
    stack = volume.read(phantom.datasets(phantom.markers(grid)))
    mask = np.random.default_rng(seed).random((4, 7, 9)) < 0.15
    mask[2, 3, 3] = True
    grid_of_source = planes.of_stack(stack)
    axis = of_region(regions.of_mask(mask), grid_of_source.pixel_spacing)
    plane = axis.line.plane
    areas = mask.sum(axis=(1, 2))
    assert areas[plane] == areas.max()
    corners = [
        stack.image.volume.map_indices_to_reference(np.array([[plane, row, column]]))[0]
        for y, x in np.argwhere(mask[plane])
        for row, column in itertools.product((y - 0.5, y + 0.5), (x - 0.5, x + 0.5))
    ]
    extent = max(math.dist(a, b) for a, b in itertools.combinations(corners, 2))
    assert axis.length == pytest.approx(extent, abs=1e-3)
    ends = axis.line.in_patient(grid_of_source)
    assert axis.length == pytest.approx(math.dist(*ends), abs=1e-6)
    point = point_inside(regions.of_mask(mask))
    row, column = point.places[0].astype(int)
    assert mask[point.plane, row, column]
