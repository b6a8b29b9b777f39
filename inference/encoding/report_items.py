"""The content items that measurement groups of TID 1500 are made of.

Probabilities are "Certainty of Finding" in percent, as CAD reports have them (TID 4006, 4104);
intervals are the measurement's uncertainty (TID 310, CID 225), in its unit. Numbers have six
significant digits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code

from inference import coding
from inference.encoding import Provenance, common
from inference.encoding.canvas import Canvas
from inference.encoding.drawing import Drawing
from inference.encoding.planes import Plane
from inference.encoding.sheets import Sheet
from inference.encoding.source_headers import Source
from inference.errors import EncodingError
from inference.findings import Findings, Measurement, SegmentDefinition
from inference.regions import Region

SIGNIFICANT_DIGITS = 6
Floats = NDArray[np.float64]
CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a segment is: its object, its number there, and its frames (of a planar image)."""

    segmentation: Dataset
    number: int
    frames: tuple[int, ...] = ()

    @property
    def tracking_uid(self) -> str:
        """The segment's own."""
        return str(self.segmentation.SegmentSequence[self.number - 1].TrackingUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The findings of one stack or image and what they are in.

    `regions`: axes (slice, row, column), by label in the order of the segments; `places` likewise;
    `sheet`: the planar image, None for a stack; `amid_regions`: the report has groups of regions.
    """

    source: Source
    provenance: Provenance
    findings: Findings
    canvas: Canvas
    regions: Mapping[str, Region]
    places: Mapping[str, Place]
    sheet: Sheet | None = None
    amid_regions: bool = False


def tracking_label(subject: Subject, label: str) -> str:
    """What the tracking UID of a finding derives from, other in every image."""
    return label if subject.sheet is None else f"{label} in {subject.sheet.key}"


def of_segment(measurements: Sequence[Measurement], label: str | None) -> list[Measurement]:
    """The measurements of a segment (None: of no single one) that are finite numbers."""
    return [one for one in measurements if one.segment == label and math.isfinite(one.value)]


def nums(measurements: Sequence[Measurement]) -> list[hd.sr.Measurement]:
    """Measurements as numeric content items (TID 300)."""
    return [num(one.name, one.value, one.unit, of=one) for one in measurements]


def num(
    name: Code, value: float, unit: Code, *, of: Measurement | None = None
) -> hd.sr.Measurement:
    """One number, with the derivation and the interval of the measurement that it is of."""
    return hd.sr.Measurement(
        name=name,
        value=rounded(value),
        unit=unit,
        derivation=None if of is None else of.derivation,
        properties=None if of is None else _uncertainty(of),
    )


def _uncertainty(one: Measurement) -> hd.sr.MeasurementProperties | None:
    """How far the interval reaches above and below the value, in its unit (TID 310 row 5)."""
    if not has_interval(one) or one.interval is None:
        return None
    low, high = one.interval
    if not low <= one.value <= high:
        raise EncodingError(f"the interval of {one.name.meaning!r} does not hold its value")
    properties = hd.sr.MeasurementProperties()
    for name, reach in ((coding.ABOVE, high - one.value), (coding.BELOW, one.value - low)):
        properties.append(
            hd.sr.NumContentItem(
                name=name,
                value=rounded(reach),
                unit=one.unit,
                relationship_type=hd.sr.RelationshipTypeValues.HAS_PROPERTIES,
            )
        )
    return properties


def has_interval(one: Measurement) -> bool:
    """Whether a measurement has an interval of finite numbers."""
    return one.interval is not None and all(math.isfinite(limit) for limit in one.interval)


def certainty(probability: float | None) -> Iterator[hd.sr.Measurement]:
    """A probability (0 to 1) in percent; nothing when there is none."""
    if probability is None:
        return
    if not 0 <= probability <= 1:
        raise EncodingError("a probability is between 0 and 1")
    yield num(coding.CERTAINTY_OF_FINDING, 100 * probability, coding.PERCENT)


def rounded(value: float) -> float:
    """Six significant digits: no measurement here is better, and a DS holds 16 characters."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def sites(definition: SegmentDefinition) -> list[hd.sr.FindingSite] | None:
    """An anatomical structure is its own site; its side goes with the site (TID 1501 row 7)."""
    if definition.category != coding.ANATOMICAL_STRUCTURE:
        return None
    return [hd.sr.FindingSite(definition.type, laterality=definition.modifier)]


def algorithm(provenance: Provenance) -> hd.sr.AlgorithmIdentification:
    """The model that found it (TID 4019)."""
    return hd.sr.AlgorithmIdentification(
        name=provenance.model_name,
        version=provenance.model_version,
        parameters=provenance.parameters or None,
    )


def tracking(identifier: str, uid: str, subject: Subject) -> hd.sr.TrackingIdentifier:
    """A tracking identifier, which names the image when there are several."""
    image = subject.sheet.name if subject.sheet is not None else ""
    return hd.sr.TrackingIdentifier(
        identifier=f"{image}: {identifier}" if image else identifier, uid=uid
    )


def uid(label: str, subject: Subject) -> str:
    """The tracking UID of a finding in this stack or image."""
    return common.tracking_uid(subject.source, subject.provenance, tracking_label(subject, label))


def referenced_segments(subject: Subject, labels: Sequence[str]) -> hd.sr.ReferencedSegment:
    """Segments of one object (TID 1411 row 7)."""
    places = [subject.places[label] for label in labels]
    return hd.sr.ReferencedSegment(
        sop_class_uid=places[0].segmentation.SOPClassUID,
        sop_instance_uid=places[0].segmentation.SOPInstanceUID,
        segment_number=[one.number for one in places],  # type: ignore[arg-type]  # it takes several
        source_series=source_series(subject),
    )


def source_series(subject: Subject) -> hd.sr.SourceSeriesForSegmentation:
    """The series that the stack comes from (TID 1411 row 12)."""
    series = hd.sr.SourceSeriesForSegmentation(subject.source.series_uid)
    series.ConceptNameCodeSequence = [common.concept(coding.SOURCE_SERIES_FOR_SEGMENTATION)]
    return series


def referenced_frame(place: Place, sheet: Sheet) -> hd.sr.ReferencedSegmentationFrame:
    """The frames of a segment of a planar image (TID 1410 row 7)."""
    frame = hd.sr.ReferencedSegmentationFrame(
        sop_class_uid=place.segmentation.SOPClassUID,
        sop_instance_uid=place.segmentation.SOPInstanceUID,
        frame_number=list(place.frames),
        segment_number=place.number,
        source_image=hd.sr.SourceImageForSegmentation(
            referenced_sop_class_uid=sheet.reference.sop_class_uid,
            referenced_sop_instance_uid=sheet.reference.sop_instance_uid,
            referenced_frame_numbers=None if sheet.frame is None else [sheet.frame],
        ),
    )
    del frame[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # not beside a frame (Table 10-3)
    return frame


def region(graphic_type: str, points: Drawing, subject: Subject) -> hd.sr.ImageRegion:
    """What is drawn in an image (TID 1410 row 5)."""
    return hd.sr.ImageRegion(
        graphic_type=graphic_type,
        graphic_data=points.in_image,
        source_image=_image(subject.canvas.images[points.plane]),
    )


def drawn(
    name: Code, graphic_type: str, points: Drawing, subject: Subject
) -> Iterator[hd.sr.ContentItem]:
    """In its image, where viewers go to draw it, and in the patient."""
    in_image = hd.sr.ScoordContentItem(
        name=name,
        graphic_type=graphic_type,
        graphic_data=points.in_image,
        relationship_type=CONTAINS,
    )
    image = _image(subject.canvas.images[points.plane])
    in_image.ContentSequence = hd.sr.ContentSequence([image])
    yield in_image
    if subject.canvas.grid is not None:
        yield solid(name, graphic_type, points.in_patient(subject.canvas.grid), subject)


def solid(
    name: Code, graphic_type: str, points: Floats, subject: Subject
) -> hd.sr.Scoord3DContentItem:
    """What is drawn in the patient."""
    return hd.sr.Scoord3DContentItem(
        name=name,
        graphic_type=graphic_type,
        graphic_data=points,
        frame_of_reference_uid=subject.source.frame_of_reference_uid,
        relationship_type=CONTAINS,
    )


def _image(plane: Plane | Sheet) -> hd.sr.SourceImageForRegion:
    return hd.sr.SourceImageForRegion(
        referenced_sop_class_uid=plane.reference.sop_class_uid,
        referenced_sop_instance_uid=plane.reference.sop_instance_uid,
        referenced_frame_numbers=None if plane.frame is None else [plane.frame],
    )
