"""Arrays on another grid, as nnU-Net puts them there; a channel at a time.

Splines within planes and, where slices are thick, nearest neighbours across them. All arrays have
axes (z, y, x), spacings are mm along the same; sizes change about the array's outer faces
(`align_corners=False`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

from inference.nnunet.plans import Resampling

Floats = NDArray[np.floating[Any]]
Shape = tuple[int, ...]
Spacing = Sequence[float]

ANISOTROPIC = 3.0  # largest by smallest spacing, above which slices are thick


def new_shape(shape: Sequence[int], spacing: Spacing, wanted: Spacing) -> Shape:
    """The size of an array that covers the same with another spacing."""
    return tuple(
        round(old / new * count) for old, new, count in zip(spacing, wanted, shape, strict=True)
    )


def separate_axis(rule: Resampling, spacing: Spacing, wanted: Spacing) -> int | None:
    """The axis that goes by itself: that of the thick slices, if there is exactly one."""
    if rule.separate is None:
        thick = next((one for one in (spacing, wanted) if _anisotropic(one)), None)
    else:
        thick = spacing if rule.separate else None
    if thick is None:
        return None
    axes = [axis for axis, step in enumerate(thick) if max(thick) / step == 1]
    return axes[0] if len(axes) == 1 else None


def _anisotropic(spacing: Spacing) -> bool:
    return max(spacing) / min(spacing) > ANISOTROPIC


def image(
    array: Floats, shape: Shape, rule: Resampling, *, spacing: Spacing, wanted: Spacing
) -> Floats:
    """One channel with another size; splines are computed in float64 and keep the type."""
    if array.shape == shape or rule.method == "none":
        return array
    axis = separate_axis(rule, spacing, wanted)
    if rule.method == "linear":
        return _linear(array, shape, axis)
    exact = array.astype(np.float64)
    if axis is None:
        return _resized(exact, shape, rule.order).astype(array.dtype)
    return _separately(exact, shape, axis, rule).astype(array.dtype)


def _resized(array: Floats, shape: Shape, order: int) -> Floats:
    untyped: Any = resize
    return np.asarray(untyped(array, shape, order, mode="edge", anti_aliasing=False))


def _separately(array: Floats, shape: Shape, axis: int, rule: Resampling) -> Floats:
    """Plane by plane, then across the planes."""
    planes = np.moveaxis(array, axis, 0)
    in_plane = tuple(size for place, size in enumerate(shape) if place != axis)
    resized = np.stack([_resized(plane, in_plane, rule.order) for plane in planes])
    return np.moveaxis(_across(resized, shape[axis], rule.order_separate), 0, axis)


def _across(planes: Floats, count: int, order: int) -> Floats:
    """Another number of planes along the first axis."""
    before = len(planes)
    if before == count:
        return planes
    if order == 0:
        return np.asarray(planes[_nearest(before, count)])
    found = np.empty((count, *planes.shape[1:]), planes.dtype)
    rows, columns = np.mgrid[: planes.shape[1], : planes.shape[2]].astype(np.float64)
    filtered: Any = planes if order < 2 else ndimage.spline_filter(planes, order, mode="nearest")
    for index, place in enumerate(_places(before, count)):
        at = np.stack([np.full_like(rows, place), rows, columns])
        found[index] = ndimage.map_coordinates(
            filtered, at, order=order, mode="nearest", prefilter=False
        )
    return found


def _places(before: int, count: int) -> NDArray[np.float64]:
    """Where each of `count` voxels along an axis lies among the `before` that were."""
    return np.asarray(float(before) / count * (np.arange(count) + 0.5) - 0.5, np.float64)


def _nearest(before: int, count: int) -> NDArray[np.intp]:
    """The nearest of the `before` voxels to each of `count`; halves as ndimage has them."""
    found = ndimage.map_coordinates(
        np.arange(before, dtype=np.float64), _places(before, count)[None], order=0, mode="nearest"
    )
    return np.asarray(found, np.intp)


def _linear(array: Floats, shape: Shape, axis: int | None) -> Floats:
    """The variant of plans whose resampling runs in torch."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None, None].float()
    if axis is None:
        found = functional.interpolate(tensor, shape, mode="trilinear")
    else:
        planes = tensor[0].movedim(axis + 1, 1).contiguous()
        in_plane = [size for place, size in enumerate(shape) if place != axis]
        resized = functional.interpolate(planes, in_plane, mode="bilinear")[0]
        whole = resized.movedim(0, axis)[None, None]
        found = functional.interpolate(whole, shape, mode="nearest-exact")
    resampled: Floats = found[0, 0].numpy()
    return resampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Each voxel of a new axis: (1 - part) of the old voxel `low` and `part` of `high`."""

    low: Tensor
    high: Tensor
    part: Tensor

    @property
    def whole(self) -> bool:
        """Every voxel is one of the old ones."""
        return not bool(self.part.any())

    def along(self, values: Tensor, axis: int) -> Tensor:
        """Values with the new voxels along an axis."""
        start = values.index_select(axis, self.low).float()
        if self.whole:
            return start
        weights = self.part.view([-1 if place == axis else 1 for place in range(values.ndim)])
        return start.lerp_(values.index_select(axis, self.high).float(), weights)

    def matrix(self, before: int) -> Tensor:
        """The same as (old, new) weights: gathering single values is slower than multiplying."""
        weights = torch.zeros(before, len(self.low), device=self.part.device)
        each = torch.arange(len(self.low), device=self.part.device)
        weights[self.high, each] = self.part
        weights[self.low, each] += 1 - self.part
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Classes (z, y, x) with another size by splines of order 1, some planes at a time.

    As `image` has it, but in float32: five times as fast, and one in some thousand values differs
    by the last bit of its half precision.
    """

    planes: Line
    rows: Line
    columns: Tensor | None  # None: as they are

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """The first and the last old plane that planes [start, stop) of the new grid are made of.

        Both rise with `start` and `stop`.
        """
        return int(self.planes.low[start]), int(self.planes.high[stop - 1])

    def part(self, channel: Tensor, start: int, stop: int, *, first: int = 0) -> Tensor:
        """Planes [start, stop) of the new grid, of a class in half precision.

        `channel`: the old planes from `first` on.
        """
        lines = self.planes
        here = slice(start, stop)
        some = Line(
            low=lines.low[here] - first, high=lines.high[here] - first, part=lines.part[here]
        )
        values = some.along(channel, 0)
        if self.columns is not None:
            values = values @ self.columns
        return self.rows.along(values, 1).half()


def linear(
    old: Shape,
    new: Shape,
    rule: Resampling,
    *,
    spacing: Spacing,
    wanted: Spacing,
    device: torch.device,
) -> Linear | None:
    """How classes of size `old` become those of size `new`; None for other rules than order 1."""
    if rule.method == "none" or (rule.method == "linear" and old != new):
        return None
    axis = separate_axis(rule, spacing, wanted)
    if old != new and (rule.order != 1 or (axis is not None and rule.order_separate)):
        return None
    planes, rows, columns = (
        _line(before, count, device, nearest=place == axis)
        for place, (before, count) in enumerate(zip(old, new, strict=True))
    )
    same = old[-1] == new[-1]
    return Linear(planes=planes, rows=rows, columns=None if same else columns.matrix(old[-1]))


def _line(before: int, count: int, device: torch.device, *, nearest: bool) -> Line:
    if nearest:
        at = torch.from_numpy(_nearest(before, count)).double()
    else:
        at = torch.from_numpy(_places(before, count)).clamp_(0, before - 1)
    low = at.floor().long()
    return Line(
        low=low.to(device),
        high=(low + 1).clamp_(max=before - 1).to(device),
        part=(at - low).float().to(device),
    )


def labels(
    array: NDArray[np.int16], shape: Shape, rule: Resampling, *, spacing: Spacing, wanted: Spacing
) -> NDArray[np.int16]:
    """A label map with another size: where labels compete, the one with the largest share.

    Between equal shares the nearest voxel's label decides, if it is one of them.
    """
    if array.shape == shape or rule.method == "none":
        return array
    axis = separate_axis(rule, spacing, wanted)
    if axis is None:
        return _competed(array, shape, rule.order)
    planes = np.moveaxis(array, axis, 0)
    in_plane = tuple(size for place, size in enumerate(shape) if place != axis)
    resized = np.stack([_competed(plane, in_plane, rule.order) for plane in planes])
    found = _across(resized.astype(np.float64), shape[axis], 0).astype(np.int16)
    return np.moveaxis(found, 0, axis)


def _competed(array: NDArray[np.int16], shape: Shape, order: int) -> NDArray[np.int16]:
    if array.shape == shape:
        return array
    nearest = _resized(array.astype(np.float64), shape, 0).astype(np.int16)
    if order == 0:
        return nearest
    best: Floats | None = None
    winner = np.zeros(shape, np.int16)
    by_nearest = np.zeros(shape, np.bool_)
    for label in np.unique(array):
        share = _resized((array == label).astype(np.float64), shape, order)
        leads = share > (0 if best is None else best)
        level = np.zeros(shape, np.bool_) if best is None else (share == best) & (share > 0)
        winner[leads] = label
        by_nearest = np.where(leads, nearest == label, by_nearest | (level & (nearest == label)))
        best = share if best is None else np.maximum(best, share)
    return np.where(by_nearest, nearest, winner)
