"""From densities to the vessels on the image's grid: the method in its order.

Memory beside the input: some ten bytes for each cubic millimetre of the field of view, and a slab.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from inference.blocks import Blocks, Densities, Shape, Spacing, blocks, pool
from inference.lungs.body import body, enclosed_air
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
SKIN = 2
SMALLEST_MM3 = 300.0
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
    around = _surroundings(coarse, inside, found, pairs.spacing)
    mask = _vessels(cells, coarse, around, pairs, slab=slab)
    return Vessels(mask=restored(mask, grid), signs=seen)


def _surroundings(coarse: Densities, inside: Mask, found: Blood, spacing: Spacing) -> _Surroundings:
    wide = large(coarse, found, spacing)
    lung = _lung(coarse, inside, spacing)
    bones = bone(coarse, found, wide, inside & ~lung, spacing)
    return _Surroundings(
        wide=wide,
        lung=lung,
        allowed=_below_skin(inside) & ~bones,
        clear_hu=float(np.clip(found.half_hu, FAINTEST_HU, CLEAREST_HU)),
        contrast_hu=found.level_hu - TISSUE_HU,
        half_hu=found.half_hu,
    )


def _below_skin(inside: Mask) -> Mask:
    """The body without a rim of SKIN blocks; what the field of view cuts has none."""
    deep: Mask = ndimage.minimum_filter(inside, (1, 2 * SKIN + 1, 2 * SKIN + 1))
    return deep


def _lung(coarse: Densities, inside: Mask, spacing: Spacing) -> Mask:
    """The lungs with what they enclose."""
    air = without_gas(coarse, enclosed_air(coarse, inside), spacing)
    size = [2 * max(1, round(AROUND_LUNG_MM / step)) + 1 for step in spacing]
    closed: Mask = ndimage.minimum_filter(ndimage.maximum_filter(air, size), size)
    return closed


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
    return _without_small(found, lung, float(np.prod(pairs.spacing) / np.prod(pairs.factors)))


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


def _without_small(mask: Mask, lung: Mask, cell_mm3: float) -> Mask:
    """Only what is large enough for where most of it lies."""
    labels, count = ndimage.label(mask, CUBE)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    inside = np.bincount(labels[lung], minlength=count + 1)
    least = np.where(2 * inside > sizes, SMALLEST_IN_LUNG_MM3, SMALLEST_MM3)
    kept = sizes * cell_mm3 >= least
    kept[0] = False
    chosen: Mask = kept[labels]
    return chosen
