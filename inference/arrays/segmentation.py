"""From a network's channels or label map to masks on the exact grid of the source.

Channels are resampled one at a time and compared as they come: memory is a few copies of the
source, whatever the number of channels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from inference import thresholds
from inference.arrays.options import Output
from inference.arrays.placement import Placement
from inference.calibration import probabilities
from inference.description import Description, Label
from inference.errors import ModelRefused

Mask = NDArray[np.bool_]


def activated(channels: Tensor, output: Output) -> Tensor:
    """Probabilities of (channel, ...), or the values themselves without an activation.

    Divided by the calibration's temperature; Platt's lines are of classifications (`answers`).
    """
    return probabilities(channels, output.activation, output.calibration, ())


def masks(
    channels: Tensor, placement: Placement, description: Description, output: Output
) -> Iterator[tuple[Label, Mask]]:
    """Each label and its mask on the source's grid, empty ones too.

    `channels`: (channel, *space) on the network's grid. Raises ModelRefused when the network has
    fewer channels than a label says.
    """
    if output.form == "label_map":
        found = _label_map(channels, placement, description)
    elif description.overlapping:
        found = _overlapping(activated(channels, output), placement, description)
    else:
        found = _largest(activated(channels, output), placement, description)
    for label, mask in found:
        yield label, tidied(mask, output)


def _label_map(
    channels: Tensor, placement: Placement, description: Description
) -> Iterator[tuple[Label, Mask]]:
    if channels.shape[0] != 1:
        raise ModelRefused(
            f"the network gives {channels.shape[0]} channels, not the one of a label map"
        )
    values = placement.back(channels[0].float(), "nearest")
    for label in description.labels:
        yield label, values == label.value


def _overlapping(
    channels: Tensor, placement: Placement, description: Description
) -> Iterator[tuple[Label, Mask]]:
    for label in description.labels:
        values = placement.back(channel(channels, label), "linear")
        yield label, values >= thresholds.alone(label)


def _largest(
    channels: Tensor, placement: Placement, description: Description
) -> Iterator[tuple[Label, Mask]]:
    if channels.shape[0] == 1:
        raise ModelRefused(
            "the network gives one channel: output.overlapping = true, and value = 0 for its label"
        )
    for label in description.labels:
        channel(channels, label)
    best = placement.back(channels[0], "linear")
    winner = np.zeros(best.shape, np.uint16)
    for index in range(1, channels.shape[0]):
        values = placement.back(channels[index], "linear")
        np.copyto(winner, np.uint16(index), where=values > best)
        np.maximum(best, values, out=best)
    for label in description.labels:
        mask = winner == label.value
        yield label, mask if label.threshold is None else mask & (best >= label.threshold)


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
