"""The line a reader sees: the greatest extent of a mask in the slice where its area is largest.

Ends lie on the corners of pixels, so that a mask of one pixel has a length too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from inference.encoding.planes import Planes

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LongAxis:
    """A line in one slice; `length`, mm.

    `ends`: (2, 3) patient coordinates, mm; `pixels`: (2, 2) column, row in the image, where 0, 0 is
    the outer corner of its first pixel (PS3.3 C.18.6.1.1).
    """

    plane: int
    ends: Floats
    pixels: Floats
    length: float


def of_mask(mask: Mask, grid: Planes) -> LongAxis:
    """The long axis of a mask that is not empty; axes (slice, row, column)."""
    plane = int(mask.sum(axis=(1, 2)).argmax())
    corners = _outer_corners(mask[plane])
    distances = squareform(pdist(corners * grid.pixel_spacing))
    first, last = np.unravel_index(int(distances.argmax()), distances.shape)
    chosen = corners[[first, last]]
    return LongAxis(
        plane=plane,
        ends=np.stack([grid.point(plane, row, column) for row, column in chosen]),
        pixels=chosen[:, ::-1] + 0.5,
        length=float(distances[first, last]),
    )


def point_inside(mask: Mask, grid: Planes) -> Floats:
    """Patient coordinates, mm, of the mask's pixel nearest to the middle of its widest slice."""
    plane = int(mask.sum(axis=(1, 2)).argmax())
    pixels = np.argwhere(mask[plane])
    middle = ((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()
    row, column = pixels[middle]
    return grid.point(plane, float(row), float(column))


def _outer_corners(area: Mask) -> Floats:
    """(row, column) of the outer corners of every row: the two farthest apart are among them."""
    rows = np.flatnonzero(area.any(axis=1))
    first = area[rows].argmax(axis=1) - 0.5
    last = area.shape[1] - area[rows, ::-1].argmax(axis=1) - 0.5
    corners: Floats = np.concatenate(
        [
            np.stack([rows + edge, column], axis=1)
            for edge in (-0.5, 0.5)
            for column in (first, last)
        ]
    )
    return corners
