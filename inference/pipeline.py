"""From data sets to result objects in one path: read, predict, encode, describe.

The same instances and the same model give the same objects, byte for byte. A series that is
refused, by the reader or by the model, has a report that says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom import Dataset

from inference import attributes, features, fusion, volume
from inference.encoding import Provenance, measurement_report, segmentation
from inference.errors import EncodingError, InputRefused
from inference.features import FeatureVector, Mask, View
from inference.findings import Findings, Verdict
from inference.models import Model
from inference.volume import Stack

DESCRIPTIONS = (
    "Modality",
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ConvolutionKernel",
    "ContrastBolusAgent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`report_not_analysed`: a series that is refused gives a report that says so."""

    report_not_analysed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What came of a series. `objects`: (result kind, data set) in the order of sending.

    `stack` is None when the series could not be read as one.
    """

    findings: Findings
    stack: Stack | None
    reason: str | None
    objects: tuple[tuple[str, Dataset], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """The further series that a model wants, by role, and the `role` of the series itself."""

    role: str
    others: Mapping[str, Sequence[Dataset]]


def analyse(
    datasets: Sequence[Dataset],
    model: Model,
    provenance: Provenance,
    options: Options,
    companions: Companions | None = None,
) -> Analysis:
    """What `model` finds in one series, or in one and its companions.

    Raises EncodingError when a result object does not pass its checks, and what the model raises.
    """
    try:
        stack = _read(datasets, companions)
    except InputRefused as refusal:
        findings = Findings(verdict=Verdict.NOT_ANALYSED, reason=str(refusal))
        return _refused(datasets, findings, provenance, options)
    findings = model.predict(stack.image)
    if findings.verdict is Verdict.NOT_ANALYSED:
        return _refused(stack, findings, provenance, options)
    return _found(stack, findings, provenance)


def describe(
    stack: Stack, findings: Findings, view: View, segments: Sequence[Mask]
) -> tuple[FeatureVector, ...]:
    """The feature vectors of an image and what was found in it.

    `view` and `segments`: `features.look` of the image and `features.outlines` of the findings,
    which need not wait for each other or for the result objects.
    """
    return features.vectors(view, segments, findings, header_text(stack.headers))


def header_text(headers: Sequence[Dataset]) -> str:
    """The words in which the scanner described a series; none of them identifies a patient."""
    found = (attributes.text(headers[0], keyword) for keyword in DESCRIPTIONS)
    return " ".join(words for words in found if words)


def _read(datasets: Sequence[Dataset], companions: Companions | None) -> Stack:
    stack = volume.read(datasets)
    if companions is None:
        return stack
    others = {role: _companion(role, found) for role, found in companions.others.items()}
    return fusion.fused(stack, others, role=companions.role)


def _companion(role: str, datasets: Sequence[Dataset]) -> Stack:
    try:
        return volume.read(datasets)
    except InputRefused as refusal:
        raise InputRefused(f"{role}: {refusal}") from refusal


def _found(stack: Stack, findings: Findings, provenance: Provenance) -> Analysis:
    segments = segmentation.encode(stack, findings, provenance=provenance)
    report = measurement_report.encode(
        stack, findings, provenance=provenance, segmentations=segments
    )
    first = tuple((segmentation.KIND, one) for one in segments)
    return Analysis(
        findings=findings,
        stack=stack,
        reason=findings.reason,
        objects=(*first, (measurement_report.KIND, report)),
    )


def _refused(
    source: Stack | Sequence[Dataset],
    findings: Findings,
    provenance: Provenance,
    options: Options,
) -> Analysis:
    """The report of a refusal; a source too odd even for that leaves the reason alone."""
    stack = source if isinstance(source, Stack) else None
    analysis = Analysis(findings=findings, stack=stack, reason=findings.reason)
    if not options.report_not_analysed:
        return analysis
    try:
        report = measurement_report.encode(source, findings, provenance=provenance)
    except EncodingError as error:
        return replace(analysis, reason=f"{findings.reason}; no report of it: {error}")
    return replace(analysis, objects=((measurement_report.KIND, report),))
