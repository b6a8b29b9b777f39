"""Bone, and what lies inside it and touches it: where a bright tube is not believed."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Densities, Spacing
from inference.vessels.blood import Blood

Mask = NDArray[np.bool_]

DENSER_HU = 80.0  # than blood: surely bone, outside the lungs and the large vessels
SPONGY_HU = 110.0
SPONGY_SHARE = 0.75  # of the blood's brightness: above it spongy bone and vessels look the same
SPONGY_MM = 30.0  # how far spongy bone reaches from dense bone
SMALLEST_BONE_MM3 = 300.0  # smaller dense pieces are calcified plaques, clips and noise
CLOSING_MM = 6.0  # radius, in the slice
RIM_MM = 2.0
NEAR_MM = 3.0  # how far hard bone reaches from dense bone
CUBE = np.ones((3, 3, 3))


def bone(hu: Densities, blood: Blood, vessels: Mask, allowed: Mask, spacing: Spacing) -> Mask:
    """Whole bones with their rim, without the large `vessels`; axes (slice, row, column).

    `allowed`: where bone can be (inside the body, not in the lungs).
    """
    free = allowed & ~ndimage.binary_dilation(vessels)
    dense = without_small(free & (hu > blood.level_hu + DENSER_HU), spacing, SMALLEST_BONE_MM3)
    if not dense.any():
        return dense
    near = ndimage.distance_transform_edt(~dense, sampling=spacing)
    border = max(SPONGY_SHARE * blood.level_hu, 2 * SPONGY_HU)
    smooth = ndimage.gaussian_filter(hu, 1)
    spongy = free & (smooth > SPONGY_HU) & (smooth < border) & (near <= SPONGY_MM)
    hard = free & (hu >= border) & (near <= NEAR_MM)
    grown = ndimage.binary_propagation(dense, mask=dense | spongy | hard)
    whole = np.stack([_filled(plane, spacing) for plane in grown])
    reach = [2 * max(1, round(RIM_MM / step)) + 1 for step in spacing]
    rimmed: Mask = ndimage.maximum_filter(whole, reach) & ~vessels
    return rimmed


def without_small(mask: Mask, spacing: Spacing, smallest_mm3: float) -> Mask:
    """The components (of 26 neighbours) of at least that volume."""
    labels, _ = ndimage.label(mask, CUBE)
    kept = np.bincount(labels.ravel()) * np.prod(spacing) >= smallest_mm3
    kept[0] = False
    chosen: Mask = kept[labels]
    return chosen


def _filled(plane: Mask, spacing: Spacing) -> Mask:
    reach = [max(1, round(CLOSING_MM / step)) for step in spacing[1:]]
    rows, columns = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disk = (rows / reach[0]) ** 2 + (columns / reach[1]) ** 2 <= 1
    wide = np.pad(plane, [(cells, cells) for cells in reach])
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(wide, disk))
    filled: Mask = closed[reach[0] : -reach[0], reach[1] : -reach[1]]
    return filled
