"""What a reader must know besides the numbers, in sentences, most important first."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from inference.encoding import Provenance
from inference.encoding.report_items import has_interval, rounded
from inference.encoding.sheets import Sheet
from inference.encoding.source_headers import Source
from inference.findings import Findings, Verdict
from inference.planar import Views
from inference.volume import Stack

NO_FRAME_OF_REFERENCE = (
    "Note: the source has no Frame of Reference UID; positions hold within its series only."
)
AT_DETECTOR = (
    "Note: lengths and areas are those at the detector; in the patient they are smaller by the"
    " geometric magnification, which the image does not state."
)
NO_SPACING = "Note: the image states no pixel spacing; no lengths or areas are given."
SIZES_OF_BOXES = "Note: sizes of what was located are those of boxes around it."
NAMED = 12  # images by name in one sentence


def sentences(findings: Findings, provenance: Provenance, notes: Sequence[str]) -> tuple[str, ...]:
    """Of the findings in one stack."""
    said = (*_before(findings), *_cleared(provenance), *_after(findings))
    return (*said, *_computed(provenance), *notes)


def sentences_of_views(
    findings: Sequence[Findings],
    sheets: Sequence[Sheet],
    provenance: Provenance,
    notes: Sequence[str],
) -> tuple[str, ...]:
    """Of planar images: what is not said of all of them names those that it is said of."""
    before = [tuple(_before(found)) for found in findings]
    after = [
        (*_after(found), *_spacing(found, sheet))
        for found, sheet in zip(findings, sheets, strict=True)
    ]
    names = [sheet.name for sheet in sheets]
    said = (*_shared(before, names), *_cleared(provenance), *_shared(after, names))
    return (*said, *_computed(provenance), *notes)


def notes_of(stack: Stack, source: Source) -> tuple[str, ...]:
    """What was left out of the series, and how its headers were taken."""
    return (
        *_left_out(stack),
        *([NO_FRAME_OF_REFERENCE] if source.frame_of_reference_is_ours else []),
    )


def notes_of_views(views: Views) -> tuple[str, ...]:
    """What was left out of a series of planar images."""
    return tuple(_left_out(views))


def _left_out(source: Stack | Views) -> Iterator[str]:
    aside = Counter(one.reason for one in source.set_aside)
    yield from (f"Not used: {count} image(s), {reason}." for reason, count in sorted(aside.items()))
    yield from (f"Note: {note}" for note in source.notes)


def _before(findings: Findings) -> Iterator[str]:
    yield from _verdict(findings)
    yield from (f"Not given: {', '.join(one.names)}. {one.reason}" for one in findings.withheld)
    yield from _not_finite(findings)


def _cleared(provenance: Provenance) -> tuple[str, ...]:
    return ("Not for diagnosis.",) if provenance.not_for_diagnosis else ()


def _computed(provenance: Provenance) -> tuple[str, ...]:
    """Also of a report without groups, which else say it."""
    return (f"Computed in {provenance.computed}.",) if provenance.computed else ()


def _after(findings: Findings) -> Iterator[str]:
    if findings.detections:
        yield SIZES_OF_BOXES
    yield from (f"Limitation: {limitation}" for limitation in findings.limitations)


def _verdict(findings: Findings) -> Iterator[str]:
    if findings.verdict is Verdict.NOT_ANALYSED:
        yield f"Not analysed: {findings.reason}"
        return
    if findings.verdict is Verdict.WITHHELD:
        yield f"Some measurements are withheld: {findings.reason}"
    elif not _anything(findings):
        yield "Analysed; nothing found."
    yield from _located(findings)
    yield from _answers(findings)
    yield from _intervals(findings)


def _anything(findings: Findings) -> bool:
    return bool(
        findings.segments
        or findings.measurements
        or findings.detections
        or findings.keypoints
        or findings.classifications
    )


def _located(findings: Findings) -> Iterator[str]:
    boxes = [one.definition.label for one in findings.detections]
    points = [one.definition.label for one in findings.keypoints]
    found = Counter([*boxes, *points])
    if found:
        yield f"Located: {', '.join(f'{label} ({count})' for label, count in found.items())}."


def _answers(findings: Findings) -> Iterator[str]:
    for one in findings.classifications:
        probability = (
            ""
            if one.probability is None
            else f" (probability {rounded(round(100 * one.probability, 2)):g} %)"
        )
        yield f"{one.question.meaning}: {one.answer.meaning}{probability}."


def _intervals(findings: Findings) -> Iterator[str]:
    for one in findings.measurements:
        if has_interval(one) and one.interval is not None:
            low, high = (rounded(limit) for limit in one.interval)
            owner = f" of {one.segment}" if one.segment else ""
            unit = "" if one.unit.value == "1" else f" {one.unit.value}"
            yield f"{one.name.meaning}{owner}: 95 % prediction interval {low:g} to {high:g}{unit}."


def _not_finite(findings: Findings) -> Iterator[str]:
    for one in findings.measurements:
        owner = f" of {one.segment}" if one.segment else ""
        if not math.isfinite(one.value):
            yield f"Not given: {one.name.meaning}{owner}. It could not be computed."
        elif one.interval is not None and not has_interval(one):
            yield f"Not given: the interval of {one.name.meaning}{owner}. It could not be computed."


def _spacing(findings: Findings, sheet: Sheet) -> Iterator[str]:
    """Where lengths hold, when there is something to have a length."""
    if not findings.segments and not findings.detections:
        return
    if sheet.spacing is None:
        yield NO_SPACING
    elif sheet.at_detector:
        yield AT_DETECTOR


def _shared(said: Sequence[Sequence[str]], names: Sequence[str]) -> Iterator[str]:
    """Each sentence once, with the images that it is of unless it is of all."""
    of: dict[str, list[str]] = {}
    for lines, name in zip(said, names, strict=True):
        for line in dict.fromkeys(lines):
            of.setdefault(line, []).append(name)
    for line, chosen in of.items():
        yield line if len(chosen) == len(names) else f"{_listed(chosen)}: {line}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
