"""Balls, components and boxes on an anisotropic grid; distances in millimetres."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Spacing

Mask = NDArray[np.bool_]


def within(mask: Mask, distance_mm: float, spacing: Spacing) -> Mask:
    """Everything at most `distance_mm` from the mask (dilation by a ball)."""
    if not mask.any():
        return mask.copy()
    near: Mask = ndimage.distance_transform_edt(~mask, sampling=spacing) <= distance_mm
    return near


def deeper(mask: Mask, distance_mm: float, spacing: Spacing) -> Mask:
    """The part of the mask more than `distance_mm` from its outside (erosion by a ball)."""
    if mask.all():
        return mask.copy()
    deep: Mask = ndimage.distance_transform_edt(mask, sampling=spacing) > distance_mm
    return deep


def largest(mask: Mask) -> Mask:
    """The largest 6-connected component; empty stays empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    component: Mask = labels == int(sizes.argmax())
    return component


def bounding_box(mask: Mask, margin: tuple[int, int, int]) -> tuple[slice, ...]:
    """The smallest box around the mask, widened by `margin` cells, inside the grid."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, part.start - extra), min(size, part.stop + extra))
        for part, extra, size in zip(found, margin, mask.shape, strict=True)
    )
