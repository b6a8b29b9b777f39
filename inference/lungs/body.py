"""The body without the table, and the air inside it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Densities, Spacing
from inference.lungs.morphology import Mask, largest

TISSUE_HU = -500  # Hu et al.: between lung and soft tissue
AIR_HU = -400
OPENING_MM = 3.0  # radius; a table's shell and a blanket are thinner
CLOSING_MM = 10.0  # radius; bridges an opened chest wall between two ribs


def disk(radius_mm: float, spacing: tuple[float, float]) -> NDArray[np.bool_]:
    """A disk on a plane's grid, at least 3 x 3."""
    reach = [max(1, int(radius_mm / step)) for step in spacing]
    y, x = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    shape: NDArray[np.bool_] = (y * spacing[0]) ** 2 + (x * spacing[1]) ** 2 <= max(
        radius_mm**2, spacing[0] ** 2, spacing[1] ** 2
    )
    return shape


def body(hu: Densities, spacing: Spacing) -> Mask:
    """The largest piece of tissue with everything that it encloses in a slice."""
    plane = (spacing[1], spacing[2])
    opening, closing = disk(OPENING_MM, plane), disk(CLOSING_MM, plane)
    tissue: Mask = hu > TISSUE_HU
    for level in tissue:
        level[:] = ndimage.binary_opening(level, opening)
    tissue = largest(tissue)
    for level in tissue:
        level[:] = _closed(level, closing)
    return tissue


def _closed(level: Mask, structure: NDArray[np.bool_]) -> Mask:
    reach = structure.shape[0] // 2, structure.shape[1] // 2
    wide = np.pad(level, [(reach[0], reach[0]), (reach[1], reach[1])])
    wide = ndimage.binary_closing(wide, structure)
    filled: Mask = ndimage.binary_fill_holes(wide)
    return filled[reach[0] : -reach[0], reach[1] : -reach[1]]


def enclosed_air(hu: Densities, inside: Mask) -> Mask:
    """Lung, airway and bowel gas: what is light inside the body."""
    air: Mask = inside & (hu < AIR_HU)
    return air
