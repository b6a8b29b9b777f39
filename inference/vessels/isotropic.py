"""A grid of cubic cells over an image: values there by linear interpolation, masks back exactly.

The cells fill the image's extent, so that a flipped image gives the flipped grid. Nothing is held
but what is asked for: planes are made one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.blocks import Densities, Shape, Spacing

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Isotropic:
    """Cells of nearly equal sides over an image; `spacing` mm, axes as the image's."""

    image: Shape
    image_spacing: Spacing
    shape: Shape

    @property
    def spacing(self) -> Spacing:
        """Sides of a cell, mm: within half a cell in the whole extent of what was asked."""
        sides = [
            size * step / cells
            for size, step, cells in zip(self.image, self.image_spacing, self.shape, strict=True)
        ]
        return (sides[0], sides[1], sides[2])


def isotropic(image: Shape, spacing: Spacing, *, cell_mm: float) -> Isotropic:
    """Cells of about `cell_mm` over an image, at least one along each axis."""
    counts = [
        max(1, round(size * step / cell_mm)) for size, step in zip(image, spacing, strict=True)
    ]
    return Isotropic(image=image, image_spacing=spacing, shape=(counts[0], counts[1], counts[2]))


def resampled(values: NDArray[np.generic], grid: Isotropic) -> NDArray[np.int16]:
    """The image's values at the cells' centres, rounded; axes (slice, row, column)."""
    found = np.empty(grid.shape, np.int16)
    for index, plane in enumerate(_planes(values, grid.shape)):
        found[index] = np.rint(plane)
    return found


def restored(mask: Mask, grid: Isotropic) -> Mask:
    """A mask of the cells on the image's own grid: where it is at least half."""
    found = np.empty(grid.image, np.bool_)
    for index, plane in enumerate(_planes(mask, grid.image)):
        found[index] = plane >= HALF
    return found


def _planes(values: NDArray[np.generic], shape: Shape) -> Iterator[Densities]:
    """Planes of `values` on a grid of `shape` over the same extent, one after the other."""
    lower, upper, weights = _neighbours(values.shape[0], shape[0])
    held: dict[int, Densities] = {}
    for low, high, weight in zip(lower.tolist(), upper.tolist(), weights.tolist(), strict=True):
        held = {
            place: held[place] if place in held else _plane(values[place], shape)
            for place in (low, high)
        }
        yield held[low] * np.float32(1 - weight) + held[high] * np.float32(weight)


def _plane(plane: NDArray[np.generic], shape: Shape) -> Densities:
    rows = _along(plane.astype(np.float32), shape[1])
    return _along(np.ascontiguousarray(rows.T), shape[2]).T


def _along(values: Densities, count: int) -> Densities:
    lower, upper, weights = _neighbours(len(values), count)
    share = weights.astype(np.float32)[:, None]
    found: Densities = values[lower] * (1 - share) + values[upper] * share
    return found


def _neighbours(size: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Of each of `count` centres over `size` samples: the samples beside it, the upper's weight."""
    places = np.clip((np.arange(count) + HALF) * size / count - HALF, 0, size - 1)
    lower = np.floor(places).astype(np.intp)
    return lower, np.minimum(lower + 1, size - 1), places - lower
