"""What was found where, as measurement groups of TID 1500, each tracked and drawn.

Each finding is drawn in an image, where viewers go to show it (OHIF fails on a group without), and
in the patient when the image lies there:

- a segment: a volumetric group (TID 1411) with the segment and its long axis; in a planar image a
  planar group (TID 1410) with the segment's frame;
- a detection: a planar group with the box's section (Image Region, "Bounded by") and, in the
  patient, a volumetric group of the same tracking UID with the sides of the box (Volume Surface);
  where a segment is its mask, all have the identifier and the tracking UID of the segment;
- a key point: a planar group with a point;
- an answer: a group (TID 1501) with a qualitative evaluation;
- numbers of several segments or of the image: a group of their own.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np

from inference import coding
from inference.encoding import drawing, shapes
from inference.encoding import report_items as items
from inference.encoding.drawing import Drawing, LongAxis
from inference.encoding.report_items import Subject
from inference.findings import (
    Box,
    Classification,
    Detection,
    Keypoint,
    Measurement,
    Segment,
    SegmentDefinition,
)
from inference.regions import Region

WHOLE_IMAGE = "Image"  # tracking identifier
Group = (
    hd.sr.MeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def groups(subject: Subject) -> Iterator[Group]:
    """The groups of one stack or image, in the order of its findings."""
    found = subject.findings
    for segment in found.segments:
        yield _segment_group(segment, subject)
    for labels, measurements in _together(found.measurements).items():
        yield _common_group(measurements, labels, subject)
    yield from _detections(subject)
    names = _numbered([one.definition.label for one in found.keypoints])
    for keypoint, name in zip(found.keypoints, names, strict=True):
        yield _keypoint_group(keypoint, name, subject)
    for index, answer in enumerate(found.classifications):
        yield _answer_group(answer, index, subject)


def _segment_group(segment: Segment, subject: Subject) -> Group:
    definition = segment.definition
    place, canvas = subject.places[definition.label], subject.canvas
    axis = drawing.of_region(subject.regions[definition.label], canvas.scale)
    common_to_both: dict[str, Any] = {
        "tracking_identifier": items.tracking(definition.label, place.tracking_uid, subject),
        "finding_category": definition.category,
        "finding_type": definition.type,
        "finding_sites": items.sites(definition),
        "algorithm_id": items.algorithm(subject.provenance),
        "measurements": [
            *items.nums(items.of_segment(subject.findings.measurements, definition.label)),
            *_extent(segment, axis, subject),
            *items.certainty(segment.probability),
        ],
    }
    group: Group
    if subject.sheet is None:
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=items.referenced_segments(subject, [definition.label]),
            **common_to_both,
        )
    else:
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=items.referenced_frame(place, subject.sheet), **common_to_both
        )
    group[0].ContentSequence.extend(items.drawn(coding.PATH, "POLYLINE", axis.line, subject))
    return group


def _extent(segment: Segment, axis: LongAxis, subject: Subject) -> Iterator[hd.sr.Measurement]:
    """The long axis; of a planar image, whose model sees no spacing, the area too."""
    canvas = subject.canvas
    if canvas.spacing is None:
        return
    yield items.num(coding.LONG_AXIS, axis.length, coding.MILLIMETRE)
    if subject.sheet is not None:
        pixels = np.count_nonzero(subject.regions[segment.definition.label].mask)
        yield items.num(coding.AREA, pixels * math.prod(canvas.spacing), coding.SQUARE_MILLIMETRE)


def _detections(subject: Subject) -> Iterator[Group]:
    found = subject.findings.detections
    names = _numbered([one.definition.label for one in found])
    seen: Counter[str] = Counter()
    for detection, name in zip(found, names, strict=True):
        if detection.segment is not None:
            mask = subject.places[detection.segment]
            tracking = items.tracking(detection.segment, mask.tracking_uid, subject)
            yield from _detection_groups(detection, tracking, subject)
            continue
        where = _where((detection.box.centre, *detection.box.edges))
        label = f"detection: {detection.definition.label!r} {where}"
        seen[label] += 1
        uid = items.uid(f"{label} {seen[label]}" if seen[label] > 1 else label, subject)
        yield from _detection_groups(detection, items.tracking(name, uid, subject), subject)


def _detection_groups(
    detection: Detection, tracking: hd.sr.TrackingIdentifier, subject: Subject
) -> Iterator[Group]:
    canvas, found = subject.canvas, _finding(detection.definition, subject)
    width, height, depth = shapes.extents(detection.box, canvas)
    sizes = [(coding.WIDTH, width), (coding.HEIGHT, height)] if canvas.spacing else []
    if depth is not None:
        sizes.append((coding.DEPTH, depth))
    lengths = [items.num(name, value, coding.MILLIMETRE) for name, value in sizes]
    certainty = list(items.certainty(detection.probability))
    outline = shapes.section(detection.box, canvas)
    yield hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_region=items.region("POLYLINE", outline, subject),
        geometric_purpose=coding.BOUNDED_BY,
        measurements=[*(lengths if canvas.grid is None else []), *certainty],
        **found,
    )
    if canvas.grid is not None:
        yield hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_volume_surface=_surface(detection.box, subject),
            geometric_purpose=coding.BOUNDED_BY,
            measurements=lengths,
            **found,
        )


def _surface(box: Box, subject: Subject) -> hd.sr.VolumeSurface:
    """The sides of a box in the patient (TID 1411 rows 10 and 12)."""
    return hd.sr.VolumeSurface(
        graphic_type="POLYGON",
        graphic_data=shapes.faces(box),
        frame_of_reference_uid=subject.source.frame_of_reference_uid,
        source_series=items.source_series(subject),
    )


def _keypoint_group(keypoint: Keypoint, name: str, subject: Subject) -> Group:
    plane, place = subject.canvas.place(keypoint.position)
    point = Drawing(plane=plane, places=place[None])
    uid = items.uid(f"key point: {name!r}", subject)
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=items.tracking(name, uid, subject),
        referenced_region=items.region("POINT", point, subject),
        measurements=list(items.certainty(keypoint.probability)),
        **_finding(keypoint.definition, subject),
    )
    if subject.canvas.grid is not None:
        exactly = np.asarray(keypoint.position, np.float64)[None]
        group[0].ContentSequence.append(items.solid(coding.CENTRE, "POINT", exactly, subject))
    return group


def _answer_group(answer: Classification, index: int, subject: Subject) -> Group:
    """A qualitative evaluation (TID 1501 row 10) beside its certainty."""
    asked = f"answer: {answer.question.scheme_designator} {answer.question.value}"
    said = f"{answer.answer.scheme_designator} {answer.answer.value} {index}"
    content: dict[str, Any] = {
        "tracking_identifier": items.tracking(
            answer.question.meaning, items.uid(f"{asked}: {said}", subject), subject
        ),
        "algorithm_id": items.algorithm(subject.provenance),
        "measurements": list(items.certainty(answer.probability)),
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(name=answer.question, value=answer.answer)
        ],
    }
    point = drawing.beside(subject.canvas, index, len(subject.findings.classifications))
    return _image_group(content, point, subject)


def _common_group(
    measurements: Sequence[Measurement], labels: Sequence[str], subject: Subject
) -> Group:
    """Measurements of several segments together (all, when the image is meant) or of an image.

    A volumetric group refers to one object; of segments in several there is a group without.
    """
    segments = labels or tuple(subject.regions)
    objects = {subject.places[label].segmentation.SOPInstanceUID for label in segments}
    content: dict[str, Any] = {
        "tracking_identifier": _tracking_together(labels, subject),
        "measurements": items.nums(measurements),
        "algorithm_id": items.algorithm(subject.provenance),
    }
    point = _representative_point(segments, subject)
    if len(objects) != 1 or subject.sheet is not None:
        return _image_group(content, point, subject)
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=items.referenced_segments(subject, segments), **content
    )
    group[0].ContentSequence.extend(_at(point, subject))
    return group


def _image_group(content: Mapping[str, Any], point: Drawing, subject: Subject) -> Group:
    """What is said of a whole image, shown at a point of it.

    Among groups of regions it is a planar one whose region is the whole image: PixelMed's
    validator, which IHE uses, holds all groups of a report to the template of one of them.
    """
    if subject.amid_regions:
        whole = drawing.border_of(subject.canvas, point.plane)
        return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=items.region("POLYLINE", whole, subject), **content
        )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(**content)
    group[0].ContentSequence.extend(_at(point, subject))
    return group


def _at(point: Drawing, subject: Subject) -> Iterator[hd.sr.ContentItem]:
    return items.drawn(coding.REPRESENTATIVE_POINT, "POINT", point, subject)


def _representative_point(labels: Sequence[str], subject: Subject) -> Drawing:
    """In the largest of the segments, or in the middle of the image."""
    if labels:
        return drawing.point_inside(max((subject.regions[label] for label in labels), key=_size))
    return drawing.middle_of(subject.canvas)


def _size(region: Region) -> int:
    return int(np.count_nonzero(region.mask))


def _together(
    measurements: Sequence[Measurement],
) -> dict[tuple[str, ...], list[Measurement]]:
    found: dict[tuple[str, ...], list[Measurement]] = {}
    for one in items.of_segment(measurements, None):
        found.setdefault(one.together, []).append(one)
    return found


def _finding(definition: SegmentDefinition, subject: Subject) -> dict[str, Any]:
    return {
        "finding_category": definition.category,
        "finding_type": definition.type,
        "finding_sites": items.sites(definition),
        "algorithm_id": items.algorithm(subject.provenance),
    }


def _tracking_together(labels: Sequence[str], subject: Subject) -> hd.sr.TrackingIdentifier:
    """Never that of a single segment, whatever the labels are."""
    uid = items.uid(f"together: {labels!r}", subject)
    return items.tracking(" + ".join(labels) or WHOLE_IMAGE, uid, subject)


def _where(points: Sequence[tuple[float, ...]]) -> str:
    """A place in words, to a hundredth: the same finding at the same place has the same UID."""
    return " ".join(f"{round(value, 2) + 0.0:.2f}" for point in points for value in point)


def _numbered(labels: Sequence[str]) -> list[str]:
    """Names that tell findings of one label apart: "Nodule 1", "Nodule 2"; one alone has none."""
    total, seen = Counter(labels), Counter[str]()
    names = []
    for label in labels:
        seen[label] += 1
        names.append(f"{label} {seen[label]}" if total[label] > 1 else label)
    return names
