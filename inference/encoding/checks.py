"""No result leaves with a voxel, a position, a reference or an identity that is not its source's.

These are the cross-checks that no validator makes: the object is read back from its own elements
and compared with the findings and the source. They also hold the rules without which OHIF shows a
wrong picture or none (one source reference per frame, the source's matrix, no overlap, numbers 1 to
n, coordinates in every tracked group). EncodingError names the first thing that is wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from inference import coding
from inference.encoding.canvas import Canvas, within
from inference.encoding.planes import Plane, Planes
from inference.encoding.sheets import Sheet
from inference.encoding.source_headers import Source, numbers, text
from inference.errors import EncodingError
from inference.regions import Region

Mask = NDArray[np.bool_]
LARGEST_POSITION_ERROR = 1e-6  # mm
LARGEST_ROUNDING = 1e-2  # pixels: coordinates are of single precision
COORDINATES = ("SCOORD", "SCOORD3D")


def segmentation(
    result: Dataset, regions: Sequence[Region], *, grid: Planes, source: Source
) -> None:
    """Raise EncodingError unless the object says exactly these regions of this source.

    `regions`: axes (slice, row, column), one per segment, in the order of their numbers.
    """
    _belongs(result, source)
    _require(
        text(result, "FrameOfReferenceUID") == source.frame_of_reference_uid, "frame of reference"
    )
    _require((result.Rows, result.Columns) == (grid.rows, grid.columns), "matrix")
    _require(result.SegmentationType == "BINARY", "segmentation type")
    _segments(result, len(regions))
    _geometry(result, grid)
    _frames(result, regions, grid)


def planar_segmentation(
    result: Dataset, masks: Sequence[Mapping[int, Region]], *, sheet: Sheet, source: Source
) -> None:
    """Raise EncodingError unless the object says exactly these masks, at no place in the patient.

    `masks`: by frame number (0: the instance is one image), axes (row, column), for each segment.
    """
    _belongs(result, source)
    _require("FrameOfReferenceUID" not in result, "frame of reference")
    _require((result.Rows, result.Columns) == (sheet.rows, sheet.columns), "matrix")
    _require(result.SegmentationType == "BINARY", "segmentation type")
    _segments(result, len(masks))
    groups = result.PerFrameFunctionalGroupsSequence
    _require(len(groups) == int(result.NumberOfFrames), "number of frames")
    reference, seen = sheet.reference, set()
    for group, pixels in zip(groups, _pixels(result), strict=True):
        *image, frame = _source_of(group)
        named = [reference.sop_class_uid, reference.sop_instance_uid]
        number = _segment_number(result, group)
        _require(image == named and (frame or 0) in masks[number - 1], "source of a frame")
        expected = masks[number - 1][frame or 0].whole()
        _require(np.array_equal(pixels, expected), "segmentation voxels")
        seen.add((number, frame or 0))
    meant = {(n, frame) for n, one in enumerate(masks, start=1) for frame in one}
    _require(seen == meant and len(groups) == len(meant), "set of frames")


def measurement_report(
    result: Dataset,
    *,
    source: Source,
    segmentations: Sequence[Dataset],
    canvases: Sequence[Canvas] = (),
) -> None:
    """Raise EncodingError unless the report is of this source and segmentations, nothing else.

    `canvases`: what its findings may be drawn on; every point lies inside one of them.
    """
    _belongs(result, source)
    known = _sources(source)
    known |= {(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in segmentations}
    _require(set(_evidence(result)) == known, "evidence")
    images = {_name(image): one for one in canvases for image in one.images}
    grids = [one.grid for one in canvases if one.grid is not None]
    for item in _items(result):
        _refers(item, known)
        _finite(item)
        _in_image(item, images)
        _in_patient(item, source, grids)
    _tracked(result, segmentations)
    _drawn(result)


def frames_of(segmentation: Dataset, number: int, frame: int | None) -> tuple[int, ...]:
    """The frames (from 1) of a segment that are of this frame of their source."""
    groups = segmentation.PerFrameFunctionalGroupsSequence
    return tuple(
        index
        for index, group in enumerate(groups, start=1)
        if _segment_number(segmentation, group) == number and _source_of(group)[2] == frame
    )


def _require(holds: bool, what: str) -> None:  # noqa: FBT001  (reads as a sentence)
    if not holds:
        raise EncodingError(f"the {what} of the result is wrong")


def _belongs(result: Dataset, source: Source) -> None:
    _require(text(result, "StudyInstanceUID") == source.study_uid, "study")
    for keyword in ("PatientID", "PatientName"):
        _require(text(result, keyword) == text(source.identity, keyword), keyword)
    _require(text(result, "SeriesInstanceUID") != source.series_uid, "series")


def _sources(source: Source) -> set[tuple[str, str]]:
    return {(one.sop_class_uid, one.sop_instance_uid) for one in source.references}


def _segments(result: Dataset, count: int) -> None:
    described = [int(segment.SegmentNumber) for segment in result.SegmentSequence]
    _require(described == list(range(1, count + 1)), "numbering of the segments")
    tracking = [text(segment, "TrackingUID") for segment in result.SegmentSequence]
    _require(all(tracking) and len(set(tracking)) == count, "tracking of the segments")
    for segment in result.SegmentSequence:
        _require("RecommendedDisplayCIELabValue" in segment, "colour of a segment")


def _geometry(result: Dataset, grid: Planes) -> None:
    shared = result.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    orientation = numbers(shared.PlaneOrientationSequence[0], "ImageOrientationPatient")
    _require(np.allclose(orientation, grid.orientation, rtol=0, atol=1e-9), "orientation")
    spacing = numbers(measures, "PixelSpacing")
    _require(np.allclose(spacing, grid.pixel_spacing, rtol=1e-9, atol=0), "pixel spacing")
    _require(
        np.allclose(numbers(measures, "SpacingBetweenSlices"), grid.distance, rtol=1e-6, atol=0),
        "spacing between slices",
    )


def _frames(result: Dataset, regions: Sequence[Region], grid: Planes) -> None:
    groups = result.PerFrameFunctionalGroupsSequence
    places = {_name(plane): index for index, plane in enumerate(grid.planes)}
    _require(len(groups) == int(result.NumberOfFrames), "number of frames")
    expected = {
        (n, k)
        for n, region in enumerate(regions)
        for k, plane in enumerate(region.mask, start=region.begin[0])
        if plane.any()
    }
    seen = set()
    for group, pixels in zip(groups, _pixels(result), strict=True):
        segment, place = _segment_number(result, group) - 1, places.get(_source_of(group))
        if place is None:
            raise EncodingError("a frame refers to no slice of the source")
        _positioned(group, grid.planes[place])
        _require(np.array_equal(pixels, regions[segment].plane(place)), "segmentation voxels")
        seen.add((segment, place))
    _require(seen == expected and len(groups) == len(expected), "set of frames")


def _pixels(result: Dataset) -> Iterator[Mask]:
    """The frames, unpacked from the bits themselves (PS3.5 8.1.1: first pixel in the lowest)."""
    packed = np.frombuffer(result.PixelData, dtype=np.uint8)
    size = result.Rows * result.Columns
    for start in range(0, int(result.NumberOfFrames) * size, size):
        first = start // 8
        bits = np.unpackbits(packed[first : (start + size + 7) // 8], bitorder="little")
        pixels = bits[start - first * 8 :][:size]
        yield pixels.astype(np.bool_).reshape(result.Rows, result.Columns)


def _segment_number(result: Dataset, group: Dataset) -> int:
    shared = result.SharedFunctionalGroupsSequence[0]
    owner = group if "SegmentIdentificationSequence" in group else shared
    return int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _source_of(group: Dataset) -> tuple[str, str, int | None]:
    try:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
    except (AttributeError, IndexError) as error:
        raise EncodingError("a frame has no source reference") from error
    frame = image.get("ReferencedFrameNumber")
    return (
        str(image.ReferencedSOPClassUID),
        str(image.ReferencedSOPInstanceUID),
        None if frame is None else int(frame),
    )


def _name(plane: Plane | Sheet) -> tuple[str, str, int | None]:
    return plane.reference.sop_class_uid, plane.reference.sop_instance_uid, plane.frame


def _positioned(group: Dataset, plane: Plane) -> None:
    position = numbers(group.PlanePositionSequence[0], "ImagePositionPatient")
    away = np.abs(np.subtract(position, plane.position)).max()
    _require(bool(away <= LARGEST_POSITION_ERROR), "position of a frame")


def _items(result: Dataset) -> Iterator[Dataset]:
    for item in result.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _evidence(result: Dataset) -> Iterator[tuple[str, str]]:
    for study in result.get("CurrentRequestedProcedureEvidenceSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for one in series.ReferencedSOPSequence:
                yield str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID)


def _refers(item: Dataset, known: set[tuple[str, str]]) -> None:
    for one in item.get("ReferencedSOPSequence", ()):
        named = (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
        _require(named in known, "reference of the report")


def _finite(item: Dataset) -> None:
    for value in item.get("MeasuredValueSequence", ()):
        measured = numbers(value, "NumericValue")
        _require(len(measured) == 1 and bool(np.isfinite(measured[0])), "value of a measurement")


def _in_image(item: Dataset, images: Mapping[tuple[str, str, int | None], Canvas]) -> None:
    """The points of a drawing lie in the image that it names (PS3.3 C.18.6.1.1)."""
    if item.ValueType != "SCOORD":
        return
    image = item.ContentSequence[0].ReferencedSOPSequence[0]
    frame = image.get("ReferencedFrameNumber")
    canvas = images.get(
        (
            str(image.ReferencedSOPClassUID),
            str(image.ReferencedSOPInstanceUID),
            None if frame is None else int(frame),
        )
    )
    if canvas is None:
        raise EncodingError("a drawing is in no image of the source")
    points = np.reshape(item.GraphicData, (-1, 2))
    inside = (points >= -LARGEST_ROUNDING) & (
        points <= np.array([canvas.columns, canvas.rows]) + LARGEST_ROUNDING
    )
    _require(bool(inside.all()), "place of a drawing")


def _in_patient(item: Dataset, source: Source, grids: Sequence[Planes]) -> None:
    """Of the source's frame of reference; only a box may reach beyond the stack."""
    if item.ValueType != "SCOORD3D":
        return
    frame = text(item, "ReferencedFrameOfReferenceUID")
    _require(frame == source.frame_of_reference_uid, "frame of reference of a coordinate")
    points = np.reshape(item.GraphicData, (-1, 3)).astype(np.float64)
    _require(bool(grids) and bool(np.isfinite(points).all()), "coordinate in the patient")
    if item.GraphicType != "POLYGON":
        inside = all(within(point, grid) for point in points for grid in grids)
        _require(inside, "place of a coordinate")


def _groups(result: Dataset) -> Iterator[Dataset]:
    for item in _items(result):
        if _concept(item) == coding.MEASUREMENT_GROUP.value:
            yield item


def _concept(item: Dataset) -> str:
    named = item.get("ConceptNameCodeSequence")
    return str(named[0].CodeValue) if named else ""


def _tracking(group: Dataset) -> str:
    for item in group.ContentSequence:
        if _concept(item) == coding.TRACKING_UNIQUE_IDENTIFIER.value:
            return str(item.UID)
    raise EncodingError("a measurement group has no tracking identifier")


def _tracked(result: Dataset, segmentations: Sequence[Dataset]) -> None:
    """One volumetric group per segment, or a planar one per image, under the segment's UID."""
    objects = {str(one.SOPInstanceUID): one for one in segmentations}
    found = Counter(
        (uid, numbers, _tracking(group))
        for group in _groups(result)
        for uid, numbers in _segment_numbers(group, objects)
    )
    described = [
        ((str(one.SOPInstanceUID), (int(s.SegmentNumber),), str(s.TrackingUID)), _images(one, s))
        for one in segmentations
        for s in one.SegmentSequence
    ]
    _require(all(found[key] == images for key, images in described), "tracking of the report")
    named = {(uid, (number,)) for uid, numbers, _ in found for number in numbers}
    _require(named == {key[:2] for key, _ in described}, "set of segments in the report")


def _images(result: Dataset, segment: Dataset) -> int:
    """Images that have a group for this segment: of a stack all together, else each its own."""
    if "FrameOfReferenceUID" in result:
        return 1
    groups = result.PerFrameFunctionalGroupsSequence
    return sum(_segment_number(result, group) == segment.SegmentNumber for group in groups)


def _segment_numbers(
    group: Dataset, objects: Mapping[str, Dataset]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The object and the segments that a group refers to, by number or by their frames."""
    for item in group.ContentSequence:
        for one in item.get("ReferencedSOPSequence", ()):
            uid = str(one.ReferencedSOPInstanceUID)
            if "ReferencedSegmentNumber" in one:
                yield uid, _values(one.ReferencedSegmentNumber)
            elif uid in objects:
                frames = objects[uid].PerFrameFunctionalGroupsSequence
                for frame in _values(one.ReferencedFrameNumber):
                    yield uid, (_segment_number(objects[uid], frames[frame - 1]),)


def _values(value: Any) -> tuple[int, ...]:
    several = value if isinstance(value, (MultiValue, list)) else [value]
    return tuple(int(number) for number in several)


def _drawn(result: Dataset) -> None:
    """OHIF merges groups by tracking UID and fails on a finding without coordinates."""
    drawn: dict[str, bool] = {}
    for group in _groups(result):
        uid = _tracking(group)
        has = any(item.ValueType in COORDINATES for item in group.ContentSequence)
        drawn[uid] = drawn.get(uid, False) or has
    _require(all(drawn.values()), "drawing of a finding")
