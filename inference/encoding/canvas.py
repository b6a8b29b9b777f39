"""What findings are drawn on: the slices of a stack in the patient, or one planar image nowhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.encoding.planes import Plane, Planes
from inference.encoding.sheets import Sheet
from inference.errors import EncodingError

Floats = NDArray[np.float64]
HALF = 0.5 + 1e-3  # of a pixel or of the distance between slices; the rest is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """Images of one matrix.

    `spacing`: between rows, between columns, mm, None when unknown; `at_detector`: not in the
    patient; `grid`: where the images lie, None: nowhere.
    """

    images: tuple[Plane | Sheet, ...]
    rows: int
    columns: int
    spacing: tuple[float, float] | None
    at_detector: bool = False
    grid: Planes | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """The spacing, of pixels when it is unknown."""
        return self.spacing or (1.0, 1.0)

    def place(self, point: tuple[float, ...]) -> tuple[int, Floats]:
        """The image nearest to a finding's point, and (row, column) there.

        Raises EncodingError when the point is outside the images.
        """
        if self.grid is not None:
            plane, place, depth = project(np.asarray(point, np.float64), self.grid)
        else:
            plane, place, depth = 0, np.asarray(point, np.float64)[::-1], 0.0
        if place.shape != (2,) or not np.isfinite(place).all():
            raise EncodingError("a point of a finding is none of this image")
        if not _inside(place, depth, (self.rows, self.columns)):
            raise EncodingError("a finding lies outside the image")
        return plane, place


def of_planes(grid: Planes) -> Canvas:
    """The slices of a stack."""
    return Canvas(
        images=grid.planes,
        rows=grid.rows,
        columns=grid.columns,
        spacing=grid.pixel_spacing,
        grid=grid,
    )


def of_sheet(sheet: Sheet) -> Canvas:
    """One planar image."""
    return Canvas(
        images=(sheet,),
        rows=sheet.rows,
        columns=sheet.columns,
        spacing=sheet.spacing,
        at_detector=sheet.at_detector,
    )


def project(point: Floats, grid: Planes) -> tuple[int, Floats, float]:
    """The slice nearest to a point (LPS mm), (row, column) in it, and how far away it lies.

    The distance is along the normal, in distances between slices.
    """
    if point.shape != (3,):
        raise EncodingError("a point in the patient has three coordinates")
    right, down = np.reshape(grid.orientation, (2, 3))
    away = point - np.asarray([plane.position for plane in grid.planes])
    depths = away @ np.cross(right, down)
    nearest = int(np.abs(depths).argmin())
    place = np.array([away[nearest] @ down, away[nearest] @ right]) / grid.pixel_spacing
    return nearest, place, float(depths[nearest]) / grid.distance


def within(point: Floats, grid: Planes) -> bool:
    """Whether a point of single precision (LPS mm) lies in the stack."""
    _, place, depth = project(point, grid)
    return _inside(place, depth, (grid.rows, grid.columns), margin=0.01)


def _inside(place: Floats, depth: float, matrix: tuple[int, int], *, margin: float = 0.0) -> bool:
    beyond = HALF + margin
    rows_and_columns = np.asarray(matrix) - 1 + beyond
    inside = (place >= -beyond) & (place <= rows_and_columns)
    return bool(inside.all()) and abs(depth) <= beyond
