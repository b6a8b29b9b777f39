"""What a result object says, read back from its bytes: segments, volumes, measurements.

Reads what any conforming viewer would read; it knows nothing of how the object was made.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.uid import SegmentationStorage

MEASUREMENT_GROUP = "125007"
TRACKING_IDENTIFIER = "112039"
DERIVATION = "121401"
COMMENT = "121106"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSummary:
    """One segment: its label, how many voxels, and their volume in millilitres."""

    label: str
    voxels: int
    millilitres: float


def segments(seg: pydicom.Dataset) -> tuple[SegmentSummary, ...]:
    """The segments of a BINARY segmentation (PS3.3 A.51), in the order of their numbers."""
    if seg.SOPClassUID != SegmentationStorage or seg.SegmentationType != "BINARY":
        raise ValueError("not a BINARY segmentation")
    frames = np.atleast_3d(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    voxels: dict[int, int] = defaultdict(int)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        owner = groups if "SegmentIdentificationSequence" in groups else shared
        voxels[owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(frame.sum())
    measures = shared.PixelMeasuresSequence[0]
    spacing = float(measures.get("SpacingBetweenSlices", measures.SliceThickness))
    voxel_ml = float(np.prod([float(s) for s in measures.PixelSpacing])) * spacing / 1000
    return tuple(
        SegmentSummary(
            label=str(segment.SegmentLabel),
            voxels=voxels[segment.SegmentNumber],
            millilitres=voxels[segment.SegmentNumber] * voxel_ml,
        )
        for segment in seg.SegmentSequence
    )


def sentences(report: pydicom.Dataset) -> tuple[str, ...]:
    """Measurements and comments of a TID 1500 report: "Right lung: Volume 2,312 cm3"."""
    return tuple(dict.fromkeys(_lines(report, subject="")))


def _lines(item: pydicom.Dataset, *, subject: str) -> Iterator[str]:
    children = item.get("ContentSequence", ())
    if _concept(item) == MEASUREMENT_GROUP:
        named = [c for c in children if _concept(c) == TRACKING_IDENTIFIER]
        subject = str(named[0].TextValue) if named else subject
    for child in children:
        line = _line(child)
        if line is not None:
            yield f"{subject}: {line}" if subject else line
        yield from _lines(child, subject=subject)


def _line(item: pydicom.Dataset) -> str | None:
    if item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
        value = item.MeasuredValueSequence[0]
        unit = value.MeasurementUnitsCodeSequence[0].CodeValue
        derived = [
            c.ConceptCodeSequence[0].CodeMeaning
            for c in item.get("ContentSequence", ())
            if _concept(c) == DERIVATION
        ]
        name = " ".join([*derived, item.ConceptNameCodeSequence[0].CodeMeaning])
        return f"{name} {float(value.NumericValue):,.6g} {unit}".removesuffix(" 1")
    if item.ValueType == "TEXT" and _concept(item) == COMMENT:
        return str(item.TextValue)
    return None


def _concept(item: pydicom.Dataset) -> str | None:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else None
