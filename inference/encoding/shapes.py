"""Boxes as they are drawn: the whole box in the patient, its section in the nearest image.

The section is that through the middle of the box, parallel to the images, so that a box thinner
than a slice has one too; what of it lies outside the image is cut off.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from inference.encoding.canvas import Canvas
from inference.encoding.drawing import Drawing
from inference.encoding.planes import Planes
from inference.errors import EncodingError
from inference.findings import Box

Floats = NDArray[np.float64]
DECIMALS = 6  # of a pixel: what is nearer is the same corner
SMALLEST = 1e-9  # mm3 or square pixels


def faces(box: Box) -> list[Floats]:
    """The six sides of a box in the patient as closed polygons, (5, 3) LPS mm."""
    centre, edges = _parts(box, 3)
    halves = edges / 2
    sides = []
    for axis, sign in product(range(3), (-1, 1)):
        a, b = (halves[k] for k in range(3) if k != axis)
        middle = centre + sign * halves[axis]
        sides.append(middle + np.array([-a - b, a - b, a + b, -a + b, -a - b]))
    return sides


def section(box: Box, canvas: Canvas) -> Drawing:
    """The outline of a box in the image nearest to its middle: a closed polygon.

    Raises EncodingError when the box has no extent or its middle lies outside the images.
    """
    if canvas.grid is None:
        corners = _corners_in_pixels(box)
        plane, _ = canvas.place(box.centre)
    else:
        plane, middle = canvas.place(box.centre)
        corners = middle + _crossings(box, canvas.grid)
    outline = _clipped(_around(corners), canvas)
    return Drawing(plane=plane, places=np.concatenate([outline, outline[:1]]))


def extents(box: Box, canvas: Canvas) -> tuple[float, float, float | None]:
    """Along the rows (width), along the columns (height) and across the images (depth), mm.

    In a planar image, of known spacing, there is no depth.
    """
    if canvas.grid is None:
        _, edges = _parts(box, 2)
        lengths = np.linalg.norm(edges * np.asarray(canvas.scale)[::-1], axis=1)
        width, height = (0, 1) if abs(edges[0, 0]) >= abs(edges[1, 0]) else (1, 0)
        return float(lengths[width]), float(lengths[height]), None
    _, edges = _parts(box, 3)
    right, down = np.reshape(canvas.grid.orientation, (2, 3))
    along = np.abs(edges @ np.stack([right, down, np.cross(right, down)]).T)
    lengths = np.linalg.norm(edges, axis=1)
    depth = int((along[:, 2] / lengths).argmax())
    first, second = (k for k in range(3) if k != depth)
    width, height = (first, second) if along[first, 0] >= along[second, 0] else (second, first)
    return float(lengths[width]), float(lengths[height]), float(lengths[depth])


def _parts(box: Box, dimensions: int) -> tuple[Floats, Floats]:
    centre = np.asarray(box.centre, np.float64)
    edges = np.asarray(box.edges, np.float64)
    if centre.shape != (dimensions,) or edges.shape != (dimensions, dimensions):
        raise EncodingError(f"a box here has {dimensions} coordinates and edges")
    if not np.isfinite(centre).all() or not abs(np.linalg.det(edges)) > SMALLEST:
        raise EncodingError("a box has no extent")
    return centre, edges


def _corners_in_pixels(box: Box) -> Floats:
    centre, edges = _parts(box, 2)
    signs = np.array(list(product((-0.5, 0.5), repeat=2)))
    corners: Floats = (centre + signs @ edges)[:, ::-1]
    return corners


def _crossings(box: Box, grid: Planes) -> Floats:
    """Where the edges cross the plane through the middle, (row, column) pixels from the middle."""
    _, edges = _parts(box, 3)
    right, down = np.reshape(grid.orientation, (2, 3))
    normal = np.cross(right, down)
    signs = np.array(list(product((-0.5, 0.5), repeat=3)))
    corners = signs @ edges
    depths = corners @ normal
    found = []
    for i, j in zip(*np.triu_indices(len(signs), 1), strict=True):
        is_edge = np.count_nonzero(signs[i] != signs[j]) == 1
        if is_edge and depths[i] * depths[j] <= 0 and depths[i] != depths[j]:
            part = depths[i] / (depths[i] - depths[j])
            found.append(corners[i] + part * (corners[j] - corners[i]))
    crossings = np.asarray(found)
    places: Floats = np.stack([crossings @ down, crossings @ right], axis=1) / grid.pixel_spacing
    return places


def _around(points: Floats) -> Floats:
    """The corners of the polygon around the points, in its order."""
    corners = np.unique(np.round(points, DECIMALS), axis=0)
    try:
        return np.asarray(corners[ConvexHull(corners).vertices], np.float64)
    except (QhullError, ValueError) as error:
        raise EncodingError("a box has no extent in its image") from error


def _clipped(polygon: Floats, canvas: Canvas) -> Floats:
    """The part of a convex polygon that lies inside the image (Sutherland and Hodgman, 1974)."""
    for axis, size in enumerate((canvas.rows, canvas.columns)):
        for sign, limit in ((-1.0, 0.5), (1.0, size - 0.5)):
            polygon = _cut(polygon, sign * polygon[:, axis] - limit)
    return polygon


def _cut(polygon: Floats, beyond: Floats) -> Floats:
    """The part of a polygon where `beyond`, linear between its corners, is not positive."""
    kept = []
    for index, corner in enumerate(polygon):
        before, past = beyond[index - 1], beyond[index]
        if (before > 0) != (past > 0):
            part = before / (before - past)
            kept.append(polygon[index - 1] + part * (corner - polygon[index - 1]))
        if past <= 0:
            kept.append(corner)
    return np.asarray(kept, np.float64)
