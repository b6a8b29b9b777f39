"""A picture of an image with its segments that a person can judge at a glance.

Evenly spaced slices, then one coronal and one sagittal plane.

Functions take arrays and give arrays; whoever calls writes the file.
"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference import regions
from inference.findings import Segment

LUNG_WINDOW = (-600.0, 1500.0)
"""Centre and width in HU."""

RGB = NDArray[np.uint8]


def windowed(values: NDArray[np.generic], *, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Grey values 0..255 of `values` under a linear window (PS3.3 C.11.2.1.2), any shape."""
    centre, width = window
    scaled = (values.astype(np.float32) - (centre - width / 2)) / width
    grey: NDArray[np.uint8] = (np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)
    return grey


def _outlined(grey: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_], RGB]]) -> RGB:
    """One plane (rows, columns) in RGB: each mask tinted, its outline in full colour."""
    plane = np.repeat(grey[..., None], 3, axis=-1)
    for mask, colour in masks:
        edge = mask & ~ndimage.binary_erosion(mask)
        plane[mask] = (plane[mask] * 0.7 + colour * 0.3).astype(np.uint8)
        plane[edge] = colour
    return plane


def _fitted(plane: RGB, *, millimetres: tuple[float, float], tile: int) -> RGB:
    """`plane` with square pixels, centred in a black `tile` x `tile` square."""
    extent = (plane.shape[0] * millimetres[0], plane.shape[1] * millimetres[1])
    scale = tile / max(extent)
    size = [max(1, min(tile, round(e * scale))) for e in extent]
    rows = np.linspace(0, plane.shape[0] - 1, size[0]).round().astype(int)
    columns = np.linspace(0, plane.shape[1] - 1, size[1]).round().astype(int)
    square = np.zeros((tile, tile, 3), np.uint8)
    top, left = (tile - size[0]) // 2, (tile - size[1]) // 2
    square[top : top + size[0], left : left + size[1]] = plane[np.ix_(rows, columns)]
    return square


def montage(
    volume: hd.Volume,
    segments: Sequence[Segment],
    *,
    window: tuple[float, float] = LUNG_WINDOW,
    columns: int = 4,
    rows: int = 3,
    tile: int = 320,
) -> RGB:
    """Slices from first to last, then the middle coronal and sagittal plane with the head up.

    Args:
        volume: axes (slice, row, column), patient coordinates.
        segments: drawn in the colour of their definition; masks on the grid of `volume` or
            crops of it.
        window: centre and width in the unit of the volume.

    Returns:
        Array (rows * tile, columns * tile, 3), RGB.
    """
    up = volume.to_patient_orientation("FPL")  # slices towards the feet, rows back, columns left
    found = [
        (
            regions.on_grid(seg.mask.to_patient_orientation("FPL"), up),
            np.array(seg.definition.colour, np.uint8),
        )
        for seg in segments
    ]
    grey = windowed(up.array, window=window)
    dz, dy, dx = up.spacing
    axial = [(k, 0, (dy, dx)) for k in _spread(grey.shape[0], columns * rows - 2)]
    coronal = (grey.shape[1] // 2, 1, (dz, dx))
    sagittal = (grey.shape[2] // 2, 2, (dz, dy))
    tiles = [
        _fitted(
            _outlined(
                grey.take(index, axis=axis),
                [(region.plane(index, axis), colour) for region, colour in found],
            ),
            millimetres=millimetres,
            tile=tile,
        )
        for index, axis, millimetres in [*axial, coronal, sagittal]
    ]
    return np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` slice indices, evenly from the first to the last."""
    inner = np.linspace(0, count - 1, wanted + 2)[1:-1]
    return [int(k) for k in inner.round()]
