"""A TID 1500 report says what was measured, what was not and why, or that nothing was analysed.

Comprehensive 3D SR (PS3.3 A.35.13): complete, preliminary, unverified, in the source's patient and
study, with the source and its segmentations as evidence. Its content is made by `report_tree`. A
value that is no finite number is never encoded: a sentence says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from inference import coding, uids
from inference.encoding import (
    Provenance,
    Reference,
    canvas,
    checks,
    common,
    planes,
    report_groups,
    report_words,
    sheets,
    source_headers,
)
from inference.encoding.canvas import Canvas
from inference.encoding.report_items import Place, Subject
from inference.encoding.report_tree import tree
from inference.encoding.sheets import Sheet
from inference.encoding.source_headers import Source, put
from inference.errors import EncodingError
from inference.findings import Findings
from inference.planar import Views
from inference.volume import Stack

ORDER = 1  # after the segmentations it refers to
KIND = "measurement_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report is made of. `canvases`: what can be drawn on, none for headers alone."""

    source: Source
    provenance: Provenance
    findings: tuple[Findings, ...]
    segmentations: tuple[Dataset, ...]
    canvases: tuple[Canvas, ...]
    subjects: tuple[Subject, ...]
    lines: tuple[str, ...]


def encode(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    *,
    provenance: Provenance,
    segmentations: Sequence[Dataset] = (),
) -> Dataset:
    """The report of these findings; from headers alone it can say that a series was not analysed.

    `segmentations` are the objects made from the same findings, () when nothing was segmented.
    Raises EncodingError when segments come without them or findings without their stack, or when
    the report does not pass its checks.
    """
    if isinstance(source, Stack):
        return _encoded(_of_stack(source, findings, provenance, segmentations))
    if _located(findings) or segmentations:
        raise EncodingError("findings need the stack that they were made in")
    return _encoded(
        Report(
            source=source_headers.read(source),
            provenance=provenance,
            findings=(findings,),
            segmentations=(),
            canvases=(),
            subjects=(),
            lines=report_words.sentences(findings, provenance, ()),
        )
    )


def encode_views(
    views: Views,
    findings: Sequence[Findings],
    *,
    provenance: Provenance,
    segmentations: Sequence[Dataset] = (),
) -> Dataset:
    """The report of planar images of one series; `findings`: one for each view, in their order.

    Raises EncodingError as `encode` does.
    """
    leaves = sheets.of_views(views, findings)
    source = source_headers.read(views.headers)
    places = _places(segmentations)
    amid_regions = any(_has_regions(found) for found in findings)
    subjects = tuple(
        _subject_of_sheet(
            sheet,
            found,
            source=source,
            provenance=provenance,
            places=places,
            amid_regions=amid_regions,
        )
        for sheet, found in zip(leaves, findings, strict=True)
    )
    notes = report_words.notes_of_views(views)
    return _encoded(
        Report(
            source=source,
            provenance=provenance,
            findings=tuple(findings),
            segmentations=tuple(segmentations),
            canvases=tuple(subject.canvas for subject in subjects),
            subjects=subjects,
            lines=report_words.sentences_of_views(findings, leaves, provenance, notes),
        )
    )


def _encoded(report: Report) -> Dataset:
    with source_headers.quiet():
        groups = [group for one in report.subjects for group in report_groups.groups(one)]
        content = tree(groups, report.lines, source=report.source, provenance=report.provenance)
        result = _document(content, report)
    checks.measurement_report(
        result,
        source=report.source,
        segmentations=report.segmentations,
        canvases=report.canvases,
    )
    return result


def _of_stack(
    stack: Stack, findings: Findings, provenance: Provenance, segmentations: Sequence[Dataset]
) -> Report:
    source = source_headers.read(stack.headers)
    drawn_on = canvas.of_planes(planes.of_stack(stack))
    volume = stack.image.volume
    labels = {
        one.definition.label: common.tracking_uid(source, provenance, one.definition.label)
        for one in findings.segments
    }
    subject = Subject(
        source=source,
        provenance=provenance,
        findings=_owned(findings),
        canvas=drawn_on,
        regions={one.definition.label: planes.on_grid(one, volume) for one in findings.segments},
        places=_matched(labels, _places(segmentations)),
        amid_regions=_has_regions(findings),
    )
    return Report(
        source=source,
        provenance=provenance,
        findings=(findings,),
        segmentations=tuple(segmentations),
        canvases=(drawn_on,),
        subjects=(subject,),
        lines=report_words.sentences(findings, provenance, report_words.notes_of(stack, source)),
    )


def _subject_of_sheet(
    sheet: Sheet,
    findings: Findings,
    *,
    source: Source,
    provenance: Provenance,
    places: Mapping[str, Place],
    amid_regions: bool,
) -> Subject:
    labels = {
        label: common.tracking_uid(source, provenance, tracked)
        for label, tracked in sheets.tracking_labels(sheet, findings).items()
    }
    return Subject(
        source=source,
        provenance=provenance,
        findings=_owned(findings),
        canvas=canvas.of_sheet(sheet),
        regions={
            label: region.as_stack() for label, region in sheets.masks(sheet, findings).items()
        },
        places={
            label: _of_frame(place, sheet) for label, place in _matched(labels, places).items()
        },
        sheet=sheet,
        amid_regions=amid_regions,
    )


def _places(segmentations: Sequence[Dataset]) -> dict[str, Place]:
    """Where each segment is, by its Tracking UID."""
    return {
        str(segment.TrackingUID): Place(segmentation=one, number=int(segment.SegmentNumber))
        for one in segmentations
        for segment in one.SegmentSequence
    }


def _matched(labels: Mapping[str, str], places: Mapping[str, Place]) -> dict[str, Place]:
    if not places.keys() >= set(labels.values()):
        raise EncodingError("a report and its segmentation are made from the same findings")
    return {label: places[uid] for label, uid in labels.items()}


def _of_frame(place: Place, sheet: Sheet) -> Place:
    """The frames of a segment that are of this image, numbered from 1."""
    frames = checks.frames_of(place.segmentation, place.number, sheet.frame)
    return Place(segmentation=place.segmentation, number=place.number, frames=frames)


def _located(findings: Findings) -> bool:
    return bool(_has_regions(findings) or findings.measurements or findings.classifications)


def _has_regions(findings: Findings) -> bool:
    return bool(findings.segments or findings.detections or findings.keypoints)


def _owned(findings: Findings) -> Findings:
    labels = {segment.definition.label for segment in findings.segments}
    for one in findings.measurements:
        named = {*one.together, *([one.segment] if one.segment is not None else [])}
        if stray := named - labels:
            raise EncodingError(f"a measurement belongs to no segment: {', '.join(sorted(stray))}")
    masks = [one.segment for one in findings.detections if one.segment is not None]
    if not labels.issuperset(masks) or len(set(masks)) != len(masks):
        raise EncodingError("a detection's mask is no segment, or another's too")
    return findings


def _document(content: hd.sr.ContainerContentItem, report: Report) -> Dataset:
    source, provenance = report.source, report.provenance
    result = hd.sr.Comprehensive3DSR(
        evidence=list(_evidence_for_highdicom(report)),
        content=content,
        series_instance_uid=common.series_uid(source, provenance, KIND),
        series_number=common.series_number(source, ORDER),
        sop_instance_uid=common.instance_uid(source, provenance, KIND),
        instance_number=provenance.generation,
        manufacturer=common.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=list(_coding_schemes(report)) or None,
        specific_character_set=source_headers.UNICODE,
    )
    result.CurrentRequestedProcedureEvidenceSequence = [
        _referenced(source.study_uid, _results_and_sources(report))
    ]
    if provenance.predecessor is not None:
        result.PredecessorDocumentsSequence = [
            _referenced(source.study_uid, [provenance.predecessor])
        ]
    common.finish(result, source=source, provenance=provenance, order=ORDER, kind=KIND)
    return result


def _coding_schemes(report: Report) -> Iterator[CodingSchemeIdentificationItem]:
    """Whose concepts those are that no public dictionary has (PS3.3 C.12.1)."""
    if any(code.scheme_designator == coding.OWN_SCHEME for code in _codes(report.findings)):
        yield CodingSchemeIdentificationItem(
            designator=coding.OWN_SCHEME,
            name="Hounsfield's own concepts",
            responsible_organization=common.MANUFACTURER,
        )


def _codes(findings: Sequence[Findings]) -> Iterator[Code]:
    for found in findings:
        yield from (one.name for one in found.measurements)
        for answer in found.classifications:
            yield from (answer.question, answer.answer)
        for definition in (
            *(one.definition for one in found.segments),
            *(one.definition for one in found.detections),
            *(one.definition for one in found.keypoints),
        ):
            yield from (definition.category, definition.type)


def _evidence_for_highdicom(report: Report) -> Iterator[Dataset]:
    """Bare headers: one of a class that highdicom knows, and every instance referred to."""
    shared = Dataset()
    for keyword in source_headers.TYPE_2:
        put(shared, keyword, "")
    put(shared, "StudyInstanceUID", report.source.study_uid)
    yield _header(
        shared,
        Reference(
            sop_class_uid=Comprehensive3DSRStorage,
            sop_instance_uid=uids.derived("stand-in", report.source.series_uid),
            series_instance_uid=report.source.series_uid,
        ),
    )
    for one in report.segmentations:
        yield _header(shared, source_headers.reference(one))
    if report.canvases:
        for reference in report.source.references:  # any of them may be drawn on
            yield _header(shared, reference)


def _header(shared: Dataset, reference: Reference) -> Dataset:
    header = source_headers.another(shared)
    put(header, "SeriesInstanceUID", reference.series_instance_uid)
    put(header, "SOPInstanceUID", reference.sop_instance_uid)
    put(header, "SOPClassUID", reference.sop_class_uid)
    return header


def _results_and_sources(report: Report) -> Iterator[Reference]:
    yield from (source_headers.reference(one) for one in report.segmentations)
    yield from report.source.references


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
