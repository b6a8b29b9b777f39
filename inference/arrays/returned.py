"""What a Python function may return for an image, checked key by key, as findings.

A mapping, of any of these keys; names are those of the sidecar's labels, places are indices into
the array (slice, row, column; or row, column), where a whole number is the centre of a voxel:

    label_map      integers on the array's grid; a label's `value` is its number
    masks          {name: booleans on the array's grid}
    boxes          [{"label": name, "lower": index, "upper": index, "probability": 0 to 1}, ...]
                   index of the first and of the last voxel inside
    points         {name: index, or (index, probability)}
    classes        {name: probability}
    numbers        {name: value, or (value, lowest, highest) with a 95 % prediction interval}
    not_analysed   a sentence: why this image is not analysed; then nothing else
    limitations    [sentence, ...]

Anything else is a ModelError that says what: the model is at fault, not the image.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from inference import measurement
from inference.arrays import answers, results
from inference.arrays.results import Mask
from inference.description import Description, Label
from inference.errors import ModelError
from inference.findings import (
    Box,
    Classification,
    Detection,
    Findings,
    Image,
    Keypoint,
    Measurement,
    PlanarImage,
    Verdict,
    not_found,
)

KEYS = (
    "label_map",
    "masks",
    "boxes",
    "points",
    "classes",
    "numbers",
    "not_analysed",
    "limitations",
)
INTERVAL = 3  # a value and the ends of its interval


def findings(answer: object, image: Image | PlanarImage, description: Description) -> Findings:
    """An answer as findings of the image; raises ModelError for what is not as documented."""
    if not isinstance(answer, Mapping) or not set(answer) <= set(KEYS):
        found = sorted(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
        raise ModelError(f"predict returned {found}; allowed: a dict with {', '.join(KEYS)}")
    limitations = tuple(map(str, answer.get("limitations", ())))
    if "not_analysed" in answer:
        return Findings(
            verdict=Verdict.NOT_ANALYSED,
            reason=str(answer["not_analysed"]),
            limitations=(*description.limits, *limitations),
        )
    by_name = {label.definition.label: label for label in description.labels}
    segments, absent = results.segments_of(image, _masks(answer, image, description, by_name))
    stack = isinstance(image, Image)
    volumes = tuple(map(measurement.volume, segments)) if stack else ()
    return Findings(
        verdict=Verdict.MEASURED,
        segments=segments,
        detections=tuple(_detections(answer.get("boxes", ()), image, by_name)),
        keypoints=tuple(_keypoints(answer.get("points", {}), image, by_name)),
        classifications=tuple(_classes(answer.get("classes", {}), by_name)),
        measurements=(*volumes, *_numbers(answer.get("numbers", {}), by_name)),
        limitations=(*description.limits, *limitations, *not_found(absent)),
    )


def _masks(
    answer: Mapping[str, Any],
    image: Image | PlanarImage,
    description: Description,
    by_name: Mapping[str, Label],
) -> Iterator[tuple[Label, Mask]]:
    if "label_map" in answer:
        values = _array(answer["label_map"], "iub", "label_map", image)
        for label in description.labels:
            yield label, values == label.value
    for name, given in answer.get("masks", {}).items():
        label = _label(name, "masks", by_name)
        yield label, _array(given, "b", f"masks: {name}", image).astype(np.bool_)


def _array(given: Any, kinds: str, where: str, image: Image | PlanarImage) -> Any:
    array = np.asarray(given)
    expected = results.shape_of(image)
    if array.shape != expected or array.dtype.kind not in kinds:
        wanted = "booleans" if kinds == "b" else "integers"
        raise ModelError(
            f"{where}: {array.dtype} of {array.shape}; allowed: {wanted} of {expected}"
        )
    return array


def _detections(
    given: Sequence[Mapping[str, Any]], image: Image | PlanarImage, by_name: Mapping[str, Label]
) -> Iterator[Detection]:
    for one in given:
        if not isinstance(one, Mapping) or set(one) != {"label", "lower", "upper", "probability"}:
            raise ModelError("boxes: allowed: label, lower, upper and probability, each")
        label = _label(one["label"], "boxes", by_name)
        probability = _probability(one["probability"], "boxes")
        if label.threshold is None or probability >= label.threshold:
            lower = _index(one["lower"], "boxes", image)
            upper = _index(one["upper"], "boxes", image)
            if any(first > last for first, last in zip(lower, upper, strict=True)):
                raise ModelError("boxes: lower lies above upper")
            yield Detection(
                definition=label.definition,
                box=box(lower, upper, image),
                probability=probability,
            )


def box(lower: Sequence[float], upper: Sequence[float], image: Image | PlanarImage) -> Box:
    """The box around the voxels from `lower` to `upper`, both inside, at its place."""
    middle = [(one + other) / 2 for one, other in zip(lower, upper, strict=True)]
    sides = [other - one + 1 for one, other in zip(lower, upper, strict=True)]
    if isinstance(image, PlanarImage):
        rows, columns = sides
        return Box(centre=results.located(image, middle), edges=((columns, 0.0), (0.0, rows)))
    vectors = np.asarray(image.volume.affine, np.float64)[:3, :3] * np.asarray(sides)
    return Box(
        centre=results.located(image, middle),
        edges=tuple(tuple(float(part) for part in vectors[:, axis]) for axis in range(3)),
    )


def _keypoints(
    given: Mapping[str, Any], image: Image | PlanarImage, by_name: Mapping[str, Label]
) -> Iterator[Keypoint]:
    for name, value in given.items():
        label = _label(name, "points", by_name)
        nested = len(value) > 0 and not isinstance(value[0], float | int | np.number)
        place, certain = value if nested else (value, None)
        probability = None if certain is None else _probability(certain, f"points: {name}")
        if label.threshold is None or probability is None or probability >= label.threshold:
            yield Keypoint(
                definition=label.definition,
                position=results.located(image, _index(place, f"points: {name}", image)),
                probability=probability,
            )


def _classes(given: Mapping[str, Any], by_name: Mapping[str, Label]) -> Iterator[Classification]:
    for name, value in given.items():
        label = _label(name, "classes", by_name)
        probability = _probability(value, f"classes: {name}")
        if label.threshold is None or probability >= label.threshold:
            yield answers.classification(label, probability)


def _numbers(given: Mapping[str, Any], by_name: Mapping[str, Label]) -> Iterator[Measurement]:
    for name, value in given.items():
        label = _label(name, "numbers", by_name)
        parts = value if isinstance(value, list | tuple) else (value,)
        if len(parts) not in (1, INTERVAL):
            raise ModelError(f"numbers: {name}: allowed: a value, or (value, lowest, highest)")
        number, *ends = (_number(part, f"numbers: {name}") for part in parts)
        yield answers.measurement(label, number, (ends[0], ends[1]) if ends else None)


def _label(name: object, where: str, by_name: Mapping[str, Label]) -> Label:
    if name not in by_name:
        raise ModelError(f"{where}: {name!r} is no label; allowed: {', '.join(by_name)}")
    return by_name[str(name)]


def _index(given: Any, where: str, image: Image | PlanarImage) -> tuple[float, ...]:
    shape = results.shape_of(image)
    index = tuple(_number(part, where) for part in given)
    inside = all(-0.5 <= part <= count - 0.5 for part, count in zip(index, shape, strict=False))
    if len(index) != len(shape) or not inside:
        raise ModelError(f"{where}: {index} is no index into {shape} voxels")
    return index


def _probability(given: Any, where: str) -> float:
    value = _number(given, where)
    if not 0 <= value <= 1:
        raise ModelError(f"{where}: {value} is no probability; allowed: 0 to 1")
    return value


def _number(given: Any, where: str) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: {type(given).__name__} is no number") from error
    if not math.isfinite(value):
        raise ModelError(f"{where}: {value} is no number")
    return value
