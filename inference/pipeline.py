"""From data sets to result objects in one path: read, predict, encode, describe.

The same instances and the same model give the same objects, byte for byte. A series that is
refused, by the reader or by the model, has a report that says why. A model of 2 dimensions is
given the planar images of a series, one after the other; any other model is given its stack.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from pydicom import Dataset

from inference import attributes, features, fusion, planar, view_features, volume
from inference.encoding import Provenance, measurement_report, segmentation
from inference.errors import EncodingError, InputRefused
from inference.features import FeatureVector, Mask, View
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.models import Model
from inference.planar import Views
from inference.volume import Stack

PLANAR = 2  # dimensions
BYTES_A_VALUE = 8  # int16, float32 beside it when that is not enough, the mask of padding
PIXEL_COUNTS = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel")
NOT_COMBINED = "planar images of several series lie nowhere in the patient and are not combined"
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

    `stack` is None when the series could not be read as one; so is `views`, the planar images, of
    which `by_view` has the findings one by one and `findings` the verdict on all.
    """

    findings: Findings
    stack: Stack | None
    reason: str | None
    objects: tuple[tuple[str, Dataset], ...] = ()
    views: Views | None = None
    by_view: tuple[Findings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """The further series that a model wants, by role, and the `role` of the series itself."""

    role: str
    others: Mapping[str, Sequence[Dataset]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A series as a model of these `dimensions` is given it: its stack, its planar images, or the
    reason why neither.
    """

    dimensions: int
    datasets: Sequence[Dataset]
    image: Stack | Views | None
    refusal: str = ""


def read(
    datasets: Sequence[Dataset], *, dimensions: int, companions: Companions | None = None
) -> Given:
    """One series, or one and its companions, for a model of these `dimensions`.

    Raises DecodeError for pixel data that nothing here decodes.
    """
    try:
        image, refusal = _image(datasets, dimensions, companions), ""
    except InputRefused as refused:
        image, refusal = None, str(refused)
    return Given(dimensions=dimensions, datasets=datasets, image=image, refusal=refusal)


def most_bytes(datasets: Sequence[Dataset], companions: Companions | None = None) -> int:
    """Memory that `read` takes at most, by what the headers state."""
    own = sum(map(_values, datasets))
    if companions is None:
        return BYTES_A_VALUE * own
    others = sum(_values(one) for found in companions.others.values() for one in found)
    return BYTES_A_VALUE * (own + others + own * len(companions.others))


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
    dimensions = model.requirements.dimensions
    given = read(datasets, dimensions=dimensions, companions=companions)
    return analyse_given(given, model, provenance, options)


def analyse_given(given: Given, model: Model, provenance: Provenance, options: Options) -> Analysis:
    """What `model` finds in a series that was read for a model of its dimensions; as `analyse`."""
    if isinstance(given.image, Views):
        return _analyse_views(given.image, model, provenance, options)
    if given.image is None:
        findings = Findings(verdict=Verdict.NOT_ANALYSED, reason=given.refusal)
        return _refused(given.datasets, findings, provenance, options)
    findings = found_in(given.image.image, model)
    provenance = replace(provenance, computed=computed([findings]))
    if findings.verdict is Verdict.NOT_ANALYSED:
        return _refused(given.image, findings, provenance, options)
    return _found(given.image, findings, provenance)


def found_in(image: Image | PlanarImage, model: Model) -> Findings:
    """What a model finds; of an image that lacks what it requires, why it was not asked."""
    unmet = model.requirements.unmet(image)
    if unmet is not None:
        return Findings(verdict=Verdict.NOT_ANALYSED, reason=unmet)
    return model.predict(image)


def describe(
    stack: Stack, findings: Findings, view: View, segments: Sequence[Mask]
) -> tuple[FeatureVector, ...]:
    """The feature vectors of an image and what was found in it.

    `view` and `segments`: `features.look` of the image and `features.outlines` of the findings,
    which need not wait for each other or for the result objects.
    """
    return features.vectors(view, segments, findings, header_text(stack.headers))


def describe_views(views: Views) -> tuple[FeatureVector, ...]:
    """The feature vectors of the planar images of a series, whatever was found in them."""
    images = planar.images(views, view_features.places(len(views.views)))
    return view_features.vectors(images, header_text(views.headers))


def header_text(headers: Sequence[Dataset]) -> str:
    """The words in which the scanner described a series; none of them identifies a patient."""
    found = (attributes.text(headers[0], keyword) for keyword in DESCRIPTIONS)
    return " ".join(words for words in found if words)


def _image(
    datasets: Sequence[Dataset], dimensions: int, companions: Companions | None
) -> Stack | Views:
    if dimensions == PLANAR and companions is not None:
        raise InputRefused(NOT_COMBINED)
    if dimensions == PLANAR:
        return planar.read(datasets)
    stack = volume.read(datasets)
    if companions is None:
        return stack
    others = {role: _companion(role, found) for role, found in companions.others.items()}
    return fusion.fused(stack, others, role=companions.role)


def _values(dataset: Dataset) -> int:
    """Of its pixels, all frames and colours."""
    found = (attributes.number(dataset, keyword) for keyword in PIXEL_COUNTS)
    return int(prod(max(0, count) if count is not None else 1 for count in found))


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


def _analyse_views(
    views: Views, model: Model, provenance: Provenance, options: Options
) -> Analysis:
    try:
        views, by_view = planar.each(views, lambda image: found_in(image, model))
    except InputRefused as refusal:
        findings = Findings(verdict=Verdict.NOT_ANALYSED, reason=str(refusal))
        return _refused(views.headers, findings, provenance, options)
    together = verdict_on(by_view)
    provenance = replace(provenance, computed=computed(by_view))
    if together.verdict is Verdict.NOT_ANALYSED:
        refused = _refused(views.headers, together, provenance, options)
        return replace(refused, views=views, by_view=by_view)
    segments = segmentation.encode_views(views, by_view, provenance=provenance)
    report = measurement_report.encode_views(
        views, by_view, provenance=provenance, segmentations=segments
    )
    return Analysis(
        findings=together,
        stack=None,
        reason=together.reason or _reasons(by_view),
        objects=(
            *((segmentation.KIND, one) for one in segments),
            (measurement_report.KIND, report),
        ),
        views=views,
        by_view=by_view,
    )


def verdict_on(by_view: Sequence[Findings]) -> Findings:
    """Measured when any view is, else withheld when any is, else not analysed, with the reasons."""
    verdicts = {findings.verdict for findings in by_view}
    verdict = next(one for one in Verdict if one in verdicts)
    limitations = dict.fromkeys(one for findings in by_view for one in findings.limitations)
    reason = None if verdict is Verdict.MEASURED else _reasons(by_view)
    return Findings(verdict=verdict, reason=reason, limitations=tuple(limitations))


def computed(by_view: Sequence[Findings]) -> str | None:
    """How the findings in some images were: all alike, or each with the numbers of its images."""
    places: dict[str, list[int]] = {}
    for number, findings in enumerate(by_view, start=1):
        if findings.computed is not None:
            places.setdefault(str(findings.computed), []).append(number)
    if len(places) <= 1:
        return next(iter(places), None)
    return "; ".join(f"{words} (images {numbers})" for words, numbers in _listed(places))


def _listed(places: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str]]:
    return ((words, ", ".join(map(str, numbers))) for words, numbers in places.items())


def _reasons(by_view: Sequence[Findings]) -> str | None:
    """Why views were not measured: `2 of 4 images not analysed: ...`; None when all were."""
    counts = Counter((one.verdict, one.reason) for one in by_view if one.reason is not None)
    if len(by_view) == 1:
        return by_view[0].reason
    parts = (
        f"{count} of {len(by_view)} images {verdict.replace('_', ' ')}: {reason}"
        for (verdict, reason), count in counts.items()
    )
    return "; ".join(parts) or None


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
