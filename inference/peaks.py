"""Where a heat map is highest, between its voxels, and whether that is a point at all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-3  # of a map that was resampled or summed in float32
FLAT = 1e-5  # of its height: what rounding makes of a map that is the same everywhere

Index = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """The maximum of a heat map. `place`: to a part of a voxel; `lowest`: value of the map."""

    place: Index
    height: float
    lowest: float

    def lacking(self, threshold: float | None) -> str | None:
        """Why it is no point, in words; None when it is one.

        A map that is the same everywhere has its maximum nowhere.
        """
        if self.height - self.lowest <= FLAT * max(abs(self.height), abs(self.lowest)):
            return "its heat map is flat"
        if threshold is not None and self.height < threshold:
            return f"its heat map reaches {self.height:.3g}, its threshold is {threshold:g}"
        return None


def top(values: NDArray[np.float64]) -> Top:
    """Of a heat map that is whole: the first of equal maxima."""
    index = tuple(int(at) for at in np.unravel_index(int(values.argmax()), values.shape))
    lines = (
        np.moveaxis(values, axis, -1)[(*index[:axis], *index[axis + 1 :])]
        for axis in range(values.ndim)
    )
    place = tuple(
        at + between(line[at - 1 : at + 2] if at else line[:0])
        for at, line in zip(index, lines, strict=True)
    )
    return Top(place=place, height=float(values[index]), lowest=float(values.min()))


def probability(height: float) -> float | None:
    """How high a top is, where that can be a probability; of other heat maps none is stated."""
    return min(height, 1.0) if 0.0 <= height <= 1.0 + ROUNDING else None


def between(three: NDArray[np.float64]) -> float:
    """How far the top lies from the maximum, in voxels along an axis; 0 at the map's edge.

    `three`: the maximum between its neighbours. The top of the parabola through them, of the
    logarithms where all are positive: exact for a Gaussian.
    """
    if len(three) != len(("left", "middle", "right")):
        return 0.0
    left, middle, right = np.log(three) if (three > 0).all() else three
    bend = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
