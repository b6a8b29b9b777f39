"""From densities to labels on the full grid: the method in its order.

Memory beside the input: one byte a voxel for the labels and what the coarse grid needs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Blocks, Densities, Shape, Spacing, blocks, pool
from inference.lungs import airway
from inference.lungs.body import body, enclosed_air
from inference.lungs.field import open_lung
from inference.lungs.morphology import Mask, within
from inference.lungs.separation import Labels, sides, smoothed, without_gas

AIRWAY = 3
CELL_MM = 2.0
DENSITY_RANGE = (-1024, 200)  # HU; bright bone and contrast must not pull a block's mean
WALL_MM = 2.0
LUNG_EDGE_HU = -400


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """Labels on the image's grid: 1 right lung, 2 left lung, 3 trachea with main bronchi.

    `astride`: a piece of lung lies on both sides of the midline; `open_mm3`: lung beside them that
    the field of view cuts.
    """

    labels: Labels
    found: frozenset[int]
    astride: bool
    open_mm3: float


def segment(hu: NDArray[np.generic], spacing: Spacing) -> Anatomy:
    """Segment one chest; axes (towards head, back, left), `spacing` in mm along them."""
    shape: Shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    grid = blocks(shape, spacing, cell_mm=CELL_MM)
    coarse = pool(hu, grid, limits=DENSITY_RANGE)
    inside = body(coarse, grid.spacing)
    air = enclosed_air(coarse, inside)
    lung_air = without_gas(coarse, air, grid.spacing)
    chain = airway.trachea(coarse, air, lung_air, grid.spacing)
    labels = np.zeros(shape, np.uint8)
    wall = np.zeros(air.shape, np.bool_)
    if chain:
        lumen = airway.grown(hu, chain, grid)
        labels[lumen] = AIRWAY
        wall = within(_pooled(lumen, grid), WALL_MM, grid.spacing)
    pieces = sides(coarse, lung_air & ~wall, _midline(chain, inside), grid.spacing)
    lungs = smoothed(pieces.labels, wall | ~inside, grid.spacing)
    if lungs.any():
        _refine(labels, hu, _shell(lungs, pieces.labels, grid.spacing), grid)
    return Anatomy(
        labels=labels,
        found=frozenset(int(n) for n in np.unique(labels) if n),
        astride=pieces.astride,
        open_mm3=open_lung(coarse, inside, grid.spacing),
    )


def _pooled(lumen: Mask, grid: Blocks) -> Mask:
    """Cells that hold at least one voxel of the airway."""
    cells = lumen
    for axis in range(3):
        starts = np.arange(0, cells.shape[axis], grid.factors[axis])
        cells = np.logical_or.reduceat(cells, starts, axis=axis)
    return cells


def _midline(chain: airway.Chain, inside: Mask) -> float:
    """The column between the lungs: the trachea's, else the body's."""
    if chain:
        return float(np.mean([section.centre[1] for section in chain]))
    weights = inside.sum(axis=(0, 1))
    return float(np.average(np.arange(weights.size), weights=weights)) if weights.any() else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shell:
    """Coarse labels widened by a cell, and the cells that surely belong to them."""

    wide: Labels
    core: Mask


def _shell(lungs: Labels, pieces: Labels, spacing: Spacing) -> _Shell:
    """Between core and rim the full grid decides by density; what was closed or filled is sure."""
    found = lungs > 0
    reach = max(spacing) * 1.01
    distance, nearest = ndimage.distance_transform_edt(
        ~found, sampling=spacing, return_indices=True
    )
    deep = ndimage.distance_transform_edt(found, sampling=spacing) > reach
    return _Shell(
        wide=np.where(distance <= reach, lungs[tuple(nearest)], 0).astype(np.uint8),
        core=deep | (found & (pieces == 0)),
    )


def _refine(labels: Labels, hu: NDArray[np.generic], shell: _Shell, grid: Blocks) -> None:
    for cell in range(shell.wide.shape[0]):
        side, core = shell.wide[cell], shell.core[cell]
        if side.any():
            wide, sure = grid.plane(side), grid.plane(core)
            for level in range(grid.fine[0])[grid.slices(cell)]:
                light = _light(hu[level])
                chosen = (wide > 0) & (sure | light) & (labels[level] == 0)
                labels[level][chosen] = wide[chosen]


def _light(plane: NDArray[np.generic]) -> Mask:
    smooth: Densities = ndimage.uniform_filter(plane.astype(np.float32), size=3)
    return smooth < LUNG_EDGE_HU
