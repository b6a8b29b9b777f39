"""BINARY segmentations of planar images: voxels in the source's matrix, at no place in the patient.

PS3.3 A.51.5 wants either a place in the patient or the source image of every frame (Derivation
Image); a radiograph or photograph has only the second. Every source instance has objects of its
own, as one object has one matrix.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from inference.encoding import Provenance, checks, common, segments, sheets, source_headers
from inference.encoding.segments import Part
from inference.encoding.sheets import Sheet
from inference.encoding.source_headers import Source, put
from inference.errors import EncodingError
from inference.findings import Findings, SegmentDefinition
from inference.planar import Views
from inference.regions import Region

BYTE = 8  # bits
STAND_IN = SecondaryCaptureImageStorage  # highdicom wants functional groups of multi-frame classes
STACK = "1"  # Stack ID: the frames of one instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A segment of one instance: its masks by frame number (0: the instance is one image).

    `tracking`: what its Tracking UID derives from.
    """

    definition: SegmentDefinition
    tracking: str
    masks: dict[int, Region]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One object: what is in it, of which instance, and which of them it is."""

    sheet: Sheet  # the first of the instance
    structures: tuple[Structure, ...]
    part: Part


def encode(
    views: Views, findings: Sequence[Findings], *, provenance: Provenance
) -> tuple[Dataset, ...]:
    """The segmentations of planar images, () when nothing is segmented.

    Raises EncodingError when a mask is empty or of another matrix, or when an object does not pass
    its checks.
    """
    leaves = sheets.of_views(views, findings)
    if not any(found.segments for found in findings):
        return ()
    source = source_headers.read(views.headers)
    plans = list(_plans(leaves, findings))
    return tuple(
        _segmentation(
            replace(plan, part=replace(plan.part, index=index, count=len(plans))),
            findings=findings,
            source=source,
            provenance=provenance,
        )
        for index, plan in enumerate(plans)
    )


def _plans(leaves: Sequence[Sheet], findings: Sequence[Findings]) -> Iterator[Plan]:
    by_instance: dict[str, list[tuple[Sheet, Findings]]] = {}
    for sheet, found in zip(leaves, findings, strict=True):
        by_instance.setdefault(sheet.reference.sop_instance_uid, []).append((sheet, found))
    for uid, frames in by_instance.items():
        structures = _structures(frames)
        for number, group in enumerate(_groups(structures)):
            part = Part(of=f"of {uid} {number}" if number else f"of {uid}")
            yield Plan(sheet=frames[0][0], structures=group, part=part)


def _structures(frames: Sequence[tuple[Sheet, Findings]]) -> tuple[Structure, ...]:
    found: dict[str, Structure] = {}
    for sheet, findings in frames:
        masks, tracked = sheets.masks(sheet, findings), sheets.tracking_labels(sheet, findings)
        for segment in findings.segments:
            label = segment.definition.label
            tracking = tracked[label]
            known = found.setdefault(
                tracking, Structure(definition=segment.definition, tracking=tracking, masks={})
            )
            if known.definition != segment.definition:
                raise EncodingError(f"segment {label!r} is defined otherwise in another frame")
            known.masks[sheet.frame or 0] = masks[label]
    return tuple(found.values())


def _groups(structures: Sequence[Structure]) -> tuple[tuple[Structure, ...], ...]:
    """Each in the first group that has room and where no mask overlaps another of its frame."""
    groups: list[list[Structure]] = []
    taken: list[dict[int, list[Region]]] = []  # of each group, by frame
    for structure in structures:
        place = _free(structure, groups, taken)
        groups[place].append(structure)
        for frame, mask in structure.masks.items():
            taken[place].setdefault(frame, []).append(mask)
    return tuple(tuple(group) for group in groups)


def _free(
    structure: Structure, groups: list[list[Structure]], taken: list[dict[int, list[Region]]]
) -> int:
    """The first group with room for a structure; a new one when none has."""
    for place, group in enumerate(groups):
        if len(group) < segments.MOST_SEGMENTS and not _overlap(structure.masks, taken[place]):
            return place
    groups.append([])
    taken.append({})
    return len(groups) - 1


def _overlap(masks: Mapping[int, Region], taken: Mapping[int, Sequence[Region]]) -> bool:
    return any(mask.overlaps(one) for frame, mask in masks.items() for one in taken.get(frame, ()))


def _segmentation(
    plan: Plan, *, findings: Sequence[Findings], source: Source, provenance: Provenance
) -> Dataset:
    with source_headers.quiet():
        result = _outlined(plan, findings, source=source, provenance=provenance)
        segments.complete(result, plan.part, source=source, provenance=provenance)
        _fill(result, plan)
    masks = [structure.masks for structure in plan.structures]
    checks.planar_segmentation(result, masks, sheet=plan.sheet, source=source)
    return result


def _outlined(
    plan: Plan, findings: Sequence[Findings], *, source: Source, provenance: Provenance
) -> Dataset:
    """All but the frames: highdicom is given one pixel a segment."""
    reasons = dict.fromkeys(found.reason for found in findings if found.reason)
    limitations = dict.fromkeys(line for found in findings for line in found.limitations)
    return hd.seg.Segmentation(
        source_images=[_header(plan.sheet, source)],
        pixel_array=_one_pixel_each(plan),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            segments.description(
                structure.definition,
                number,
                tracking_uid=common.tracking_uid(source, provenance, structure.tracking),
                provenance=provenance,
            )
            for number, structure in enumerate(plan.structures, start=1)
        ],
        series_instance_uid=common.series_uid(source, provenance, plan.part.kind),
        series_number=common.series_number(source, plan.part.order),
        sop_instance_uid=common.instance_uid(source, provenance, plan.part.kind),
        instance_number=provenance.generation,
        manufacturer=common.MANUFACTURER,
        manufacturer_model_name=common.bounded(provenance.model_name),
        software_versions=common.bounded(provenance.model_version),
        device_serial_number=common.bounded(provenance.device_serial),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=segments.content_label(provenance.model_name),
        content_description=segments.content_description(
            "; ".join(reasons) or None, tuple(limitations), provenance
        ),
        specific_character_set=source_headers.UNICODE,
    )


def _header(sheet: Sheet, source: Source) -> Dataset:
    """The instance without a place in the patient and without identity, as one of one frame."""
    header = source_headers.without_identity(source, rows=sheet.rows, columns=sheet.columns)
    put(header, "SeriesInstanceUID", sheet.reference.series_instance_uid)
    put(header, "SOPInstanceUID", sheet.reference.sop_instance_uid)
    put(header, "SOPClassUID", STAND_IN)
    return header


def _one_pixel_each(plan: Plan) -> NDArray[np.uint8]:
    count = len(plan.structures)
    if count > min(segments.MOST_SEGMENTS, plan.sheet.rows * plan.sheet.columns):
        raise EncodingError(f"{count} segments are too many for one object")
    labels: NDArray[np.uint8] = np.zeros((1, plan.sheet.rows, plan.sheet.columns), dtype=np.uint8)
    labels.flat[:count] = range(1, count + 1)
    return labels


def _fill(result: Dataset, plan: Plan) -> None:
    """The frames themselves, each with the image that it is of."""
    derived = result.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    instance = result.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    for image in (instance, derived.SourceImageSequence[0]):
        put(image, "ReferencedSOPClassUID", plan.sheet.reference.sop_class_uid)
    places = [
        (number, frame)
        for number, structure in enumerate(plan.structures, start=1)
        for frame in sorted(structure.masks)
    ]
    frames = sorted({frame for _, frame in places})
    result.PerFrameFunctionalGroupsSequence = [
        _groups_of_frame(
            number,
            frame,
            derived=derived,
            index=frames.index(frame) + 1,
            alone=len(plan.structures) == 1,
        )
        for number, frame in places
    ]
    if plan.sheet.frame is not None:
        _index_frames(result)
    if plan.sheet.in_patient is not None:
        measures = Dataset()
        spacing = [format_number_as_ds(value) for value in plan.sheet.in_patient]
        put(measures, "PixelSpacing", spacing)
        result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]
    put(result, "PatientOrientation", list(plan.sheet.patient_orientation))
    put(result, "NumberOfFrames", len(places))
    result.PixelData = _packed([plan.structures[number - 1].masks[f] for number, f in places])


def _groups_of_frame(
    number: int, frame: int, *, derived: Dataset, index: int, alone: bool
) -> Dataset:
    groups, content = Dataset(), Dataset()
    put(content, "DimensionIndexValues", [number, index] if frame else [number])
    if frame:
        put(content, "StackID", STACK)
        put(content, "InStackPositionNumber", frame)
    groups.FrameContentSequence = [content]
    groups.DerivationImageSequence = [_of_frame(derived, frame)]
    if not alone:
        identification = Dataset()
        put(identification, "ReferencedSegmentNumber", number)
        groups.SegmentIdentificationSequence = [identification]
    return groups


def _of_frame(derived: Dataset, frame: int) -> Dataset:
    derivation = source_headers.another(derived)
    image = source_headers.another(derived.SourceImageSequence[0])
    if frame:
        put(image, "ReferencedFrameNumber", frame)
    put(derivation, "SourceImageSequence", [image])
    return derivation


def _index_frames(result: Dataset) -> None:
    """The second dimension of frames of a multi-frame instance: their number in it."""
    dimension = source_headers.another(result.DimensionIndexSequence[0])
    put(dimension, "DimensionIndexPointer", 0x00209057)  # In-Stack Position Number
    put(dimension, "FunctionalGroupPointer", 0x00209111)  # Frame Content Sequence
    put(dimension, "DimensionDescriptionLabel", "In-Stack Position Number")
    result.DimensionIndexSequence = [result.DimensionIndexSequence[0], dimension]


def _packed(masks: Sequence[Region]) -> bytes:
    """Bits in order, the first pixel in the lowest (PS3.5 8.1.1), padded to an even length.

    Eight frames at a time, which end with a whole byte whatever their size.
    """
    parts = (masks[first : first + BYTE] for first in range(0, len(masks), BYTE))
    packed = b"".join(map(_bits, parts))
    return packed + b"\0" * (len(packed) % 2)


def _bits(masks: Sequence[Region]) -> bytes:
    frames = np.concatenate([mask.whole().ravel() for mask in masks])
    return np.packbits(frames, bitorder="little").tobytes()
