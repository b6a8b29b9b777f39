"""The grid and values of MONAI's Orientation and Spacing, along the axes of the voxels themselves.

Between two grids whose axes are parallel, linear interpolation is one pass per axis with two
weights: no grid of coordinates, no float64 volume. Grids that are not parallel are `Oblique`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.utils import AFFINE_TOL, affine_to_spacing, compute_shape_offset, zoom_affine
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PARALLEL = 1e-6  # off-diagonal part of the map between two grids, in voxels per voxel
SAME = 1e-9  # steps this close to 1 are no resampling
BLOCK_VOXELS = 1 << 19  # of the source that are float32 at a time: what stays in a cache


class Oblique(Exception):  # noqa: N818  (a property of the grid, which others can resample)
    """The two grids are not parallel, or the volume's own axes are not at right angles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the network's grid. Its index j lies at `step` * j of the source's `count`.

    `source`: which axis of the source; `flipped`: it runs against it, hence from its end. `edges`:
    both have the same outer edges, as of torch's interpolate, and not the same first centre.
    """

    source: int
    flipped: bool
    count: int
    length: int  # of the network's grid
    step: float
    edges: bool = False

    def to_source(self, device: torch.device) -> "Weights":
        """What the network's grid takes from the source, at indices of the source."""
        found = _weights(self.length, self.step, self.count, device, edges=self.edges)
        if not self.flipped:
            return found
        last = self.count - 1
        return Weights(low=last - found.low, high=last - found.high, part=found.part)

    def from_network(self, device: torch.device) -> "Weights":
        """What the source's grid, unflipped, takes from the network's."""
        return _weights(self.count, 1.0 / self.step, self.length, device, edges=self.edges)

    def nearest(self, device: torch.device) -> Tensor:
        """The network's index nearest to each of the source, unflipped.

        Of two that are equally near, the one that grid_sample's float64 coordinates fall to; in
        a tilted volume MONAI's own may be the other.
        """
        if abs(self.step - 1.0) < SAME:
            return torch.arange(self.count, device=device).clamp_(max=self.length - 1)
        at = _sampled(self.count, self.length, 1.0 / self.step)
        return at.clamp_(0, self.length - 1).round_().to(device=device, dtype=torch.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Linear interpolation along an axis: (1 - part) of index `low` and `part` of index `high`."""

    low: Tensor
    high: Tensor
    part: Tensor

    @property
    def copies(self) -> bool:
        """Every point lies on another one's place."""
        return not bool(self.part.any())

    def apply(self, values: Tensor, dimension: int) -> Tensor:
        """Interpolate along one dimension."""
        low = values.index_select(dimension, self.low)
        if self.copies:
            return low
        shape = [1] * values.ndim
        shape[dimension] = -1
        return low.lerp_(values.index_select(dimension, self.high), self.part.view(shape))

    def section(self, start: int, stop: int, offset: int = 0) -> "Weights":
        """Of points [start, stop), for values that begin at index `offset`."""
        here = slice(start, stop)
        return Weights(
            low=self.low[here] - offset, high=self.high[here] - offset, part=self.part[here]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Which axes of a source grid (slice, row, column) those of a network's are."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the network's grid."""
        return tuple(axis.length for axis in self.axes)

    @property
    def source_shape(self) -> tuple[int, ...]:
        """(slices, rows, columns)."""
        return tuple(axis.count for axis in sorted(self.axes, key=lambda axis: axis.source))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping(Axes):
    """From a source grid (slice, row, column) to a network's: its axes towards right, front, head.

    `affine`: of the network's grid, RAS mm.
    """

    affine: Floats

    def apply(self, values: NDArray[np.generic], device: torch.device) -> Tensor:
        """The volume (slice, row, column) on the network's grid, float32.

        In-plane first, some slices at a time, so that little of the source is float32 at once.
        """
        across, *within = sorted(self.axes, key=lambda axis: axis.source)
        weights = [(axis.source, axis.to_source(device)) for axis in within]
        block = max(1, BLOCK_VOXELS // (values.shape[1] * values.shape[2]))
        planes = []
        for start in range(0, values.shape[0], block):
            part = np.ascontiguousarray(values[start : start + block], dtype=np.float32)
            plane = torch.from_numpy(part).to(device)
            for dimension, weight in weights:
                plane = weight.apply(plane, dimension)
            planes.append(plane)
        found = across.to_source(device).apply(torch.cat(planes), 0)
        return found.permute(tuple(axis.source for axis in self.axes)).contiguous()


def mapping(
    affine: Floats, shape: Sequence[int], spacing: Sequence[float] | None = None
) -> Mapping:
    """To axes towards right, front and head, and to `spacing` (mm along these) unless None.

    `affine`: index (slice, row, column) to LPS mm, of a volume of `shape`. Grid as
    `monai.transforms.Spacing(diagonal=False)` has it. Raises Oblique.
    """
    oriented, order, flips = _oriented(LPS_TO_RAS @ affine, shape)
    counts = [shape[source] for source in order]
    if spacing is None:
        lengths, steps, target = counts, [1.0, 1.0, 1.0], oriented
    else:
        lengths, steps, target = _spaced(oriented, counts, spacing)
    axes = [
        Axis(source=source, flipped=flip, count=count, length=length, step=step)
        for source, flip, count, length, step in zip(
            order, flips, counts, lengths, steps, strict=True
        )
    ]
    return Mapping(axes=(axes[0], axes[1], axes[2]), affine=target)


def _spaced(
    affine: Floats, counts: Sequence[int], spacing: Sequence[float]
) -> tuple[list[int], list[float], Floats]:
    present = affine_to_spacing(affine)
    wanted = np.asarray(spacing, dtype=np.float64)
    kept = np.abs(present - wanted) <= AFFINE_TOL  # mm
    target = zoom_affine(affine, np.where(kept, present, wanted), diagonal=False)
    lengths, offset = compute_shape_offset(counts, affine, target)
    target[:3, 3] = offset
    between = np.linalg.solve(affine, target)
    steps = np.diag(between)[:3]
    if np.abs(between - np.diag([*steps, 1.0])).max() > PARALLEL or (steps <= 0).any():
        raise Oblique("the volume's axes are not at right angles")
    same = list(lengths) == list(counts) and np.abs(between - np.eye(4)).max() <= AFFINE_TOL
    found = [1.0, 1.0, 1.0] if same else [float(step) for step in steps]
    return [int(length) for length in lengths], found, affine if same else target


def _oriented(affine: Floats, shape: Sequence[int]) -> tuple[Floats, list[int], list[bool]]:
    """The affine with axes towards right, front, head; which source axis each is; if flipped."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = [int(axis) for axis in np.abs(directions).argmax(axis=1)]
    if sorted(order) != [0, 1, 2]:
        raise Oblique("no axis of the volume is nearest to one of the patient's")
    flips = [bool(directions[world, axis] < 0) for world, axis in enumerate(order)]
    turned = np.zeros((4, 4))
    turned[3, 3] = 1.0
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        turned[source, axis] = -1.0 if flip else 1.0
        turned[source, 3] = shape[source] - 1 if flip else 0.0
    return affine @ turned, order, flips


def _weights(points: int, step: float, count: int, device: torch.device, *, edges: bool) -> Weights:
    at = torch.arange(points, dtype=torch.float64) * step
    at = (at + (step - 1) / 2 if edges else at).clamp_(0, count - 1)
    low = at.floor()
    part = at - low
    part[part < SAME] = 0.0
    high = (low + 1).clamp_(max=count - 1)
    return Weights(
        low=low.to(device=device, dtype=torch.int64),
        high=high.to(device=device, dtype=torch.int64),
        part=part.to(device=device, dtype=torch.float32),
    )


def _sampled(points: int, count: int, step: float) -> Tensor:
    """step * j for each point j, through the normalised coordinates of torch's grid_sample."""
    normalised = (2 * torch.arange(points, dtype=torch.float64) + 1) / points - 1
    scale = step * points / count
    shift = scale - 1 + (1 - step) / count
    return ((normalised * scale + shift + 1) * count - 1) / 2
