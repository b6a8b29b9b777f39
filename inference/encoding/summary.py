"""What a result object says, read back from its bytes: segments, their sizes, measurements.

Reads what any conforming viewer would read; it knows nothing of how the object was made.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
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
    """One segment: its label, how many voxels (or pixels), and how large they are together.

    `millilitres`: None of a planar image, whose pixels have no depth; `square_millimetres`: of one
    planar image, None when its spacing is not stated.
    """

    label: str
    voxels: int
    millilitres: float | None
    square_millimetres: float | None = None

    @property
    def size(self) -> str:
        """In words: "2,312 ml", "35 cm2" or "812 pixels"."""
        if self.millilitres is not None:
            return f"{self.millilitres:,.0f} ml"
        if self.square_millimetres is not None:
            return f"{self.square_millimetres / 100:,.3g} cm2"
        return f"{self.voxels:,} pixels"


def segments(seg: pydicom.Dataset) -> tuple[SegmentSummary, ...]:
    """The segments of a BINARY segmentation (PS3.3 A.51), in the order of their numbers."""
    if seg.SOPClassUID != SegmentationStorage or seg.SegmentationType != "BINARY":
        raise ValueError("not a BINARY segmentation")
    frames = np.atleast_3d(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    counts: dict[int, list[int]] = defaultdict(list)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        owner = groups if "SegmentIdentificationSequence" in groups else shared
        number = owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        counts[number].append(int(frame.sum()))
    return tuple(
        _summary(str(segment.SegmentLabel), counts[segment.SegmentNumber], shared)
        for segment in seg.SegmentSequence
    )


def in_patient(seg: pydicom.Dataset) -> bool:
    """Whether its voxels have a place and a volume in the patient."""
    measures = seg.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    return bool(measures) and "SliceThickness" in measures[0]


def _summary(label: str, counts: Sequence[int], shared: pydicom.Dataset) -> SegmentSummary:
    """Of a segment with so many voxels in each of its frames."""
    voxels, measures = sum(counts), shared.get("PixelMeasuresSequence")
    if not measures:
        return SegmentSummary(label=label, voxels=voxels, millilitres=None)
    area = float(np.prod([float(s) for s in measures[0].PixelSpacing]))
    depth = measures[0].get("SpacingBetweenSlices", measures[0].get("SliceThickness"))
    if depth is not None:
        return SegmentSummary(
            label=label, voxels=voxels, millilitres=voxels * area * float(depth) / 1000
        )
    return SegmentSummary(
        label=label,
        voxels=voxels,
        millilitres=None,
        square_millimetres=voxels * area if len(counts) == 1 else None,
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
