"""Logits of an image slab by slab, from windows that overlap, weighted towards their middle.

Windows lie where nnU-Net puts them, and sums are kept in half precision and in its order, so that
the labels are the same voxel by voxel. As there, logits in the very corners of the image are
coarse, where weights are as small as half precision can hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from inference.engine.sliding_window import Predict, Slab, Tiling, tiled
from inference.errors import ModelError

SIGMA = 1 / 8  # of the patch
LARGEST_WEIGHT = 10.0  # keeps the smallest above what half precision can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How an image is walked over. `mirrored`: axes (0: the first of the patch) to average over.

    A patch of two sizes: each slice by itself.
    """

    patch: tuple[int, ...]
    step: float = 0.5  # of the patch
    mirrored: tuple[int, ...] = ()


def weights(patch: Sequence[int]) -> Tensor:
    """A Gaussian about the patch's middle, half precision, nowhere zero."""
    point = np.zeros(patch)
    point[tuple(size // 2 for size in patch)] = 1
    blurred = ndimage.gaussian_filter(point, [size * SIGMA for size in patch], mode="constant")
    blurred /= blurred.max() / LARGEST_WEIGHT
    found = torch.from_numpy(blurred).half()
    found[found == 0] = found[found != 0].min()
    return found


def starts(size: int, patch: int, step: float) -> list[int]:
    """Where windows begin along an axis: evenly, at most `step` patches apart, the ends touched."""
    count = ceil((size - patch) / (patch * step)) + 1
    if count < 2:
        return [0]
    return [int(np.round((size - patch) / (count - 1) * index)) for index in range(count)]


def tiling(shape: Sequence[int], windows: Windows, device: torch.device) -> Tiling:
    """The windows of an image (z, y, x) that is nowhere smaller than the patch."""
    patch = windows.patch
    size = _sized(patch, (1,))
    along = [
        starts(extent, length, windows.step) for extent, length in zip(shape, size, strict=True)
    ]
    if len(patch) < len(size):
        along[0] = list(range(shape[0]))
    return Tiling(starts=tuple(along), weights=weights(patch).view(size).to(device))


def _sized(patch: Sequence[int], slices: Sequence[int]) -> tuple[int, ...]:
    """The patch's size along all three axes; `slices`: along that which it may lack."""
    return (*slices[: 3 - len(patch)], *patch)


def slabs(image: Tensor, predict: Predict, windows: Windows, *, batch: int = 1) -> Iterator[Slab]:
    """Logits (class, z, y, x), half precision, of an image (channel, z, y, x), where that is.

    Planes of the first axis in rising order, valid until the next are asked for. `predict`: of
    (window, channel, z, y, x), or of (window, channel, y, x) when the patch has two sizes. Raises
    ModelError when a logit is not finite.
    """
    padded, inner = _padded(image, windows.patch)
    flat = len(windows.patch) < len(inner)

    def seen(batched: Tensor) -> Tensor:
        return predict(batched.squeeze(2)).unsqueeze(2) if flat else predict(batched)

    rule = tiling(padded.shape[1:], windows, image.device)
    for slab in tiled(padded, seen, rule, axis=0, batch=batch):
        logits = slab.scores[(slice(None), *inner)]  # (whoever lacks planes has one slab)
        if not all(map(torch.isfinite, torch.aminmax(logits))):
            raise ModelError("the network's answer is not finite")
        yield Slab(start=slab.start, scores=logits)


def averaged(
    runs: Sequence[Iterator[Slab]], shape: Sequence[int], windows: Windows
) -> Iterator[Slab]:
    """The mean of several networks' slabs of one image (z, y, x), in half precision.

    Side by side, a slab of each in memory, or, where that is less, one after the other into the
    whole image.
    """
    if len(runs) == 1:
        yield from runs[0]
        return
    thick = min(shape[0], _sized(windows.patch, (1,))[0])
    if len(runs) * thick > shape[0] + thick:
        yield Slab(start=0, scores=summed(runs, shape).div_(len(runs)))
        return
    for first, *others in zip(*runs, strict=True):
        for other in others:
            first.scores.add_(other.scores)
        yield Slab(start=first.start, scores=first.scores.div_(len(runs)))


def summed(runs: Iterable[Iterator[Slab]], shape: Sequence[int]) -> Tensor:
    """The whole image's logits, those of several networks added."""
    whole: Tensor | None = None
    for run in runs:
        for slab in run:
            if whole is None:
                whole = slab.scores.new_zeros((slab.scores.shape[0], *shape))
            whole.narrow(1, slab.start, slab.scores.shape[1]).add_(slab.scores)
    if whole is None:
        raise ValueError("no slab was given")
    return whole


def _padded(image: Tensor, patch: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Zeros around an image smaller than the patch, and where in it the image lies."""
    sizes = image.shape[1:]
    wanted = _sized(patch, sizes)
    missing = [max(0, new - old) for old, new in zip(sizes, wanted, strict=True)]
    before = [count // 2 for count in missing]
    inner = tuple(slice(start, start + old) for start, old in zip(before, sizes, strict=True))
    if not any(missing):
        return image, inner
    pads = [(start, count - start) for start, count in zip(before, missing, strict=True)]
    flat = [size for pair in reversed(pads) for size in pair]
    return functional.pad(image, flat), inner
