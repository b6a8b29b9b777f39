"""An image as the network of a configuration wants it, with what leads back to its own grid.

The order is nnU-Net's: axes, crop to what is not zero, normalise, resample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.errors import InputRefused, ModelRefused
from inference.nnunet import resampling
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Channel, Configuration, Scheme

Floats = NDArray[np.float32]
Box = tuple[slice, ...]
Spacing = tuple[float, ...]

T = TypeVar("T")

OUTSIDE = -1  # in a previous stage's labels: background where every input is zero
LEAST = 1e-8  # that a deviation or range is divided by


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`data`: (channel, z, y, x) at `wanted` mm; the rest leads back. All axes are transposed."""

    data: Floats
    box: Box  # of the whole image that was kept
    whole: tuple[int, ...]  # its size
    cropped: tuple[int, ...]
    spacing: Spacing  # of the image
    wanted: Spacing


def reordered(prepared: Prepared, order: tuple[int, ...]) -> Prepared:
    """The same with its axes in another order: `order[0]` comes first."""

    def each(values: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(values[axis] for axis in order)

    return Prepared(
        data=prepared.data.transpose(0, *(axis + 1 for axis in order)),
        box=each(prepared.box),
        whole=each(prepared.whole),
        cropped=each(prepared.cropped),
        spacing=each(prepared.spacing),
        wanted=each(prepared.wanted),
    )


def prepare(
    images: Sequence[NDArray[Any]],
    spacing: Spacing,
    configuration: Configuration,
    *,
    labels: Labels,
    previous: NDArray[Any] | None = None,
) -> Prepared:
    """The input of a network from images (z, y, x) on one grid of `spacing` mm.

    `previous`: the label map of the stage before, on the same grid. Raises InputRefused for an
    image that is zero everywhere, or is not what its normalisation wants.
    """
    axes = configuration.transpose_forward
    stacked = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    stacked = stacked.transpose(0, *(axis + 1 for axis in axes))
    spacing = tuple(spacing[axis] for axis in axes)
    before = None if previous is None else previous.transpose(axes)
    filled = before is not None or any(channel.masked for channel in configuration.channels)
    inside = _not_zero(stacked, filled=filled)
    box = bounding_box(inside)
    whole = stacked.shape[1:]
    stacked, inside = stacked[(slice(None), *box)], inside[box]
    earlier = None if before is None else _earlier(before[box], inside)
    if earlier is not None:
        inside = earlier >= 0
    for index, channel in enumerate(configuration.channels):
        stacked[index] = normalised(stacked[index], channel, inside)
    wanted = spacing[: 3 - len(configuration.spacing)] + configuration.spacing
    shape = resampling.new_shape(stacked.shape[1:], spacing, wanted)
    grids = {"spacing": spacing, "wanted": wanted}
    data = [resampling.image(one, shape, configuration.images, **grids) for one in stacked]
    if earlier is not None:
        rule = configuration.segmentations
        found = resampling.labels(earlier, shape, rule, **grids)
        data += [(found == value).astype(np.float32) for value in labels.foreground]
    return Prepared(
        data=np.stack(data).astype(np.float32, copy=False),
        box=box,
        whole=whole,
        cropped=stacked.shape[1:],
        spacing=spacing,
        wanted=wanted,
    )


def _not_zero(images: Floats, *, filled: bool) -> NDArray[np.bool_]:
    """Where any channel is not zero; holes do not change the box and are filled only on demand."""
    inside: NDArray[np.bool_] = np.any(images != 0, axis=0)
    return ndimage.binary_fill_holes(inside) if filled else inside


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around a mask; raises InputRefused when the mask is empty."""
    boxes = ndimage.find_objects(mask.astype(np.int8))
    if not boxes:
        raise InputRefused("the image is zero everywhere")
    box: Box = boxes[0]
    return box


def _earlier(previous: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.int16]:
    found = previous.astype(np.int16)
    found[(found == 0) & ~inside] = OUTSIDE
    return found


def normalised(image: Floats, channel: Channel, inside: NDArray[np.bool_]) -> Floats:
    """One channel's values as the network was trained on them."""
    match channel.scheme:
        case Scheme.CT:
            return _by_training(image, channel)
        case Scheme.Z_SCORE:
            return _z_score(image, inside if channel.masked else None)
        case Scheme.RESCALE:
            image = image - image.min()
            return image / np.float32(max(image.max(), LEAST))
        case Scheme.RGB:
            if image.min() < 0 or image.max() > 255:
                raise InputRefused("the values are not those of colours, 0 to 255")
            return image / np.float32(255)
        case Scheme.NONE:
            return image


def _by_training(image: Floats, channel: Channel) -> Floats:
    found = channel.intensities
    if found is None:
        raise ModelRefused("plans.json: no intensities for a channel with CTNormalization")
    image = np.clip(image, np.float32(found.lowest), np.float32(found.highest))
    image -= found.mean
    image /= max(found.deviation, LEAST)
    return image


def _z_score(image: Floats, inside: NDArray[np.bool_] | None) -> Floats:
    values = image if inside is None else image[inside]
    scaled: Floats = (values - values.mean()) / max(values.std(), LEAST)
    if inside is None:
        return scaled
    image = image.copy()
    image[inside] = scaled
    return image
