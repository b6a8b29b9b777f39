"""Where a coarse network says to look: the box of its largest component, in the source's voxels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inference.arrays.options import Locate
from inference.arrays.placement import Placement
from inference.arrays.segmentation import largest
from inference.errors import ModelRefused


def located(found: Tensor, whole: Placement, locate: Locate) -> Placement | None:
    """The place, in an image of placement `whole`; None: there is nothing to look at.

    `found`: (channel, *space) of the coarse network. Raises ModelRefused for a channel it lacks.
    """
    if locate.channel >= found.shape[0]:
        raise ModelRefused(f"options.locate.channel: the network gives {found.shape[0]} channels")
    mask = largest(found[locate.channel].numpy() > locate.threshold)
    if not mask.any():
        return None
    return whole.within(box(mask, whole.shape, margin=locate.margin, filled=locate.filled))


def box(
    mask: NDArray[np.bool_], shape: Sequence[int], *, margin: float, filled: float
) -> tuple[tuple[int, int], ...]:
    """The box of a coarse mask in voxels of `shape`, grown by `margin` of its size on each side.

    It spans the planes of which more than the fraction `filled` is mask, else all that has any.
    """
    found = []
    for axis, count in enumerate(shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        fractions = mask.mean(axis=others)
        planes = np.flatnonzero(fractions > min(filled, float(fractions.max()) / 2))
        first, last = float(planes[0]), float(planes[-1] + 1)
        step, grown = count / mask.shape[axis], (last - first) * margin
        start, stop = round((first - grown) * step), round((last + grown) * step)
        found.append((max(0, start), min(count, max(stop, start + 1))))
    return tuple(found)
