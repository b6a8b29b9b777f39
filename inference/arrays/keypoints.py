"""From heat maps, a channel for each label, to points between the voxels, a slab at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.arrays.options import Output
from inference.arrays.segmentation import activated, channel
from inference.description import Label
from inference.engine.labelling import finite
from inference.engine.sliding_window import Slab
from inference.peaks import Top, between

KEPT = 2  # planes of a slab that the next one's maxima are compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class _Highest:
    """The maximum so far. `index`: in the grid; `lowest`: value of all so far."""

    index: tuple[int, ...]
    place: tuple[float, ...]
    height: float
    lowest: float


def tops(
    slabs: Iterable[Slab], axis: int, planes: int, labels: Sequence[Label], output: Output
) -> list[Top]:
    """The top of each label's heat map in the network's grid, which has so many `planes`.

    Of equal maxima the first in the order of the grid's array. A maximum is looked for where the
    planes on both sides of it are known. Raises ModelError for values that are no numbers,
    ModelRefused for a label of no channel.
    """
    highest: dict[int, _Highest] = {}
    block: Tensor | None = None
    origin = searched = 0
    for slab in slabs:
        heat = activated(finite(slab).scores, output)
        block = heat if block is None else torch.cat([block, heat], dim=axis + 1)
        after = slab.start + slab.scores.shape[axis + 1]
        ready = after if after == planes else after - 1
        if ready > searched:
            for label in labels:
                values = channel(block, label)
                found = _highest(values, axis, (searched - origin, ready - origin), origin)
                highest[label.value] = _higher(highest.get(label.value), found)
            searched = ready
        kept = min(KEPT, after - origin)
        block = block.narrow(axis + 1, after - origin - kept, kept).clone()
        origin = after - kept
    return [
        Top(place=one.place, height=one.height, lowest=one.lowest)
        for one in (highest[label.value] for label in labels)
    ]


def _highest(values: Tensor, axis: int, limits: tuple[int, int], origin: int) -> _Highest:
    """Of planes `limits` of a block that begins at plane `origin` of the grid."""
    first, last = limits
    part = values.narrow(axis, first, last - first)
    index = [int(at) for at in np.unravel_index(int(part.argmax()), part.shape)]
    index[axis] += first
    offsets = [_between(values, index, dimension) for dimension in range(values.ndim)]
    height, lowest = float(values[tuple(index)]), float(part.min())
    index[axis] += origin
    place = tuple(at + offset for at, offset in zip(index, offsets, strict=True))
    return _Highest(index=tuple(index), place=place, height=height, lowest=lowest)


def _between(values: Tensor, index: Sequence[int], dimension: int) -> float:
    at = index[dimension]
    if at == 0:
        return 0.0
    line = values[tuple(slice(None) if one == dimension else i for one, i in enumerate(index))]
    return between(line[at - 1 : at + 2].double().cpu().numpy())


def _higher(one: _Highest | None, other: _Highest) -> _Highest:
    if one is None:
        return other
    beaten = (other.height, one.index) > (one.height, other.index)
    best = other if beaten else one
    return _Highest(
        index=best.index,
        place=best.place,
        height=best.height,
        lowest=min(one.lowest, other.lowest),
    )
