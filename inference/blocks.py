"""A coarse grid whose cells are whole blocks of voxels: pooled without interpolation.

Going down and back again never moves a voxel. Memory beside the input: one slab of a coarse slice.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]
Densities = NDArray[np.float32]

Cell = TypeVar("Cell", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How many voxels make a cell along each axis; spacing in mm."""

    fine: Shape
    factors: Shape
    spacing: Spacing  # of the coarse grid

    @property
    def shape(self) -> Shape:
        """Cells along each axis."""
        depth, height, width = (
            -(-size // factor) for size, factor in zip(self.fine, self.factors, strict=True)
        )
        return depth, height, width

    def cells(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """The box of cells that a box of voxels touches."""
        return tuple(
            slice(part.start // factor, -(-part.stop // factor))
            for part, factor in zip(box, self.factors, strict=True)
        )

    def coarse_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """The voxels of a box of cells."""
        return tuple(
            slice(part.start * factor, min(part.stop * factor, size))
            for part, factor, size in zip(box, self.factors, self.fine, strict=True)
        )

    def slices(self, cell: int) -> slice:
        """The fine slices of one coarse slice."""
        start = cell * self.factors[0]
        return slice(start, min(start + self.factors[0], self.fine[0]))

    def plane(self, coarse: NDArray[Cell]) -> NDArray[Cell]:
        """A coarse plane (rows, columns) on the fine rows and columns."""
        rows = np.repeat(coarse, self.factors[1], axis=0)[: self.fine[1]]
        return np.repeat(rows, self.factors[2], axis=1)[:, : self.fine[2]]


def blocks(shape: Shape, spacing: Spacing, *, cell_mm: float) -> Blocks:
    """Blocks of about `cell_mm`; an axis that is coarser stays as it is."""
    factors = [max(1, round(cell_mm / step)) for step in spacing]
    return Blocks(
        fine=shape,
        factors=(factors[0], factors[1], factors[2]),
        spacing=(
            spacing[0] * factors[0],
            spacing[1] * factors[1],
            spacing[2] * factors[2],
        ),
    )


def pool(values: NDArray[np.generic], grid: Blocks, *, limits: tuple[float, float]) -> Densities:
    """Mean of each block of the values clipped to `limits`; an axis' last block may be smaller."""
    starts, sizes = _cells(grid)
    weights = sizes[1][:, None] * sizes[2][None, :]
    coarse = np.empty([len(s) for s in starts], np.float32)
    for cell, depth in enumerate(sizes[0]):
        slab = np.clip(values[grid.slices(cell)], *limits).sum(axis=0, dtype=np.float32)
        rows = np.add.reduceat(slab, starts[1], axis=0)
        coarse[cell] = np.add.reduceat(rows, starts[2], axis=1) / (weights * depth)
    return coarse


def share(mask: NDArray[np.bool_], grid: Blocks) -> Densities:
    """How much of each block a mask fills, 0 to 1: its mean as `pool` gives it, but sooner."""
    starts, sizes = _cells(grid)
    weights = sizes[1][:, None] * sizes[2][None, :]
    coarse = np.empty([len(s) for s in starts], np.float32)
    for cell, depth in enumerate(sizes[0]):
        slab = _folded(mask[grid.slices(cell)], grid.factors[0])[0]
        rows = _folded(slab, grid.factors[1])
        coarse[cell] = _folded(rows.T, grid.factors[2]).T / (weights * depth)
    return coarse


def _cells(grid: Blocks) -> tuple[list[NDArray[np.intp]], list[Densities]]:
    """Of each axis: the first voxel of every cell, and how many it has."""
    starts = [
        np.arange(0, size, factor) for size, factor in zip(grid.fine, grid.factors, strict=True)
    ]
    sizes = [
        np.diff(np.append(s, n)).astype(np.float32) for s, n in zip(starts, grid.fine, strict=True)
    ]
    return starts, sizes


def _folded(values: NDArray[np.bool_] | NDArray[np.uint32], factor: int) -> NDArray[np.uint32]:
    """Counts of `factor` neighbours along the first axis together; the last may be fewer."""
    counts = values[::factor].astype(np.uint32)
    for start in range(1, min(factor, len(values))):
        part = values[start::factor]
        counts[: len(part)] += part
    return counts
