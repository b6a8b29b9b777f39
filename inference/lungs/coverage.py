"""What the image holds: how much of a lung its ends cut off, contrast agent, noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Spacing
from inference.lungs.morphology import Mask, bounding_box
from inference.lungs.separation import Labels

ENHANCED_HU = 150
ENHANCED_SHARE = 0.1
SOFT_HU = -100
CORE_MM = 3.0  # from the airway's wall to where only air is
FEWEST_VOXELS = 500
ONE_SIGMA = 84.1  # percentile
BESIDE_MM, BEFORE_MM, ALONG_MM = 50.0, 70.0, 20.0  # around the trachea's fork: the great vessels


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Shares (0 to 1) of a structure's largest cross-section in the stack's end slices."""

    lowest: float
    highest: float

    @property
    def cut(self) -> float:
        """The larger of the two."""
        return max(self.lowest, self.highest)

    @property
    def where(self) -> str:
        """Which end cuts more, in words."""
        return "lowest" if self.lowest >= self.highest else "highest"


def filled(hu: NDArray[np.generic]) -> slice:
    """From the first slice that holds any tissue to the last: scanners add empty ones."""
    levels = [level for level, plane in enumerate(hu) if plane.max() > SOFT_HU]
    return slice(levels[0], levels[-1] + 1) if levels else slice(0, len(hu))


def coverage(labels: Labels, label: int) -> Coverage:
    """Slices run towards the head; the label is present."""
    areas = [int(np.count_nonzero(plane == label)) for plane in labels]
    largest = max(areas)
    return Coverage(lowest=areas[0] / largest, highest=areas[-1] / largest)


def enhanced(
    hu: NDArray[np.integer] | NDArray[np.floating], airway: Mask, spacing: Spacing
) -> bool:
    """Are the great vessels before the trachea's fork bright: was contrast agent given?"""
    levels = np.flatnonzero(airway.any(axis=(1, 2)))
    level = int(levels[len(levels) // 3])
    rows, columns = np.nonzero(airway[level])
    row, column = int(rows.mean()), int(columns.mean())
    reach = [
        int(mm / step) for mm, step in zip((ALONG_MM, BEFORE_MM, BESIDE_MM), spacing, strict=True)
    ]
    box = hu[
        max(0, level - reach[0]) : level + reach[0],
        max(0, row - reach[1]) : row,
        max(0, column - reach[2]) : column + reach[2],
    ]
    soft = int(np.count_nonzero(box > SOFT_HU))
    return bool(np.count_nonzero(box > ENHANCED_HU) > ENHANCED_SHARE * max(1, soft))


def noise(
    hu: NDArray[np.integer] | NDArray[np.floating], airway: Mask, spacing: Spacing
) -> float | None:
    """One standard deviation of the air in the airway, HU; None when there is too little of it.

    From the upper half: many scanners cut the lower one off at -1024 HU.
    """
    if not airway.any():
        return None
    box = bounding_box(airway, (0, 1, 1))
    steps = max(1, round(CORE_MM / max(spacing[1:])))
    core = [ndimage.binary_erosion(plane, np.ones((3, 3)), steps) for plane in airway[box]]
    air = hu[box][np.stack(core)]
    if air.size < FEWEST_VOXELS:
        return None
    middle, upper = np.percentile(air, (50, ONE_SIGMA))
    return float(upper - middle)
