"""What a reader sees drawn: the greatest extent of a mask in the slice where its area is largest.

Ends lie on the corners of pixels, so that a mask of one pixel has a length too. Of points and boxes
see `shapes`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from inference.encoding.canvas import Canvas
from inference.encoding.planes import Planes
from inference.regions import Region

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Points in one slice. `places`: (n, 2) row, column; pixel centres are whole numbers."""

    plane: int
    places: Floats

    @property
    def in_image(self) -> Floats:
        """(n, 2) column, row from the outer corner of the first pixel (PS3.3 C.18.6.1.1)."""
        return self.places[:, ::-1] + 0.5

    def in_patient(self, grid: Planes) -> Floats:
        """(n, 3) patient coordinates, mm."""
        return np.stack([grid.point(self.plane, row, column) for row, column in self.places])


@dataclass(frozen=True, slots=True, kw_only=True)
class LongAxis:
    """A line between two points; `length`, mm."""

    line: Drawing
    length: float


def of_region(region: Region, spacing: tuple[float, float]) -> LongAxis:
    """The long axis of what is not empty; axes (slice, row, column); `spacing` of pixels."""
    plane, corner = _widest(region)
    corners = _outer_corners(region.mask[plane - region.begin[0]]) + corner
    distances = squareform(pdist(corners * spacing))
    ends = np.unravel_index(int(distances.argmax()), distances.shape)
    line = Drawing(plane=plane, places=corners[list(ends)])
    return LongAxis(line=line, length=float(distances[ends]))


def point_inside(region: Region) -> Drawing:
    """The pixel of the region that is nearest to the middle of its widest slice."""
    plane, corner = _widest(region)
    pixels = np.argwhere(region.mask[plane - region.begin[0]]) + corner
    middle = int(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin())
    return Drawing(plane=plane, places=pixels[[middle]].astype(np.float64))


def middle_of(canvas: Canvas) -> Drawing:
    """The pixel in the middle of the stack or image."""
    centre = np.array([[canvas.rows // 2, canvas.columns // 2]], dtype=np.float64)
    return Drawing(plane=len(canvas.images) // 2, places=centre)


def border_of(canvas: Canvas, plane: int) -> Drawing:
    """The border of an image: a closed line along the outer sides of its pixels."""
    bottom, right = canvas.rows - 0.5, canvas.columns - 0.5
    corners = [(-0.5, -0.5), (-0.5, right), (bottom, right), (bottom, -0.5), (-0.5, -0.5)]
    return Drawing(plane=plane, places=np.array(corners))


def beside(canvas: Canvas, index: int, count: int) -> Drawing:
    """A pixel near the edge of the middle image: one of `count` places, none on another's label."""
    row = (index + 1) * canvas.rows // (count + 1)
    place = np.array([[row, canvas.columns // 16]], dtype=np.float64)
    return Drawing(plane=len(canvas.images) // 2, places=place)


def _widest(region: Region) -> tuple[int, NDArray[np.intp]]:
    """The slice where the area is largest, and (row, column) of the region's corner."""
    first, *corner = region.begin
    widest = int(np.argmax([np.count_nonzero(plane) for plane in region.mask]))
    return first + widest, np.asarray(corner, np.intp)


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
