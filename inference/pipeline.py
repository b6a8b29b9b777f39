"""From data sets to result objects in one path: read, predict, encode, describe.

The same instances and the same model give the same objects, byte for byte. A series that is
refused, by the reader or by the model, has a report that says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from inference import volume
from inference.encoding import Provenance, segmentation
from inference.errors import InputRefused
from inference.findings import Findings, Verdict
from inference.models import Model
from inference.volume import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`report_not_analysed`: a series that is refused gives a report of it."""

    report_not_analysed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What came of a series. `objects`: (result kind, data set) in the order of sending."""

    verdict: Verdict
    reason: str | None
    objects: tuple[tuple[str, Dataset], ...] = ()
    vectors: tuple[object, ...] = ()


def analyse(
    datasets: Sequence[Dataset], model: Model, provenance: Provenance, options: Options
) -> Analysis:
    """What `model` finds in one series.

    Raises EncodingError when a result object does not pass its checks, and what the model raises.
    """
    try:
        stack = volume.read(datasets)
    except InputRefused as refusal:
        findings = Findings(verdict=Verdict.NOT_ANALYSED, reason=str(refusal))
        return _analysis(findings, None, datasets, provenance, options)
    findings = model.predict(stack.image)
    return _analysis(findings, stack, datasets, provenance, options)


def _analysis(
    findings: Findings,
    stack: Stack | None,
    datasets: Sequence[Dataset],
    provenance: Provenance,
    options: Options,
) -> Analysis:
    objects = []
    if stack is not None:
        found = segmentation.encode(stack, findings, provenance=provenance)
        if found is not None:
            objects.append((segmentation.KIND, found))
    del datasets, options
    return Analysis(verdict=findings.verdict, reason=findings.reason, objects=tuple(objects))
