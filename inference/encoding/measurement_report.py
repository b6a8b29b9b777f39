"""A TID 1500 report that says what was measured, what was not and why, or that nothing was analysed.

Comprehensive 3D SR (PS3.3 A.35.13). Per segment: one volumetric group (TID 1411) that refers to the segment
of the segmentation, and one group (TID 1501) with its long axis drawn in patient coordinates, under one
tracking UID; viewers merge the two and draw the line. Sentences are comments among the qualitative
evaluations (TID 1500 row 14). A value that is no finite number is never encoded: a sentence says so.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from inference import coding, uids
from inference.encoding import (
    Provenance,
    Reference,
    checks,
    common,
    long_axis,
    planes,
    source_headers,
)
from inference.encoding.planes import Planes
from inference.encoding.source_headers import Source, put
from inference.errors import EncodingError
from inference.findings import Findings, Measurement, Segment, Verdict
from inference.volume import Stack

ORDER = 1  # after the segmentation it refers to
KIND = "measurement_report"
SIGNIFICANT_DIGITS = 6
Mask = NDArray[np.bool_]
Whole = hd.sr.MeasurementsAndQualitativeEvaluations
Volumetric = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What the groups of one report are about."""

    source: Source
    provenance: Provenance
    segmentation: Dataset | None
    grid: Planes | None  # None: headers only
    masks: Mapping[str, Mask]  # by the label of the segment


def encode(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    *,
    provenance: Provenance,
    segmentation: Dataset | None = None,
) -> Dataset:
    """The report of these findings; from headers alone it can say that a series was not analysed.

    `segmentation` is the object made from the same findings, None when nothing was segmented. Raises
    EncodingError when segments come without it or without their stack, or when the report does not pass
    its checks.
    """
    subject = _subject(source, findings, provenance=provenance, segmentation=segmentation)
    notes = _notes(source) if isinstance(source, Stack) else ()
    with common.quiet():
        result = _document(_tree(subject, findings, notes), findings, subject)
    checks.measurement_report(result, source=subject.source, segmentation=segmentation)
    return result


def _subject(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    *,
    provenance: Provenance,
    segmentation: Dataset | None,
) -> _Subject:
    if (segmentation is None) != (not findings.segments):
        raise EncodingError("a report and its segmentation are made from the same findings")
    headers = source.headers if isinstance(source, Stack) else source
    if findings.segments and not isinstance(source, Stack):
        raise EncodingError("segments need the stack that they were found in")
    return _Subject(
        source=source_headers.read(headers),
        provenance=provenance,
        segmentation=segmentation,
        grid=planes.of_stack(source) if isinstance(source, Stack) else None,
        masks={
            segment.definition.label: planes.on_grid(segment, source.image.volume)
            for segment in findings.segments
            if isinstance(source, Stack)
        },
    )


def _document(tree: hd.sr.ContainerContentItem, findings: Findings, subject: _Subject) -> Dataset:
    source, provenance = subject.source, subject.provenance
    result = hd.sr.Comprehensive3DSR(
        evidence=list(_evidence_for_highdicom(subject)),
        content=tree,
        series_instance_uid=common.series_uid(source, provenance, KIND),
        series_number=common.series_number(source, ORDER),
        sop_instance_uid=common.instance_uid(source, provenance, KIND),
        instance_number=provenance.generation,
        manufacturer=common.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=list(_coding_schemes(findings)) or None,
        specific_character_set=source_headers.UNICODE,
    )
    result.CurrentRequestedProcedureEvidenceSequence = [
        _referenced(source.study_uid, _results_and_sources(subject))
    ]
    if provenance.predecessor is not None:
        result.PredecessorDocumentsSequence = [
            _referenced(source.study_uid, [provenance.predecessor])
        ]
    common.finish(result, source=source, provenance=provenance, order=ORDER, kind=KIND)
    return result


def _coding_schemes(findings: Findings) -> Iterator[CodingSchemeIdentificationItem]:
    """Whose concepts those are that no public dictionary has (PS3.3 C.12.1)."""
    if any(one.name.scheme_designator == coding.OWN_SCHEME for one in findings.measurements):
        yield CodingSchemeIdentificationItem(
            designator=coding.OWN_SCHEME,
            name="Hounsfield's own concepts",
            responsible_organization=common.MANUFACTURER,
        )


def _evidence_for_highdicom(subject: _Subject) -> Iterator[Dataset]:
    """Bare headers: highdicom needs one of a class that it knows, and every instance that is referred to."""
    yield _header(
        subject,
        Reference(
            sop_class_uid=Comprehensive3DSRStorage,
            sop_instance_uid=uids.derived("stand-in", subject.source.series_uid),
            series_instance_uid=subject.source.series_uid,
        ),
    )
    if subject.segmentation is not None:
        yield _header(subject, source_headers.reference(subject.segmentation))


def _header(subject: _Subject, reference: Reference) -> Dataset:
    header = Dataset()
    for keyword in source_headers.TYPE_2:
        put(header, keyword, "")
    put(header, "StudyInstanceUID", subject.source.study_uid)
    put(header, "SeriesInstanceUID", reference.series_instance_uid)
    put(header, "SOPInstanceUID", reference.sop_instance_uid)
    put(header, "SOPClassUID", reference.sop_class_uid)
    return header


def _results_and_sources(subject: _Subject) -> Iterator[Reference]:
    if subject.segmentation is not None:
        yield source_headers.reference(subject.segmentation)
    yield from subject.source.references


def _referenced(study_uid: str, references: Iterator[Reference] | Sequence[Reference]) -> Dataset:
    """One study as the SOP Instance Reference macro writes it (PS3.3 C.17.2.1)."""
    by_series: dict[str, list[Dataset]] = {}
    for one in references:
        item = Dataset()
        put(item, "ReferencedSOPClassUID", one.sop_class_uid)
        put(item, "ReferencedSOPInstanceUID", one.sop_instance_uid)
        by_series.setdefault(one.series_instance_uid, []).append(item)
    study = Dataset()
    put(study, "StudyInstanceUID", study_uid)
    study.ReferencedSeriesSequence = [_series(uid, items) for uid, items in by_series.items()]
    return study


def _series(series_uid: str, items: list[Dataset]) -> Dataset:
    series = Dataset()
    put(series, "SeriesInstanceUID", series_uid)
    series.ReferencedSOPSequence = items
    return series


def _tree(
    subject: _Subject, findings: Findings, notes: Sequence[str]
) -> hd.sr.ContainerContentItem:
    """TID 1500. The container of measurements is never absent or empty: viewers look into it unasked."""
    root = hd.sr.ContainerContentItem(name=coding.MEASUREMENT_REPORT, template_id="1500")
    root.ContentSequence = hd.sr.ContentSequence()
    root.ContentSequence.extend(
        hd.sr.LanguageOfContentItemAndDescendants(hd.sr.CodedConcept.from_code(coding.ENGLISH))
    )
    root.ContentSequence.extend(_observer(subject.provenance))
    root.ContentSequence.append(
        hd.sr.CodeContentItem(
            name=coding.PROCEDURE_REPORTED,
            value=coding.procedure(subject.source.modality),
            relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    root.ContentSequence.append(_measurements(subject, findings))
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


def _measurements(subject: _Subject, findings: Findings) -> hd.sr.ContainerContentItem:
    groups: list[Whole | Volumetric] = []
    for number, segment in enumerate(findings.segments, start=1):
        groups.extend(_segment_groups(segment, number, findings=findings, subject=subject))
    whole = _of_segment(findings.measurements, None)
    if whole and subject.grid is not None:
        groups.append(_whole_group(whole, subject, subject.grid))
    items = [item for group in groups for item in group] or [_comment("No measurements.")]
    return _container(coding.IMAGING_MEASUREMENTS, hd.sr.ContentSequence(items))


def _segment_groups(
    segment: Segment, number: int, *, findings: Findings, subject: _Subject
) -> Iterator[Whole | Volumetric]:
    label = segment.definition.label
    if subject.segmentation is None or subject.grid is None:
        raise EncodingError("segments need their stack and segmentation")
    axis = long_axis.of_mask(subject.masks[label], subject.grid)
    yield Volumetric(
        referenced_segment=_referenced_segment(subject.segmentation, number, subject.source),
        measurements=_nums(_of_segment(findings.measurements, label)),
        **_about(segment, subject),
    )
    yield _drawn_group(segment, axis, subject)


def _about(segment: Segment, subject: _Subject) -> dict[str, Any]:
    """What every group of a segment says alike."""
    definition = segment.definition
    return {
        "tracking_identifier": _tracking(definition.label, subject),
        "finding_category": definition.category,
        "finding_type": definition.type,
        "finding_sites": _sites(segment),
        "algorithm_id": _algorithm(subject.provenance),
    }


def _tracking(label: str, subject: _Subject) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(
        identifier=label, uid=common.tracking_uid(subject.source, subject.provenance, label)
    )


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


def _referenced_segment(
    segmentation: Dataset, number: int, source: Source
) -> hd.sr.ReferencedSegment:
    series = hd.sr.SourceSeriesForSegmentation(source.series_uid)
    series.ConceptNameCodeSequence = [common.concept(coding.SOURCE_SERIES_FOR_SEGMENTATION)]
    return hd.sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=series,
    )


def _drawn_group(segment: Segment, axis: long_axis.LongAxis, subject: _Subject) -> Whole:
    group = Whole(
        measurements=[
            hd.sr.Measurement(
                name=coding.LONG_AXIS, value=rounded(axis.length), unit=coding.MILLIMETRE
            )
        ],
        **_about(segment, subject),
    )
    group[0].ContentSequence.append(
        hd.sr.Scoord3DContentItem(
            name=coding.PATH,
            graphic_type=hd.sr.GraphicTypeValues3D.POLYLINE,
            graphic_data=axis.ends,
            frame_of_reference_uid=subject.source.frame_of_reference_uid,
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )
    )
    return group


def _whole_group(whole: Sequence[Measurement], subject: _Subject, grid: Planes) -> Whole:
    """Measurements of no single segment, shown at a point of the largest, or in the middle of the stack."""
    largest = max(subject.masks.values(), key=np.count_nonzero, default=None)
    middle = np.zeros((len(grid.planes), grid.rows, grid.columns), dtype=np.bool_)
    middle[len(grid.planes) // 2, grid.rows // 2, grid.columns // 2] = True
    point = long_axis.point_inside(middle if largest is None else largest, grid)
    group = Whole(
        tracking_identifier=_tracking(f"{subject.provenance.model_name}: image", subject),
        measurements=_nums(whole),
        algorithm_id=_algorithm(subject.provenance),
    )
    group[0].ContentSequence.append(
        hd.sr.Scoord3DContentItem(
            name=coding.REPRESENTATIVE_POINT,
            graphic_type=hd.sr.GraphicTypeValues3D.POINT,
            graphic_data=point[None],
            frame_of_reference_uid=subject.source.frame_of_reference_uid,
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )
    )
    return group


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
    return tuple(
        [
            *(_verdict(findings)),
            *(f"Not given: {', '.join(one.names)}. {one.reason}" for one in findings.withheld),
            *(_not_finite(findings)),
            *(["Not for diagnosis."] if provenance.not_for_diagnosis else []),
            *(f"Limitation: {limitation}" for limitation in findings.limitations),
            *notes,
        ]
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
            yield (
                f"Not given: {one.name.meaning}{f' of {one.segment}' if one.segment else ''}. "
                + ("It could not be computed.")
            )


def _notes(stack: Stack) -> tuple[str, ...]:
    aside = Counter(one.reason for one in stack.set_aside)
    return (
        *(f"Not used: {count} image(s), {reason}." for reason, count in sorted(aside.items())),
        *(f"Note: {note}" for note in stack.notes),
    )
