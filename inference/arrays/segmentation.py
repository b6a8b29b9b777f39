"""From a network's channels or label map to masks on the exact grid of the source.

Channels come a slab at a time and are decided on the source's grid, so that the memory is one label
map, or a mask a class, whatever the number of channels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from inference import thresholds
from inference.arrays.options import Output
from inference.arrays.placement import Placement
from inference.calibration import probabilities
from inference.description import Description, Label
from inference.engine import labelling
from inference.engine.labelling import Rule
from inference.engine.sliding_window import Slab
from inference.errors import ModelError, ModelRefused

Mask = NDArray[np.bool_]


def activated(channels: Tensor, output: Output) -> Tensor:
    """Probabilities of (channel, ...), or the values themselves without an activation.

    Divided by the calibration's temperature; Platt's lines are of classifications (`answers`).
    """
    return probabilities(channels, output.activation, output.calibration, ())


def labels(
    slabs: Iterable[Slab],
    axis: int,
    placement: Placement,
    description: Description,
    output: Output,
) -> NDArray[np.generic]:
    """The label map on the source's grid; a mask for each channel where these may overlap.

    `slabs`: scores on the network's grid in planes of its `axis`. Raises ModelRefused when the
    network has fewer channels than a label says, ModelError for scores that are no numbers.
    """
    classes, scores = _counted(slabs, description)
    temperature = output.calibration.temperature
    if temperature != 1.0:
        scores = (replace(slab, scores=slab.scores / temperature) for slab in scores)
    decision = rule(description, output, interpolated=placement.resamples, classes=classes)
    found = labelling.label(scores, placement.axes, decision, axis=axis).numpy()
    beyond = classes if decision.least and np.isfinite(decision.least[0]) else 0
    return placement.embedded(found, outside=0 if description.overlapping else beyond)


def masks(
    found: NDArray[np.generic], description: Description, output: Output
) -> Iterator[tuple[Label, Mask]]:
    """Each label and its mask, empty ones too, one after the other; `found`: see `labels`."""
    for label in description.labels:
        mask = found[label.value] if description.overlapping else found == label.value
        yield label, tidied(mask, output)


def rule(description: Description, output: Output, *, interpolated: bool, classes: int) -> Rule:
    """How scores of so many classes are decided."""
    activation = None if output.activation == "none" else output.activation
    by_value = {label.value: label for label in description.labels}
    if description.overlapping:
        each = tuple(
            thresholds.alone(by_value[one]) if one in by_value else thresholds.HALF
            for one in range(classes)
        )
        return Rule(activation=activation, threshold=each, interpolated=interpolated)
    least = tuple(_least(by_value.get(one)) for one in range(classes))
    return Rule(
        activation=activation,
        threshold=None,
        interpolated=interpolated,
        least=least if any(np.isfinite(least)) else (),
    )


def _least(label: Label | None) -> float:
    return -np.inf if label is None or label.threshold is None else label.threshold


def _counted(slabs: Iterable[Slab], description: Description) -> tuple[int, Iterator[Slab]]:
    """How many classes there are, and all the slabs; raises ModelRefused if they are too few."""
    rest = iter(slabs)
    first = next(rest)
    for label in description.labels:
        channel(first.scores, label)
    classes = first.scores.shape[0]
    if classes == 1 and not description.overlapping:
        raise ModelRefused(
            "the network gives one channel: output.overlapping = true, and value = 0 for its label"
        )
    return classes, chain([first], rest)


def of_label_map(values: Tensor, placement: Placement) -> NDArray[np.generic]:
    """The same of a label map, (1, *space) on the network's grid.

    Raises ModelError for values between the labels: no label would be there.
    """
    if values.shape[0] != 1:
        raise ModelRefused(
            f"the network gives {values.shape[0]} channels, not the one of a label map"
        )
    if not torch.equal(values, values.round()):
        raise ModelError("the network's answer is no label map: not all values are whole numbers")
    return placement.back(values[0].float(), "nearest")


def channel(channels: Tensor, label: Label) -> Tensor:
    """The channel of a label; raises ModelRefused when there is none."""
    if label.value >= channels.shape[0]:
        raise ModelRefused(
            f"labels: {label.definition.label} has value {label.value}; the network gives "
            f"{channels.shape[0]} outputs, counted from 0"
        )
    return channels[label.value]


def tidied(mask: Mask, output: Output) -> Mask:
    """Only its largest component, its holes filled, as the options say."""
    if (output.components == "all" and not output.fill_holes) or not mask.any():
        return mask
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    part: Mask = mask[box]
    if output.components == "largest":
        part = largest(part)
    if output.fill_holes:
        part = ndimage.binary_fill_holes(part)
    clean = np.zeros_like(mask)
    clean[box] = part
    return clean


def largest(mask: Mask) -> Mask:
    """Its largest component (neighbours share a side), the first of equal ones."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found: Mask = labels == int(sizes.argmax())
    return found
