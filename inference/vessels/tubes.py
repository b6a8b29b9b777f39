"""How much a place looks like the inside of a bright tube: Sato's line filter over several scales.

The Hessian matrices and their eigenvalues are scikit-image's; the response is that of its `sato`,
bit for bit, but only where it is asked for and slab by slab, so that memory is bounded.

Sato et al. Med Image Anal 1998;2:143-168.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import hessian_matrix, hessian_matrix_eigvals

from inference.blocks import Densities

Mask = NDArray[np.bool_]
SLAB = 32
TRUNCATE = 8  # standard deviations at which scikit-image cuts a kernel, for sigma above 1


def reach(sigma: float) -> int:
    """How many cells away a value still counts: two Gaussians of sigma / sqrt(2), one by one."""
    return 2 * int(TRUNCATE * sigma / np.sqrt(2) + 0.5)


def line_filter(
    values: NDArray[np.generic], where: Mask, sigmas: Sequence[float], *, slab: int = SLAB
) -> Densities:
    """The largest response over the scales, in the unit of `values`, at the places of `where`.

    Args:
        values: axes (slice, row, column), cubic cells.
        where: same shape.
        sigmas: in cells, each above 1.
        slab: slices at a time; the response does not depend on it.

    Returns:
        One dimension, in the order of `values[where]`; 0 where nothing is like a bright tube.
    """
    parts = [
        _responses(values, part, box, sigmas) for part, box in _slabs(where, slab) if part.any()
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _slabs(where: Mask, slab: int) -> Iterator[tuple[Mask, slice]]:
    for start in range(0, len(where), slab):
        box = slice(start, min(start + slab, len(where)))
        yield where[box], box


def _responses(
    values: NDArray[np.generic], where: Mask, box: slice, sigmas: Sequence[float]
) -> Densities:
    margin = max(reach(sigma) for sigma in sigmas)
    rows, columns = _extent(where, axis=1), _extent(where, axis=2)
    boxes = (box, rows, columns)
    wide = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in boxes)
    inner = tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(boxes, wide, strict=True)
    )
    dark = -values[wide].astype(np.float32)
    asked = where[:, rows, columns]
    best = np.zeros(int(np.count_nonzero(asked)), np.float32)
    for sigma in sigmas:
        np.maximum(best, _response(dark, inner, asked, sigma), out=best)
    return best


def _extent(where: Mask, *, axis: int) -> slice:
    """From the first to the last place along an axis; there is one."""
    others = tuple(other for other in range(where.ndim) if other != axis)
    present = np.flatnonzero(where.any(axis=others))
    return slice(int(present[0]), int(present[-1]) + 1)


def _response(dark: Densities, inner: tuple[slice, ...], asked: Mask, sigma: float) -> Densities:
    hessian: Any = hessian_matrix
    eigenvalues_of: Any = hessian_matrix_eigvals
    elements = hessian(dark, sigma, mode="reflect", use_gaussian_derivatives=True)
    chosen = np.stack([element[inner][asked] for element in elements])
    eigenvalues = eigenvalues_of(chosen.reshape(len(elements), -1, 1, 1))
    across = np.maximum(eigenvalues[:2].reshape(2, -1), 0)
    response: Densities = sigma**2 * np.prod(across, axis=0) ** (1 / 2)
    return response.astype(np.float32, copy=False)
