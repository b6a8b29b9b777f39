"""Scores of a volume slab by slab: those of MONAI's sliding_window_inference, in a slab's memory.

Windows lie, weigh and pad exactly as there (`monai.inferers.sliding_window_inference`). They are
taken in order along one axis, so that the planes before the next row of windows are finished:
those are handed out and their memory is used again.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional

LAST_VOXELS = 1 << 19  # of which a last layer's scores are in memory at a time
Predict = Callable[[Tensor], Tensor]
"""(windows, channels, *size) to scores (windows, classes, *size)."""


class UnevenScores(Exception):  # noqa: N818  (a property of a network, which others can run)
    """The network's output has not the size of its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How a volume is cut. One value for each spatial axis; `size` <= 0: the volume's own.

    `overlap`: fraction shared by neighbours; `gaussian`: weights fall towards a window's edges,
    with a sigma of `sigma_scale` times its size; `padding`: of a volume smaller than a window, a
    mode of torch.nn.functional.pad; `batch`: windows that go through the network at once.
    """

    size: tuple[int, ...]
    overlap: tuple[float, ...]
    gaussian: bool = False
    sigma_scale: tuple[float, ...] = (0.125, 0.125, 0.125)
    padding: str = "constant"
    padding_value: float = 0.0
    batch: int = 1

    def fitted(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The size of a window in a volume of `shape`."""
        pairs = zip(self.size, shape, strict=True)
        return tuple(size if size > 0 else extent for size, extent in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Windows in a volume. `starts`: where they begin along each axis, in rising order; `weights`:
    of a window's voxels; its shape is the window's, its type that in which scores are summed.
    """

    starts: tuple[Sequence[int], ...]
    weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Finished planes of an axis. `scores`: (classes, *spatial), valid until the next slab."""

    start: int  # index of its first plane
    scores: Tensor


def slabs(
    image: Tensor,
    predict: Predict,
    windows: Windows,
    *,
    axis: int,
    divided: bool = True,
    last: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Slab]:
    """Scores of `image` (channels, *spatial) in planes of spatial `axis`, in rising order.

    `divided`: by the sum of the weights, as MONAI does; a largest score needs it not. Scores are
    float32 on the image's device. `last`: a layer of single voxels that is left for the averages.
    Raises UnevenScores when the network changes the size.
    """
    shape = tuple(image.shape[1:])
    size = windows.fitted(shape)
    margins = _margins(shape, size)
    padded = _pad(image, margins, windows)
    starts = tuple(
        _starts(extent, window, overlap)
        for extent, window, overlap in zip(padded.shape[1:], size, windows.overlap, strict=True)
    )
    tiling = Tiling(starts=starts, weights=_weights(size, windows, image.device))
    divided = divided or last is not None
    for slab in tiled(padded, predict, tiling, axis=axis, batch=windows.batch, divided=divided):
        found = Slab(start=slab.start, scores=_unpadded(slab.scores, shape, margins))
        yield from [found] if last is None else _completed(found, last, axis)


def tiled(
    image: Tensor,
    predict: Predict,
    tiling: Tiling,
    *,
    axis: int,
    batch: int = 1,
    divided: bool = True,
) -> Iterator[Slab]:
    """As `slabs`, of an image that is nowhere smaller than a window, with windows of any rule.

    Windows are summed in the order of `itertools.product(*starts)` when `axis` is the first.
    """
    starts, size = tiling.starts, tuple(tiling.weights.shape)
    sums = _Sums(image.shape[1:], axis, size, tiling.weights)
    for first, following in itertools.pairwise([*starts[axis], image.shape[axis + 1]]):
        row = [*starts[:axis], [first], *starts[axis + 1 :]]
        for corners in _batches(itertools.product(*row), batch):
            seen = torch.stack([image[_place(corner, size)] for corner in corners])
            sums.add(corners, _checked(predict(seen), seen))
        if following > first:  # (windows of small steps may begin at one place)
            yield Slab(start=first, scores=sums.finished(following, divided=divided))
            sums.advance(following)


def _completed(slab: Slab, last: Callable[[Tensor], Tensor], axis: int) -> Iterator[Slab]:
    """The scores that a last layer makes of features, some planes at a time."""
    planes = slab.scores.shape[axis + 1]
    step = max(1, LAST_VOXELS * planes // slab.scores[0].numel())
    for start in range(0, planes, step):
        part = slab.scores.narrow(axis + 1, start, min(step, planes - start))
        yield Slab(start=slab.start + start, scores=last(part))


def longest_axis(shape: Sequence[int], size: Sequence[int]) -> int:
    """The axis whose slabs are the smallest; the last of equals, which is feet to head in RAS."""
    volume = math.prod(shape)
    thin = [
        volume // extent * min(window, extent) for extent, window in zip(shape, size, strict=True)
    ]
    return max(axis for axis, voxels in enumerate(thin) if voxels <= 1.25 * min(thin))


class _Sums:
    """Weighted sums of the scores in the planes from `origin` on, one window thick."""

    def __init__(
        self, shape: Sequence[int], axis: int, size: tuple[int, ...], weights: Tensor
    ) -> None:
        self._axis, self._size, self._weights = axis, size, weights
        self._extent = [*shape[:axis], size[axis], *shape[axis + 1 :]]
        self._origin = 0
        self._weight = weights.new_zeros(self._extent)
        self._scores: Tensor | None = None

    def add(self, corners: Sequence[tuple[int, ...]], scores: Tensor) -> None:
        if self._scores is None:
            self._scores = _zeros(self._weight, self._extent, scores)
        for corner, of_window in zip(corners, scores, strict=True):
            local = [*corner]
            local[self._axis] -= self._origin
            place = _place(local, self._size)
            if self._scores.dtype == torch.float32:
                self._scores[place].addcmul_(of_window, self._weights)
            else:
                _add_rounded(self._scores[place], of_window, self._weights.float())
            self._weight[place[1:]] += self._weights

    def finished(self, until: int, *, divided: bool) -> Tensor:
        """The planes before `until`, in place."""
        planes = until - self._origin
        done = self._filled().narrow(self._axis + 1, 0, planes)
        if divided:
            done /= self._weight.narrow(self._axis, 0, planes)
        return done

    def advance(self, until: int) -> None:
        """Forget the planes before `until`."""
        planes = until - self._origin
        self._origin = until
        for buffer, dimension in ((self._filled(), self._axis + 1), (self._weight, self._axis)):
            _move_up(buffer, dimension, planes)

    def _filled(self) -> Tensor:
        if self._scores is None:
            raise RuntimeError("no window was added")
        return self._scores


def _zeros(weight: Tensor, extent: Sequence[int], scores: Tensor) -> Tensor:
    """(classes, *extent) as `weight`, which lie in memory as those of `scores`."""
    classes = scores.shape[1]
    if classes > 1 and scores.stride(1) == 1:
        return weight.new_zeros((*extent, classes)).movedim(-1, 0)
    return weight.new_zeros((classes, *extent))


def _add_rounded(sums: Tensor, scores: Tensor, weights: Tensor) -> None:
    """Weighted and added in float32, rounded once; class by class, which stays in the cache."""
    for total, of_class in zip(sums, scores, strict=True):
        total.copy_((of_class.float() * weights).add_(total.float()))


def _move_up(buffer: Tensor, dimension: int, planes: int) -> None:
    """Drop the first planes, move the others there, zeros at the end; needs no second buffer."""
    extent = buffer.shape[dimension]
    for start in range(planes, extent, planes):
        length = min(planes, extent - start)
        moved = buffer.narrow(dimension, start, length)
        buffer.narrow(dimension, start - planes, length).copy_(moved)
    buffer.narrow(dimension, extent - planes, planes).zero_()


def _margins(shape: Sequence[int], size: Sequence[int]) -> list[tuple[int, int]]:
    """What is missing to a window, half before and half after each axis."""
    missing = [max(window - extent, 0) for extent, window in zip(shape, size, strict=True)]
    return [(lack // 2, lack - lack // 2) for lack in missing]


def _pad(image: Tensor, margins: Sequence[tuple[int, int]], windows: Windows) -> Tensor:
    if not any(itertools.chain(*margins)):
        return image
    flat = list(itertools.chain(*reversed(margins)))
    value = windows.padding_value if windows.padding == "constant" else None
    return functional.pad(image[None], flat, mode=windows.padding, value=value)[0]


def _unpadded(scores: Tensor, shape: Sequence[int], margins: Sequence[tuple[int, int]]) -> Tensor:
    for dimension, (extent, (before, after)) in enumerate(zip(shape, margins, strict=True), 1):
        if before or after:
            scores = scores.narrow(dimension, before, extent)
    return scores


def _starts(extent: int, window: int, overlap: float) -> list[int]:
    """Where windows begin; the last is moved back to end with the volume."""
    interval = window if window == extent else max(int(window * (1 - overlap)), 1)
    count = max(math.ceil((extent - window) / interval), 0) + 1
    return [min(index * interval, extent - window) for index in range(count)]


def _weights(size: tuple[int, ...], windows: Windows, device: torch.device) -> Tensor:
    mode = "gaussian" if windows.gaussian else "constant"
    scale = windows.sigma_scale
    return compute_importance_map(size, mode=mode, sigma_scale=scale, device=device)


def _place(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    window = (slice(start, start + extent) for start, extent in zip(corner, size, strict=True))
    return (slice(None), *window)


def _batches(
    corners: Iterator[tuple[int, ...]], batch: int
) -> Iterator[tuple[tuple[int, ...], ...]]:
    while group := tuple(itertools.islice(corners, batch)):
        yield group


def _checked(scores: Tensor, batch: Tensor) -> Tensor:
    if scores.shape[2:] != batch.shape[2:]:
        raise UnevenScores(f"{tuple(batch.shape[2:])} gives {tuple(scores.shape[2:])}")
    return scores
