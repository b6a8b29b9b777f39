"""Small findings on synthetic series, and what independent code reads back from the results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from inference import phantom, volume
from inference.encoding import Provenance, measurement_report, segmentation
from inference.encoding.common import to_bytes
from inference.findings import Findings, Measurement, Segment, SegmentDefinition, Verdict, Withheld
from inference.volume import Stack

PROVENANCE = Provenance(
    model_name="lung_ct", model_version="1.0.0", configuration="c" * 64, fingerprint="f" * 64
)
RIGHT = SegmentDefinition(
    label="Right lung",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.Lung,
    modifier=codes.SCT.Right,
    colour=(224, 135, 60),
)
LEFT = replace(RIGHT, label="Left lung", modifier=codes.SCT.Left, colour=(60, 135, 224))
NODULE = SegmentDefinition(
    label="Nodule",
    category=codes.SCT.MorphologicallyAbnormalStructure,
    type=Code("27925004", "SCT", "Nodule"),
    colour=(220, 30, 30),
)
DEFINITIONS = (RIGHT, LEFT, NODULE)


def series(
    shape: tuple[int, int, int] = (8, 24, 20), scan: phantom.Scan = phantom.PLAIN
) -> list[Dataset]:
    """A small axial CT series without a patient in it."""
    grid = phantom.regular(shape, (3.0, 2.0, 2.5))
    return phantom.datasets(phantom.markers(grid), scan)


def masks(shape: Sequence[int], count: int = 2, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Disjoint random masks, none empty, with slices that hold nothing."""
    labels = np.random.default_rng(seed).integers(0, 3 * count, tuple(shape))
    labels[0] = 0
    labels[-1] = 0
    middle = shape[0] // 2
    labels[middle].flat[: count + 1] = range(count + 1)
    return [labels == number for number in range(1, count + 1)]


def findings(stack: Stack, chosen: Sequence[NDArray[np.bool_]] | None = None) -> Findings:
    """Segments with a volume and a mean, numbers for all, something withheld, a limitation."""
    image = stack.image.volume
    chosen = masks(image.spatial_shape) if chosen is None else chosen
    segments = tuple(
        Segment(definition=definition, mask=image.with_array(mask))
        for definition, mask in zip(DEFINITIONS, chosen, strict=False)
    )
    measurements = [one for segment in segments for one in _measured(segment)]
    together = replace(measurements[0], value=1234.5678901, segment=None)
    shared = replace(together, value=12.5, together=tuple(s.definition.label for s in segments[:2]))
    return Findings(
        verdict=Verdict.WITHHELD,
        reason="the slices are 5.0 mm thick",
        segments=segments,
        measurements=(*measurements, together, shared),
        withheld=(Withheld(names=("LAA-950", "Perc15"), reason="Slices must be thin."),),
        limitations=("Not tested on children.",),
    )


def _measured(segment: Segment) -> tuple[Measurement, Measurement]:
    label = segment.definition.label
    millilitres = float(segment.mask.array.sum() * segment.mask.voxel_volume / 1000)
    return (
        Measurement(
            name=codes.SCT.Volume,
            value=millilitres,
            unit=codes.UCUM.CubicCentimeter,
            segment=label,
        ),
        Measurement(
            name=codes.DCM.AttenuationCoefficient,
            value=-812.3456789,
            unit=codes.UCUM.HounsfieldUnit,
            derivation=codes.SCT.Mean,
            segment=label,
        ),
    )


def results(
    datasets: Sequence[Dataset], provenance: Provenance = PROVENANCE
) -> tuple[Stack, Dataset, Dataset]:
    """Stack, segmentation and report of a series."""
    stack = volume.read(datasets)
    found = findings(stack)
    (seg,) = segmentation.encode(stack, found, provenance=provenance)
    report = measurement_report.encode(stack, found, provenance=provenance, segmentations=[seg])
    return stack, seg, report


def not_analysed(
    datasets: Sequence[Dataset], reason: str = "slices 3 and 4 are 12.0 mm apart"
) -> Dataset:
    """The report that says so, from headers alone."""
    refusal = Findings(verdict=Verdict.NOT_ANALYSED, reason=reason)
    return measurement_report.encode(datasets, refusal, provenance=PROVENANCE)


def written(folder: Path, **objects: Dataset) -> dict[str, Path]:
    """The objects as files."""
    paths = {name: folder / f"{name}.dcm" for name in objects}
    for name, path in paths.items():
        path.write_bytes(to_bytes(objects[name]))
    return paths


def texts(report: Dataset) -> list[str]:
    """Every text of a report, in order."""
    own = [str(report.TextValue)] if "TextValue" in report else []
    return own + [line for item in report.get("ContentSequence", ()) for line in texts(item)]
