"""Lung that the field of view cuts at its sides: there the body encloses no air, so none is found.

A cardiac reconstruction shows the middle of both lungs; what is left of them looks like two small
lungs. Such lung lies open to the edge of the image or of the scanner's circle, and nearly all else
around it is body. Air beside the patient and a table's foam are not so enclosed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Densities, Spacing
from inference.lungs.body import AIR_HU
from inference.lungs.morphology import Mask

NOT_MEASURED_HU = -1020  # padding is -1024 HU
OPEN_LUNG_HU = (-900.0, -400.0)  # the mean of an open section; foam and air are lighter
SMALLEST_SECTION_MM2 = 300.0
ENCLOSED = 0.75  # the body's share of what lies around an open section, inside the field
AROUND_CELLS = 2


def open_lung(hu: Densities, inside: Mask, spacing: Spacing) -> float:
    """mm3 of lung that lies open to the edge of the field of view."""
    area = sum(_open_cells(level, body, spacing) for level, body in zip(hu, inside, strict=True))
    return area * float(np.prod(spacing))


def _open_cells(level: Densities, body: Mask, spacing: Spacing) -> int:
    field = level > NOT_MEASURED_HU
    labels, count = ndimage.label(field & ~body & (level < AIR_HU))
    cells = np.bincount(labels.ravel(), minlength=count + 1)
    edge = _edge(field)
    large = np.flatnonzero(cells * spacing[1] * spacing[2] >= SMALLEST_SECTION_MM2)
    return sum(
        int(cells[label])
        for label in large
        if label and _is_open_lung(level, labels == label, body, field=field, edge=edge)
    )


def _edge(field: Mask) -> Mask:
    """The outermost cells of the field."""
    outside = np.pad(~field, 1, constant_values=True)
    edge: NDArray[np.bool_] = ndimage.binary_dilation(outside)[1:-1, 1:-1] & field
    return edge


def _is_open_lung(level: Densities, section: Mask, body: Mask, *, field: Mask, edge: Mask) -> bool:
    low, high = OPEN_LUNG_HU
    if not (section & edge).any() or not low < float(level[section].mean()) < high:
        return False
    around = ndimage.binary_dilation(section, iterations=AROUND_CELLS) & field
    around &= ~ndimage.binary_dilation(section)
    return bool(around.any()) and float(body[around].mean()) > ENCLOSED
