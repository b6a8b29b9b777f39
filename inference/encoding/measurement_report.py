"""A TID 1500 report says what was measured, what was not and why, or that nothing was analysed.

Comprehensive 3D SR (PS3.3 A.35.13): complete, preliminary, unverified, in the source's patient and
study, with the source and the segmentation as evidence. Its content is made by `report_tree`. A
value that is no finite number is never encoded: a sentence says so.
"""

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from inference import coding, uids
from inference.encoding import (
    Provenance,
    Reference,
    checks,
    common,
    drawing,
    planes,
    source_headers,
)
from inference.encoding.report_tree import Subject, notes_of, tree
from inference.encoding.source_headers import put
from inference.errors import EncodingError
from inference.findings import Findings
from inference.planar import Views
from inference.volume import Stack

ORDER = 1  # after the segmentation it refers to
KIND = "measurement_report"
Mask = NDArray[np.bool_]


def encode(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    *,
    provenance: Provenance,
    segmentations: Sequence[Dataset] = (),
) -> Dataset:
    """The report of these findings; from headers alone it can say that a series was not analysed.

    `segmentations` are the objects made from the same findings, () when nothing was segmented.
    Raises EncodingError when segments come without it or without their stack, or when the report
    does not pass its checks.
    """
    segmentation = next(iter(segmentations), None)
    subject = _subject(source, findings, provenance=provenance, segmentation=segmentation)
    notes = notes_of(source, subject.source) if isinstance(source, Stack) else ()
    with source_headers.quiet():
        result = _document(tree(subject, findings, notes), findings, subject)
    checks.measurement_report(result, source=subject.source, segmentation=segmentation)
    return result


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
    raise EncodingError("findings in planar images are not encoded yet")


def _subject(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    *,
    provenance: Provenance,
    segmentation: Dataset | None,
) -> Subject:
    if (segmentation is None) != (not findings.segments):
        raise EncodingError("a report and its segmentation are made from the same findings")
    _owned(findings)
    headers = source.headers if isinstance(source, Stack) else source
    grid = planes.of_stack(source) if isinstance(source, Stack) else None
    masks = _masks(source, findings)
    return Subject(
        source=source_headers.read(headers),
        provenance=provenance,
        segmentation=segmentation,
        grid=grid,
        masks=masks,
        axes=tuple(drawing.of_mask(mask, grid) for mask in masks.values() if grid is not None),
    )


def _owned(findings: Findings) -> None:
    labels = {segment.definition.label for segment in findings.segments}
    for one in findings.measurements:
        named = {*one.together, *([one.segment] if one.segment is not None else [])}
        if stray := named - labels:
            raise EncodingError(f"a measurement belongs to no segment: {', '.join(sorted(stray))}")


def _masks(source: Stack | Sequence[Dataset], findings: Findings) -> dict[str, Mask]:
    if not findings.segments and not findings.measurements:
        return {}
    if not isinstance(source, Stack):
        raise EncodingError("findings need the stack that they were made in")
    volume = source.image.volume
    return {one.definition.label: planes.on_grid(one, volume) for one in findings.segments}


def _document(content: hd.sr.ContainerContentItem, findings: Findings, subject: Subject) -> Dataset:
    source, provenance = subject.source, subject.provenance
    result = hd.sr.Comprehensive3DSR(
        evidence=list(_evidence_for_highdicom(subject)),
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


def _evidence_for_highdicom(subject: Subject) -> Iterator[Dataset]:
    """Bare headers: one of a class that highdicom knows, and every instance referred to."""
    shared = Dataset()
    for keyword in source_headers.TYPE_2:
        put(shared, keyword, "")
    put(shared, "StudyInstanceUID", subject.source.study_uid)
    yield _header(
        shared,
        Reference(
            sop_class_uid=Comprehensive3DSRStorage,
            sop_instance_uid=uids.derived("stand-in", subject.source.series_uid),
            series_instance_uid=subject.source.series_uid,
        ),
    )
    if subject.segmentation is not None:
        yield _header(shared, source_headers.reference(subject.segmentation))
    if subject.grid is not None:
        for reference in subject.source.references:  # any of them may be drawn on
            yield _header(shared, reference)


def _header(shared: Dataset, reference: Reference) -> Dataset:
    header = source_headers.another(shared)
    put(header, "SeriesInstanceUID", reference.series_instance_uid)
    put(header, "SOPInstanceUID", reference.sop_instance_uid)
    put(header, "SOPClassUID", reference.sop_class_uid)
    return header


def _results_and_sources(subject: Subject) -> Iterator[Reference]:
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
