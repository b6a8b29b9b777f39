"""A coarse grid whose cells are whole blocks of voxels: pooled without interpolation.

Going down and back again never moves a voxel.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]
Mask = NDArray[np.bool_]
Densities = NDArray[np.float32]

Cell = TypeVar("Cell", bound=np.generic)

CELL_MM = 2.0
DENSITY_RANGE = (-1024, 200)  # HU; bright bone and contrast must not pull a block's mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How many voxels make a cell along each axis; spacing in mm."""

    fine: Shape
    factors: Shape
    spacing: Spacing  # of the coarse grid

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


def blocks(shape: Shape, spacing: Spacing) -> Blocks:
    """Blocks of about CELL_MM; an axis that is coarser stays as it is."""
    factors = [max(1, round(CELL_MM / step)) for step in spacing]
    return Blocks(
        fine=shape,
        factors=(factors[0], factors[1], factors[2]),
        spacing=(
            spacing[0] * factors[0],
            spacing[1] * factors[1],
            spacing[2] * factors[2],
        ),
    )


def pool(hu: NDArray[np.generic], grid: Blocks) -> Densities:
    """Mean density of each block; the last block of an axis may be smaller."""
    starts = [
        np.arange(0, size, factor) for size, factor in zip(grid.fine, grid.factors, strict=True)
    ]
    sizes = [
        np.diff(np.append(s, n)).astype(np.float32) for s, n in zip(starts, grid.fine, strict=True)
    ]
    weights = sizes[1][:, None] * sizes[2][None, :]
    coarse = np.empty([len(s) for s in starts], np.float32)
    for cell, depth in enumerate(sizes[0]):
        slab = np.clip(hu[grid.slices(cell)], *DENSITY_RANGE).sum(axis=0, dtype=np.float32)
        rows = np.add.reduceat(slab, starts[1], axis=0)
        coarse[cell] = np.add.reduceat(rows, starts[2], axis=1) / (weights * depth)
    return coarse


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
