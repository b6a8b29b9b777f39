"""Where a heat map is highest, between its voxels."""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-3  # of a map that was resampled or summed in float32


def peak(values: NDArray[np.float64]) -> tuple[tuple[float, ...], float]:
    """Where the maximum lies, to a part of a voxel, and its value; the first of equal ones.

    On each axis the top of the parabola through the maximum and its neighbours, of the logarithms
    where all three are positive: exact for a Gaussian.
    """
    index = tuple(int(at) for at in np.unravel_index(int(values.argmax()), values.shape))
    place = tuple(
        at + _top(np.moveaxis(values, axis, -1)[(*index[:axis], *index[axis + 1 :])], at)
        for axis, at in enumerate(index)
    )
    return place, float(values[index])


def probability(height: float) -> float | None:
    """How high a top is, where that can be a probability; of other heat maps none is stated."""
    return min(height, 1.0) if 0.0 <= height <= 1.0 + ROUNDING else None


def _top(line: NDArray[np.float64], at: int) -> float:
    if not 0 < at < len(line) - 1:
        return 0.0
    three = line[at - 1 : at + 2]
    left, middle, right = np.log(three) if (three > 0).all() else three
    bend = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
