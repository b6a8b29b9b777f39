"""From densities to the vessels on the image's grid: the method in its order.

Memory beside the input: some ten bytes for each cubic millimetre of the field of view, and a slab.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from inference.blocks import Blocks, Densities, Shape, Spacing, blocks, pool
from inference.lungs.body import body, enclosed_air
from inference.lungs.morphology import bounding_box
from inference.lungs.separation import without_gas
from inference.vessels.blood import TISSUE_HU, Blood, Signs, blood, large, signs
from inference.vessels.bone import CUBE, bone
from inference.vessels.isotropic import isotropic, resampled, restored
from inference.vessels.tubes import SLAB, line_filter

Mask = NDArray[np.bool_]
Cell = TypeVar("Cell", bound=np.generic)

CELL_MM = 1.0
BLOCK_MM = 2.0
DENSITY_RANGE = (-1024.0, 1500.0)
BODY_HU = 200.0  # bright bone and contrast must not pull a block's mean

FINE_SCALES = (1.25,)  # cells: tubes of 1 to 3 mm radius
COARSE_SCALES = (1.125, 2.0)  # blocks: up to some 6 mm

FAINTEST_HU, CLEAREST_HU = 100.0, 150.0  # bounds of what is bright in soft tissue
LUNG_HU = -300.0  # in the lung: half-way from air to blood
LUNG_CONTRAST_HU = 1000.0
SEED, REST = 0.2, 0.07  # a tube's response as a share of its contrast; 0.37 is the best there is
AROUND_LUNG_MM = 5.0
AROUND_ROOTS_MM = 10.0
WALL_MM = 12.0  # the chest wall is no deeper beside the lungs
SKIN = 2  # blocks
MARGIN = SKIN + 1
SMALLEST_MM3 = 300.0
FULL_SHARE = 0.1  # of a component: as bright as the blood in large vessels
SMALLEST_IN_LUNG_MM3 = 80.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vessels:
    """The vessels on the image's grid; `mask` is None where nothing shows contrast agent."""

    mask: Mask | None
    signs: Signs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """On the grid of blocks: `wide`: large vessels, `allowed`: where others can be."""

    wide: Mask
    lung: Mask
    allowed: Mask
    clear_hu: float  # brighter is bright in soft tissue
    contrast_hu: float  # of blood over soft tissue
    half_hu: float
    full_hu: float  # what a part of each vessel in soft tissue reaches


def segment(hu: NDArray[np.generic], spacing: Spacing, *, slab: int = SLAB) -> Vessels:
    """All vessels with contrast agent.

    `hu`: axes (towards head, back, left), `spacing` in mm along them. `slab`: slices of the cubic
    grid at a time; the result does not depend on it.
    """
    shape: Shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    grid = isotropic(shape, spacing, cell_mm=CELL_MM)
    cells = resampled(hu, grid)
    pairs = blocks(grid.shape, grid.spacing, cell_mm=BLOCK_MM)
    coarse = pool(cells, pairs, limits=DENSITY_RANGE)
    inside = body(np.minimum(coarse, np.float32(BODY_HU)), pairs.spacing)
    seen = signs(coarse, inside, pairs.spacing)
    found = blood(coarse, inside, seen, pairs.spacing)
    if found is None:
        return Vessels(mask=None, signs=seen)
    box = bounding_box(inside, (MARGIN, MARGIN, MARGIN))
    around = _surroundings(coarse[box], inside[box], found.within(box), pairs.spacing)
    cut = pairs.coarse_box(box)
    mask = np.zeros(cells.shape, np.bool_)
    mask[cut] = _vessels(cells[cut], coarse[box], around, _part(pairs, cut), slab=slab)
    return Vessels(mask=restored(mask, grid), signs=seen)


def _part(pairs: Blocks, cut: tuple[slice, ...]) -> Blocks:
    """The same blocks over a part of the cells that begins with a block."""
    depth, rows, columns = (part.stop - part.start for part in cut)
    return replace(pairs, fine=(depth, rows, columns))


def _surroundings(coarse: Densities, inside: Mask, found: Blood, spacing: Spacing) -> _Surroundings:
    wide = large(coarse, found, spacing)
    air = without_gas(coarse, enclosed_air(coarse, inside), spacing)
    lung = _closed(air, AROUND_LUNG_MM, spacing)
    boneless = lung | _roots(air, spacing)
    bones = bone(coarse, found, wide, inside & ~boneless, spacing)
    return _Surroundings(
        wide=wide,
        lung=lung,
        allowed=_below_skin(inside) & ~bones,
        clear_hu=float(np.clip(found.half_hu, FAINTEST_HU, CLEAREST_HU)),
        contrast_hu=found.level_hu - TISSUE_HU,
        half_hu=found.half_hu,
        full_hu=found.floor_hu,
    )


def _below_skin(inside: Mask) -> Mask:
    """The body without a rim of SKIN blocks; what the field of view cuts has none."""
    deep: Mask = ndimage.minimum_filter(inside, (1, 2 * SKIN + 1, 2 * SKIN + 1))
    return deep


def _closed(mask: Mask, reach_mm: float, spacing: Spacing) -> Mask:
    """The lungs with what they enclose."""
    size = [2 * max(1, round(reach_mm / step)) + 1 for step in spacing]
    closed: Mask = ndimage.minimum_filter(ndimage.maximum_filter(mask, size), size)
    return closed


def _roots(air: Mask, spacing: Spacing) -> Mask:
    """Between the lungs, away from the chest wall and close to them: vessels there are no bone."""
    to_the_left = np.maximum.accumulate(air, axis=2)
    to_the_right = np.maximum.accumulate(air[..., ::-1], axis=2)[..., ::-1]
    wall = [2 * round(WALL_MM / step) + 1 for step in spacing[1:]]
    deep = ndimage.minimum_filter(to_the_left & to_the_right, (1, *wall))
    roots: Mask = deep & _closed(air, AROUND_ROOTS_MM, spacing)
    return roots


def _vessels(
    cells: NDArray[np.int16], coarse: Densities, around: _Surroundings, pairs: Blocks, *, slab: int
) -> Mask:
    """Tubes and large vessels on the cubic grid."""
    lung = _spread(around.lung, pairs)
    bright = cells > np.where(lung, np.int16(LUNG_HU), np.int16(around.clear_hu))
    bright &= _spread(around.allowed, pairs)
    share = np.zeros(cells.shape, np.float32)
    share[bright] = line_filter(cells, bright, FINE_SCALES, slab=slab)
    places = _any(bright, pairs)
    rough = np.zeros(coarse.shape, np.float32)
    rough[places] = line_filter(coarse, places, COARSE_SCALES, slab=slab)
    np.maximum(share, _spread(rough, pairs), out=share, where=bright)
    share /= np.where(lung, np.float32(LUNG_CONTRAST_HU), np.float32(around.contrast_hu))
    threshold: Any = apply_hysteresis_threshold
    found: Mask = threshold(share, REST, SEED)
    found |= _spread(around.wide, pairs) & (cells > around.half_hu)
    cell_mm3 = float(np.prod(pairs.spacing) / np.prod(pairs.factors))
    return _believed(found, lung, cells > around.full_hu, cell_mm3)


def _spread(values: NDArray[Cell], pairs: Blocks) -> NDArray[Cell]:
    """Each block's value in all of its cells."""
    found = np.empty(pairs.fine, values.dtype)
    for block, plane in enumerate(values):
        found[pairs.slices(block)] = pairs.plane(plane)
    return found


def _any(mask: Mask, pairs: Blocks) -> Mask:
    """The blocks with at least one such cell."""
    found = mask
    for axis, factor in enumerate(pairs.factors):
        found = np.logical_or.reduceat(found, np.arange(0, found.shape[axis], factor), axis=axis)
    return found


def _believed(mask: Mask, lung: Mask, full: Mask, cell_mm3: float) -> Mask:
    """What is large enough for where most of it lies and, outside the lungs, bright enough."""
    labels, count = ndimage.label(mask, CUBE)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    mostly_lung = 2 * np.bincount(labels[lung], minlength=count + 1) > sizes
    brightest = np.bincount(labels[full], minlength=count + 1)
    kept = np.where(
        mostly_lung,
        sizes * cell_mm3 >= SMALLEST_IN_LUNG_MM3,
        (sizes * cell_mm3 >= SMALLEST_MM3) & (brightest >= FULL_SHARE * sizes),
    )
    kept[0] = False
    chosen: Mask = kept[labels]
    return chosen
