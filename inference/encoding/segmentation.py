"""BINARY segmentations on the source's grid whose voxels are the finding's, or none at all.

PS3.3 A.51: one segment per structure, SNOMED CT codes, one source reference per frame, no empty
frames, no overlap: segments that overlap are in several objects (see `segments`), each a series of
its own. Every object is checked before it is given.
"""

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from inference.encoding import (
    Provenance,
    checks,
    common,
    planar_segmentation,
    planes,
    segments,
    source_headers,
)
from inference.encoding.planes import Plane, Planes
from inference.encoding.segments import Group, Part
from inference.encoding.source_headers import Source, put
from inference.errors import EncodingError
from inference.findings import Findings, Segment
from inference.planar import Views
from inference.volume import Stack

ORDER = 0  # leaves before the report that refers to it
KIND = segments.KIND
Labels = NDArray[np.uint8]
FAR_MM = 1e5


def encode(stack: Stack, findings: Findings, *, provenance: Provenance) -> tuple[Dataset, ...]:
    """The segmentations of these findings on the grid of the stack, () when there are none.

    One object, or as many as hold no overlap. Raises EncodingError when a mask is empty or lies on
    another grid, or when an object does not pass its checks.
    """
    if not findings.segments:
        return ()
    return tuple(_encoded(stack, findings, provenance))


def encode_views(
    views: Views, findings: Sequence[Findings], *, provenance: Provenance
) -> tuple[Dataset, ...]:
    """The segmentations of planar images, one or more for each instance that has segments.

    `findings`: one for each view, in their order. Raises EncodingError as `encode` does.
    """
    return planar_segmentation.encode(views, findings, provenance=provenance)


def _encoded(stack: Stack, findings: Findings, provenance: Provenance) -> Iterator[Dataset]:
    source = source_headers.read(stack.headers)
    grid = planes.of_stack(stack)
    found = [planes.on_grid(segment, stack.image.volume) for segment in findings.segments]
    groups = segments.groups(found, [one.definition.label for one in findings.segments])
    for index, group in enumerate(groups):
        part = Part(index=index, count=len(groups))
        result = _segmentation(
            group, findings, part, grid=grid, source=source, provenance=provenance
        )
        checks.segmentation(result, [found[k] for k in group.members], grid=grid, source=source)
        yield result


def _segmentation(
    group: Group,
    findings: Findings,
    part: Part,
    *,
    grid: Planes,
    source: Source,
    provenance: Provenance,
) -> Dataset:
    labels = group.labels
    used = [index for index in range(len(labels)) if labels[index].any()]
    with source_headers.quiet():
        result = hd.seg.Segmentation(
            source_images=_sources(grid, source, used),
            pixel_array=_arranged(labels, grid, used),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(
                [findings.segments[k] for k in group.members], source, provenance
            ),
            series_instance_uid=common.series_uid(source, provenance, part.kind),
            series_number=common.series_number(source, part.order),
            sop_instance_uid=common.instance_uid(source, provenance, part.kind),
            instance_number=provenance.generation,
            manufacturer=common.MANUFACTURER,
            manufacturer_model_name=common.bounded(provenance.model_name),
            software_versions=common.bounded(provenance.model_version),
            device_serial_number=common.bounded(provenance.device_serial),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=_pixel_measures(grid),
            content_label=segments.content_label(provenance.model_name),
            content_description=segments.content_description(
                findings.reason, findings.limitations, provenance
            ),
            specific_character_set=source_headers.UNICODE,
        )
        segments.complete(result, part, source=source, provenance=provenance)
        result.PixelData = _even(result)
    return result


def _even(result: Dataset) -> bytes:
    """The packed bits with the padding byte that PS3.5 8.1.1 asks for, a zero."""
    bits = int(result.NumberOfFrames) * result.Rows * result.Columns
    packed = bytes(result.PixelData)[: (bits + 7) // 8]
    return packed + b"\0" * (len(packed) % 2)


def _arranged(labels: Labels, grid: Planes, used: Sequence[int]) -> Labels:
    """As highdicom wants them: the planes used, or all frames of a multi-frame source in order."""
    if grid.number_of_frames is None and len(used) == used[-1] - used[0] + 1:
        return labels[used[0] : used[-1] + 1]
    if grid.number_of_frames is None:
        return labels[list(used)]
    frames: Labels = np.zeros((grid.number_of_frames, grid.rows, grid.columns), dtype=np.uint8)
    for index in used:
        frame = grid.planes[index].frame
        if frame is None:
            raise EncodingError("a slice of a multi-frame source has no frame number")
        frames[frame - 1] = labels[index]
    return frames


def _sources(grid: Planes, source: Source, used: Sequence[int]) -> list[Dataset]:
    """Headers for highdicom: what it insists on, without identity (it would log names)."""
    header = _header(grid, source)
    if grid.number_of_frames is not None:
        return [_multi_frame(header, grid)]
    put(header, "ImageOrientationPatient", _decimals(grid.orientation))
    header.update(_pixel_measures(grid)[0])
    return [_single_frame(header, grid.planes[index]) for index in used]


def _header(grid: Planes, source: Source) -> Dataset:
    """What all source instances have in common."""
    header = source_headers.without_identity(source, rows=grid.rows, columns=grid.columns)
    put(header, "FrameOfReferenceUID", source.frame_of_reference_uid)
    put(header, "PositionReferenceIndicator", source.position_reference)
    return header


def _named(shared: Dataset, plane: Plane) -> Dataset:
    """The instance that a plane comes from."""
    header = source_headers.another(shared)
    put(header, "SeriesInstanceUID", plane.reference.series_instance_uid)
    put(header, "SOPInstanceUID", plane.reference.sop_instance_uid)
    put(header, "SOPClassUID", plane.reference.sop_class_uid)
    return header


def _single_frame(shared: Dataset, plane: Plane) -> Dataset:
    header = _named(shared, plane)
    put(header, "ImagePositionPatient", _decimals(plane.position))
    return header


def _multi_frame(shared: Dataset, grid: Planes) -> Dataset:
    header = _named(shared, grid.planes[0])
    put(header, "NumberOfFrames", grid.number_of_frames)
    groups = Dataset()
    groups.PlaneOrientationSequence = [Dataset()]
    put(groups.PlaneOrientationSequence[0], "ImageOrientationPatient", _decimals(grid.orientation))
    groups.PixelMeasuresSequence = _pixel_measures(grid)
    header.SharedFunctionalGroupsSequence = [groups]
    by_frame = {plane.frame: plane.position for plane in grid.planes}
    header.PerFrameFunctionalGroupsSequence = [
        _frame_groups(by_frame.get(frame) or _elsewhere(frame, grid))
        for frame in range(1, (grid.number_of_frames or 0) + 1)
    ]
    return header


def _elsewhere(frame: int, grid: Planes) -> tuple[float, ...]:
    """A place far away for a frame outside the stack: highdicom wants one, no result has it."""
    right, down = np.reshape(grid.orientation, (2, 3))
    far = FAR_MM + frame * grid.distance
    place = np.asarray(grid.planes[0].position) + far * np.cross(right, down)
    return tuple(float(value) for value in place)


def _frame_groups(position: Sequence[float]) -> Dataset:
    groups, item = Dataset(), Dataset()
    put(item, "ImagePositionPatient", _decimals(position))
    groups.PlanePositionSequence = [item]
    return groups


def _pixel_measures(grid: Planes) -> hd.PixelMeasuresSequence:
    return hd.PixelMeasuresSequence(
        pixel_spacing=grid.pixel_spacing,
        slice_thickness=grid.thickness,
        spacing_between_slices=grid.distance,
    )


def _decimals(values: Sequence[float]) -> list[str]:
    return [format_number_as_ds(value) for value in values]


def _descriptions(
    chosen: Sequence[Segment], source: Source, provenance: Provenance
) -> list[hd.seg.SegmentDescription]:
    return [
        segments.description(
            segment.definition,
            number,
            tracking_uid=common.tracking_uid(source, provenance, segment.definition.label),
            provenance=provenance,
        )
        for number, segment in enumerate(chosen, start=1)
    ]
