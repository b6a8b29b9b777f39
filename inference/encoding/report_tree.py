"""The content of a report: what was measured where, and in words what was not and why (TID 1500).

Per segment one volumetric group (TID 1411): the segment that it refers to, its measurements, and
its long axis drawn twice as a path, in the image (OHIF goes to that slice and draws it) and in the
patient. What holds for the whole image is one more group. Sentences are comments among the
qualitative evaluations (TID 1500 row 14).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code

from inference import coding, uids
from inference.encoding import Provenance, common, drawing
from inference.encoding.drawing import Drawing, LongAxis
from inference.encoding.planes import Plane, Planes
from inference.encoding.source_headers import Source
from inference.errors import EncodingError
from inference.findings import Findings, Measurement, Segment, Verdict
from inference.volume import Stack

SIGNIFICANT_DIGITS = 6
WHOLE_IMAGE = "Image"  # tracking identifier
NO_FRAME_OF_REFERENCE = (
    "Note: the source has no Frame of Reference UID; positions hold within its series only."
)
Mask = NDArray[np.bool_]
Group = (
    hd.sr.MeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the groups of one report are about."""

    source: Source
    provenance: Provenance
    segmentation: Dataset | None
    grid: Planes | None  # None: headers only
    masks: Mapping[str, Mask]  # by the label of the segment, in the order of the segment numbers
    axes: tuple[LongAxis, ...]


def tree(subject: Subject, findings: Findings, notes: Sequence[str]) -> hd.sr.ContainerContentItem:
    """TID 1500. Without a measurement its title is one that viewers show as text."""
    groups = list(_groups(subject, findings))
    root = hd.sr.ContainerContentItem(
        name=coding.MEASUREMENT_REPORT if groups else coding.TEXT_REPORT, template_id="1500"
    )
    root.ContentSequence = hd.sr.ContentSequence()
    root.ContentSequence.extend(
        hd.sr.LanguageOfContentItemAndDescendants(common.concept(coding.ENGLISH))
    )
    root.ContentSequence.extend(_observer(subject.provenance))
    root.ContentSequence.append(
        hd.sr.CodeContentItem(
            name=coding.PROCEDURE_REPORTED,
            value=coding.procedure(subject.source.modality),
            relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    root.ContentSequence.append(_measurements(groups))
    lines = sentences(findings, subject.provenance, notes)
    if lines:
        comments = hd.sr.ContentSequence([_comment(line) for line in lines])
        root.ContentSequence.append(_container(coding.QUALITATIVE_EVALUATIONS, comments))
    return root


def _observer(provenance: Provenance) -> hd.sr.ObservationContext:
    """The node as device observer (TID 1004), running the model that each group names."""
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=common.concept(coding.DEVICE),
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=uids.device_uid(
                    node_name=provenance.node_name, serial=provenance.device_serial
                ),
                name=provenance.node_name,
                manufacturer_name=common.MANUFACTURER,
                model_name=provenance.model_name,
                serial_number=provenance.device_serial,
            ),
        )
    )


def _container(name: Code, content: hd.sr.ContentSequence) -> hd.sr.ContainerContentItem:
    container = hd.sr.ContainerContentItem(
        name=common.concept(name), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = content
    return container


def _measurements(groups: Sequence[Group]) -> hd.sr.ContainerContentItem:
    items = [item for group in groups for item in group] or [_comment("No measurements.")]
    return _container(coding.IMAGING_MEASUREMENTS, hd.sr.ContentSequence(items))


def _groups(subject: Subject, findings: Findings) -> Iterator[Group]:
    """One group a segment, one for segments measured together, one for the whole image."""
    for axis, segment in zip(subject.axes, findings.segments, strict=True):
        yield _segment_group(segment, axis, findings=findings, subject=subject)
    for labels, measurements in _together(findings.measurements).items():
        yield _common_group(measurements, labels, subject)


def _segment_group(
    segment: Segment, axis: LongAxis, *, findings: Findings, subject: Subject
) -> Group:
    definition = segment.definition
    length = hd.sr.Measurement(
        name=coding.LONG_AXIS, value=rounded(axis.length), unit=coding.MILLIMETRE
    )
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(definition.label, subject),
        referenced_segment=_referenced_segments(subject, [definition.label]),
        finding_category=definition.category,
        finding_type=definition.type,
        finding_sites=_sites(segment),
        algorithm_id=_algorithm(subject.provenance),
        measurements=[*_nums(_of_segment(findings.measurements, definition.label)), length],
    )
    group[0].ContentSequence.extend(_drawn(coding.PATH, "POLYLINE", axis.line, subject))
    return group


def _drawn(
    name: Code, graphic_type: str, points: Drawing, subject: Subject
) -> Iterator[hd.sr.ContentItem]:
    """In its image, where viewers go to draw it, and in the patient."""
    if subject.grid is None:
        raise EncodingError("a drawing needs the stack that it lies in")
    in_image = hd.sr.ScoordContentItem(
        name=name,
        graphic_type=graphic_type,
        graphic_data=points.in_image,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    image = _image(subject.grid.planes[points.plane])
    in_image.ContentSequence = hd.sr.ContentSequence([image])
    yield in_image
    yield hd.sr.Scoord3DContentItem(
        name=name,
        graphic_type=graphic_type,
        graphic_data=points.in_patient(subject.grid),
        frame_of_reference_uid=subject.source.frame_of_reference_uid,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )


def _image(plane: Plane) -> hd.sr.SourceImageForRegion:
    return hd.sr.SourceImageForRegion(
        referenced_sop_class_uid=plane.reference.sop_class_uid,
        referenced_sop_instance_uid=plane.reference.sop_instance_uid,
        referenced_frame_numbers=None if plane.frame is None else [plane.frame],
    )


def _tracking(label: str, subject: Subject) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(
        identifier=label, uid=common.tracking_uid(subject.source, subject.provenance, label)
    )


def _tracking_together(labels: Sequence[str], subject: Subject) -> hd.sr.TrackingIdentifier:
    """Never that of a single segment, whatever the labels are."""
    uid = common.tracking_uid(subject.source, subject.provenance, f"together: {labels!r}")
    return hd.sr.TrackingIdentifier(identifier=" + ".join(labels) or WHOLE_IMAGE, uid=uid)


def _algorithm(provenance: Provenance) -> hd.sr.AlgorithmIdentification:
    return hd.sr.AlgorithmIdentification(
        name=provenance.model_name, version=provenance.model_version
    )


def _sites(segment: Segment) -> list[hd.sr.FindingSite] | None:
    """An anatomical structure is its own site; its side goes with the site (TID 1501 row 7)."""
    definition = segment.definition
    if definition.category != coding.ANATOMICAL_STRUCTURE:
        return None
    return [hd.sr.FindingSite(definition.type, laterality=definition.modifier)]


def _referenced_segments(subject: Subject, labels: Sequence[str]) -> hd.sr.ReferencedSegment:
    if subject.segmentation is None:
        raise EncodingError("segments need their segmentation")
    numbers = [list(subject.masks).index(label) + 1 for label in labels]
    series = hd.sr.SourceSeriesForSegmentation(subject.source.series_uid)
    series.ConceptNameCodeSequence = [common.concept(coding.SOURCE_SERIES_FOR_SEGMENTATION)]
    return hd.sr.ReferencedSegment(
        sop_class_uid=subject.segmentation.SOPClassUID,
        sop_instance_uid=subject.segmentation.SOPInstanceUID,
        segment_number=numbers,  # type: ignore[arg-type]  # annotated narrower than it accepts
        source_series=series,
    )


def _common_group(
    measurements: Sequence[Measurement], labels: Sequence[str], subject: Subject
) -> Group:
    """Measurements of several segments together (all, when the image is meant) or of an image."""
    segments = labels or tuple(subject.masks)
    measured: dict[str, Any] = {
        "tracking_identifier": _tracking_together(labels, subject),
        "measurements": _nums(measurements),
        "algorithm_id": _algorithm(subject.provenance),
    }
    group: Group = (
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_referenced_segments(subject, segments), **measured
        )
        if segments
        else hd.sr.MeasurementsAndQualitativeEvaluations(**measured)
    )
    point = _representative_point(segments, subject)
    drawn = _drawn(coding.REPRESENTATIVE_POINT, "POINT", point, subject)
    group[0].ContentSequence.extend(drawn)
    return group


def _representative_point(labels: Sequence[str], subject: Subject) -> Drawing:
    """In the largest of the segments, or in the middle of the stack."""
    if labels:
        return drawing.point_inside(
            max((subject.masks[label] for label in labels), key=np.count_nonzero)
        )
    if subject.grid is None:
        raise EncodingError("findings need the stack that they were made in")
    return drawing.middle_of(subject.grid)


def _together(
    measurements: Sequence[Measurement],
) -> dict[tuple[str, ...], list[Measurement]]:
    found: dict[tuple[str, ...], list[Measurement]] = {}
    for one in _of_segment(measurements, None):
        found.setdefault(one.together, []).append(one)
    return found


def _of_segment(measurements: Sequence[Measurement], label: str | None) -> list[Measurement]:
    return [one for one in measurements if one.segment == label and math.isfinite(one.value)]


def _nums(measurements: Sequence[Measurement]) -> list[hd.sr.Measurement]:
    return [
        hd.sr.Measurement(
            name=one.name, value=rounded(one.value), unit=one.unit, derivation=one.derivation
        )
        for one in measurements
    ]


def rounded(value: float) -> float:
    """Six significant digits: no measurement here is better, and a DS holds 16 characters."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _comment(line: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(
        name=coding.COMMENT,
        value=line,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )


def sentences(findings: Findings, provenance: Provenance, notes: Sequence[str]) -> tuple[str, ...]:
    """What a reader must know besides the numbers, most important first."""
    return (
        *_verdict(findings),
        *(f"Not given: {', '.join(one.names)}. {one.reason}" for one in findings.withheld),
        *_not_finite(findings),
        *(("Not for diagnosis.",) if provenance.not_for_diagnosis else ()),
        *(f"Limitation: {limitation}" for limitation in findings.limitations),
        *notes,
    )


def _verdict(findings: Findings) -> Iterator[str]:
    if findings.verdict is Verdict.NOT_ANALYSED:
        yield f"Not analysed: {findings.reason}"
    elif findings.verdict is Verdict.WITHHELD:
        yield f"Some measurements are withheld: {findings.reason}"
    elif not findings.segments and not findings.measurements:
        yield "Analysed; nothing found."


def _not_finite(findings: Findings) -> Iterator[str]:
    for one in findings.measurements:
        if not math.isfinite(one.value):
            owner = f" of {one.segment}" if one.segment else ""
            yield f"Not given: {one.name.meaning}{owner}. It could not be computed."


def notes_of(stack: Stack, source: Source) -> tuple[str, ...]:
    """What was left out of the series, and how its headers were taken."""
    aside = Counter(one.reason for one in stack.set_aside)
    return (
        *(f"Not used: {count} image(s), {reason}." for reason, count in sorted(aside.items())),
        *(f"Note: {note}" for note in stack.notes),
        *([NO_FRAME_OF_REFERENCE] if source.frame_of_reference_is_ours else []),
    )
