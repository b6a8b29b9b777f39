"""What a bundle's numbers mean, by its sidecar: masks on the image's grid, classes, values."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from inference import calibration, measurement, regions, thresholds
from inference.bundles.grids import Values
from inference.calibration import Interval
from inference.description import Description, Label
from inference.errors import ModelError
from inference.findings import (
    Classification,
    Findings,
    Image,
    Measurement,
    PlanarImage,
    Segment,
    Verdict,
)
from inference.regions import Region

HALF = 0.5
NO_UNIT = Code("1", "UCUM", "no units")
CLASS = Code("CLASS", "99LOCAL", "Class of the image")

Found = tuple[Label, Region]


def segmentation(values: Values, image: Image | PlanarImage, description: Description) -> Findings:
    """Segments of `values` (channel, x, y[, z]), which lie on the image's grid; none is empty."""
    if description.overlapping:
        found = _channels(values, description)
    else:
        found = _labels(_label_map(values, description), description)
    return _segmented(((one, part.transposed()) for one, part in found), image, description)


def refuse_image(values: Values, outputs: int) -> None:
    """Raise ModelError for a picture where labels should be: of more values than can be labels.

    `outputs`: channels of the network. Each on or off, they make 2 to their power at most.
    """
    most = 2 ** min(outputs, 16)
    if len(values) == 1 and values.max(initial=0) >= most and np.unique(values).size > most:
        raise ModelError(
            f"the model gave an image, not labels: more values than {outputs} channels can tell"
        )


def labelled(labels: NDArray[Any], image: Image, description: Description) -> Findings:
    """Segments of a label map (slice, row, column), or of masks (class, slice, row, column)."""
    if not description.overlapping:
        thresholds.refuse_of_label_map(description)
    if labels.ndim == image.volume.array.ndim:
        found = _labels(labels, description)
    elif description.overlapping:
        found = _channels(labels, description)
    else:
        found = _labels(labels.argmax(axis=0) if len(labels) > 1 else labels[0], description)
    return _segmented(found, image, description)


def _segmented(
    found: Iterable[Found], image: Image | PlanarImage, description: Description
) -> Findings:
    """Findings of regions in our axes: (slice, row, column), or (row, column)."""
    segments = tuple(
        Segment(definition=label.definition, mask=_placed(region, image)) for label, region in found
    )
    measured = () if isinstance(image, PlanarImage) else tuple(map(measurement.volume, segments))
    return Findings(
        verdict=Verdict.MEASURED,
        segments=segments,
        measurements=measured,
        limitations=(*description.limits, *_cut(segments, image)),
    )


def _channels(values: NDArray[Any], description: Description) -> Iterator[Found]:
    for label in description.labels:
        if label.value >= len(values):
            raise ModelError(f"the model gave {len(values)} channels; a label has {label.value}")
        channel = values[label.value]
        region = regions.of_mask((channel >= thresholds.alone(label)) & (channel > 0))
        if region.mask.size:
            yield label, region


def _label_map(values: Values, description: Description) -> NDArray[np.int32]:
    """Of one channel its values, of several the largest."""
    if len(values) > 1:
        return thresholds.likeliest(values, description)
    thresholds.refuse_of_label_map(description)
    rounded = np.rint(values[0])
    if not np.allclose(values[0], rounded, atol=HALF / 100):
        raise ModelError("the model gave a label map whose values are not whole numbers")
    return np.asarray(rounded, np.int32)


def _labels(values: NDArray[Any], description: Description) -> Iterator[Found]:
    if values.min(initial=0) < 0:
        raise ModelError("the model gave a label map with values below 0")
    wanted = [label.value for label in description.labels]
    for label, region in zip(description.labels, regions.of_labels(values, wanted), strict=True):
        if region is not None:
            yield label, region


def _placed(region: Region, image: Image | PlanarImage) -> Any:
    """The mask at its place: part of a volume, or the region of a planar image."""
    return region if isinstance(image, PlanarImage) else region.in_patient(image.volume)


def _cut(segments: tuple[Segment, ...], image: Image | PlanarImage) -> tuple[str, ...]:
    """A sentence for what reaches the first or last slice: its volume is of a part."""
    if isinstance(image, PlanarImage):
        return ()
    reaching = [
        segment.definition.label
        for segment in segments
        if regions.on_grid(segment.mask, image.volume).reaches_the_ends()
    ]
    if not reaching:
        return ()
    return (f"Reaches the end of the stack, so its volume may be of a part: {_list(reaching)}.",)


SEVERAL = 5


def _list(labels: list[str]) -> str:
    more = f" and {len(labels) - SEVERAL} more" if len(labels) > SEVERAL else ""
    return f"{', '.join(labels[:SEVERAL])}{more}"


def classification(
    probabilities: Values, description: Description, *, stated: bool = True
) -> Findings:
    """Classes of `probabilities` (class,): the likeliest, or those above their thresholds.

    `stated`: they are probabilities and said to be; else the network's numbers as they are.
    """
    _enough(probabilities, description)
    said = tuple(
        Classification(
            question=label.question or CLASS,
            answer=label.definition.type,
            probability=float(probabilities[label.value]) if stated else None,
        )
        for label in thresholds.said(probabilities.tolist(), description)
    )
    return Findings(
        verdict=Verdict.MEASURED,
        classifications=said,
        limitations=(*description.limits, *nameless(probabilities, description)),
    )


def nameless(numbers: Values, description: Description) -> tuple[str, ...]:
    """A sentence when the likeliest of exclusive classes has no label: it is not nothing."""
    likeliest = int(numbers.argmax())
    if description.overlapping or likeliest in {label.value for label in description.labels}:
        return ()
    return (f"The likeliest class (number {likeliest}) has no label: no answer is given.",)


def regression(
    values: Values, description: Description, intervals: Mapping[str, Interval]
) -> Findings:
    """Numbers of `values` (output,), each with its unit and its 95 % prediction interval."""
    _enough(values, description)
    measured = tuple(_number(label, values, intervals) for label in description.labels)
    return Findings(verdict=Verdict.MEASURED, measurements=measured, limitations=description.limits)


def _number(label: Label, values: Values, intervals: Mapping[str, Interval]) -> Measurement:
    value = float(values[label.value])
    known = intervals.get(label.definition.label)
    interval = None
    if known is not None:
        interval = calibration.ends(known, value, values.tolist(), multiply=1.0, add=0.0)
    return Measurement(
        name=label.definition.type, value=value, unit=label.unit or NO_UNIT, interval=interval
    )


def _enough(values: Values, description: Description) -> None:
    wanted = max((label.value for label in description.labels), default=0)
    if wanted >= values.size:
        raise ModelError(f"the model gave {values.size} numbers; a label has {wanted}")
