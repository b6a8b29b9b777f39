"""Arrays on another grid, as nnU-Net puts them there; a channel at a time.

Splines within planes and, where slices are thick, nearest neighbours across them. All arrays have
axes (z, y, x), spacings are mm along the same; sizes change about the array's outer faces
(`align_corners=False`).
"""

from collections.abc import Sequence
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
        planes = tensor[0, 0].movedim(axis, 0)[:, None]
        in_plane = [size for place, size in enumerate(shape) if place != axis]
        resized = functional.interpolate(planes, in_plane, mode="bilinear")[:, 0]
        whole = resized.movedim(0, axis)[None, None]
        found = functional.interpolate(whole, shape, mode="nearest-exact")
    resampled: Floats = found[0, 0].numpy()
    return resampled


def logits(
    channel: Tensor, shape: Shape, rule: Resampling, *, spacing: Spacing, wanted: Spacing
) -> Tensor:
    """One class (z, y, x) in half precision with another size, still half precision.

    As `image`, but splines of order 1 are a pass an axis in float32, with exact weights: faster,
    and one in some thousand values differs by its last bit.
    """
    if tuple(channel.shape) == shape or rule.method == "none":
        return channel
    axis = separate_axis(rule, spacing, wanted)
    if rule.method != "spline" or rule.order != 1 or (axis is not None and rule.order_separate):
        found = image(channel.cpu().numpy(), shape, rule, spacing=spacing, wanted=wanted)
        return torch.from_numpy(np.ascontiguousarray(found)).to(channel.device)
    values = channel.float()
    for place in reversed(range(len(shape))):  # the last is the slowest, and yet small
        if shape[place] != channel.shape[place] and place != axis:
            values = _interpolated(values, shape[place], place)
    if axis is not None and shape[axis] != channel.shape[axis]:
        chosen = torch.from_numpy(_nearest(channel.shape[axis], shape[axis]))
        values = values.index_select(axis, chosen.to(values.device))
    return values.half()


def _interpolated(values: Tensor, count: int, axis: int) -> Tensor:
    before = values.shape[axis]
    at = torch.from_numpy(_places(before, count)).clamp_(0, before - 1)
    low = at.floor().long()
    high = (low + 1).clamp_(max=before - 1)
    part = (at - low).float()
    if axis == values.ndim - 1:  # gathering single values is slower than multiplying with zeros
        weights = torch.zeros(before, count)
        each = torch.arange(count)
        weights[high, each] = part
        weights[low, each] += 1 - part
        return values @ weights.to(values.device)
    weights = part.view([-1 if place == axis else 1 for place in range(values.ndim)])
    start = values.index_select(axis, low.to(values.device))
    end = values.index_select(axis, high.to(values.device))
    return start.lerp_(end, weights.to(values.device))


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
