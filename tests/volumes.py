"""Exact phantoms as series, and how far a reader's markers lie from the truth."""

from collections.abc import Sequence

import numpy as np
from highdicom import Volume
from hypothesis import strategies as st

from inference.phantom import MARKER_WIDTH_MM, Grid, Phantom, markers, regular

Vector = tuple[float, float, float]

NAMED_ORIENTATIONS: dict[str, tuple[Vector, Vector]] = {  # right, down
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial, prone": ((-1, 0, 0), (0, -1, 0)),
    "axial, mirrored": ((-1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "sagittal, mirrored": ((0, -1, 0), (0, 0, -1)),
}


def turned(angles: Vector) -> tuple[Vector, Vector]:
    """Right and down after rotations about the three axes, radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    right, down = matrix[:, 0], matrix[:, 1]
    return (right[0], right[1], right[2]), (down[0], down[1], down[2])


def grid(
    orientation: tuple[Vector, Vector] = NAMED_ORIENTATIONS["axial"],
    spacing: Vector = (2.0, 1.5, 1.7),
    *,
    tilt_degrees: float = 0.0,
) -> Grid:
    """A grid that holds all markers."""
    shape = tuple(int(np.ceil(40 / step)) for step in spacing)
    return regular(
        (shape[0], shape[1], shape[2]),
        spacing,
        right=orientation[0],
        down=orientation[1],
        tilt_degrees=tilt_degrees,
    )


angle = st.floats(-3.1, 3.1)
orientations = st.one_of(
    st.sampled_from(sorted(NAMED_ORIENTATIONS)).map(NAMED_ORIENTATIONS.__getitem__),
    st.tuples(angle, angle, angle).map(turned),
)
steps = st.floats(1.5, 3.0)
grids = st.builds(grid, orientations, st.tuples(steps, steps, steps))


def moved(phantom_grid: Grid, offsets: Sequence[Vector] | np.ndarray) -> Phantom:
    """The exact phantom whose slices really lie elsewhere by these offsets, mm."""
    positions = phantom_grid.positions + np.asarray(offsets)
    return markers(
        Grid(
            positions=positions,
            right=phantom_grid.right,
            down=phantom_grid.down,
            pixel_spacing=phantom_grid.pixel_spacing,
            rows=phantom_grid.rows,
            columns=phantom_grid.columns,
        )
    )


def marker_error(volume: Volume, truth: Phantom) -> float:
    """The largest distance of a marker from its true place, in voxels of the finest axis.

    A Gaussian's logarithm is a parabola, so a linear fit finds its centre without truncation error.
    """
    errors = [_centre_error(volume, np.asarray(place)) for place in truth.markers]
    return max(errors) / min(volume.spacing)


def _centre_error(volume: Volume, truth: np.ndarray) -> float:
    index = np.indices(volume.shape).reshape(3, -1).T
    points = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    values = np.asarray(volume.array, np.float64).reshape(-1)
    near = (np.linalg.norm(points - truth, axis=1) < 3 * MARKER_WIDTH_MM) & (values > 100)
    if near.sum() < 8:
        return float("inf")
    squares = (points[near] ** 2).sum(axis=1) / (2 * MARKER_WIDTH_MM**2)
    known = np.column_stack([points[near] / MARKER_WIDTH_MM**2, np.ones(near.sum())])
    found = np.linalg.lstsq(known, np.log(values[near]) + squares, rcond=None)[0][:3]
    return float(np.linalg.norm(found - truth))
