"""Which of the air inside the body is the right lung, which the left, and which is no lung.

Labels: 0 nothing, 1 right lung, 2 left lung. Columns run towards the patient's left.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from inference.blocks import Densities, Spacing
from inference.lungs.morphology import Mask, bounding_box, within

Labels = NDArray[np.uint8]
RIGHT, LEFT = 1, 2

GAS_HU = -940
PURE_GAS_HU = -955  # a blob's median; even destroyed lung keeps vessels and septa
SMALLEST_GAS_MM3 = 2_000.0
LARGEST_GAS_MM3 = 1_000_000.0
RIM_MM = 4.0  # cells at a blob's edge that are partly wall
SHELL_MM = 4.0
SOFT_SHELL = 0.65  # soft tissue's share of a bowel blob's shell, other gas left out
SOFT_HU = -300
LIKE_LUNG_HU = (-930, -600)
SMALLEST_PIECE_MM3 = 10_000.0
SMALLEST_SHARE = 0.02  # of all lung
SMALLEST_LUNG_MM3 = 50_000.0
LUNG_HU = (-975.0, -400.0)  # the mean of a lung
ASTRIDE = 0.15  # a piece with more than this share on either side of the midline is two lungs
SMALLEST_HALF = 0.1  # of a piece that is two lungs


def without_gas(hu: Densities, air: Mask, spacing: Spacing) -> Mask:
    """The air without blobs of pure gas whose shell is soft tissue: bowel, stomach, trachea."""
    labels, count = ndimage.label(air & (hu < GAS_HU))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing))
    sizes[0] = 0
    boxes = ndimage.find_objects(labels)
    margin = [int((RIM_MM + SHELL_MM) / step) + 1 for step in spacing]
    lung = air.copy()
    for label in np.flatnonzero((sizes > SMALLEST_GAS_MM3) & (sizes < LARGEST_GAS_MM3)):
        box = tuple(
            slice(max(0, part.start - extra), part.stop + extra)
            for part, extra in zip(boxes[label - 1], margin, strict=True)
        )
        blob = labels[box] == label
        if _is_bowel(hu[box], blob, spacing):
            rim = max(1, round(RIM_MM / max(spacing[1:])))
            lung[box] &= ~ndimage.binary_dilation(blob, iterations=rim, mask=air[box])
    return lung


def _is_bowel(hu: Densities, blob: Mask, spacing: Spacing) -> bool:
    rim = within(blob, RIM_MM, spacing)
    shell = hu[within(rim, SHELL_MM, spacing) & ~rim]
    soft = int((shell > SOFT_HU).sum())
    lung = int(((shell > LIKE_LUNG_HU[0]) & (shell < LIKE_LUNG_HU[1])).sum())
    pure = float(np.median(hu[blob])) < PURE_GAS_HU
    return pure and soft > SOFT_SHELL * (soft + lung)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    mask: Mask
    box: tuple[slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Right and left lung; `astride`: a piece of it lies on both sides of the midline."""

    labels: Labels
    astride: bool


def sides(hu: Densities, air: Mask, midline: float, spacing: Spacing) -> Sides:
    """Right and left lung; a side without at least SMALLEST_LUNG_MM3 of lung stays empty."""
    labels = np.zeros(air.shape, np.uint8)
    astride = False
    for piece in _pieces(hu, air, spacing):
        left = _left_share(piece, midline)
        halves = _split(piece, midline, spacing) if min(left, 1 - left) > ASTRIDE else None
        whole = np.full(piece.mask.shape, LEFT if left > 0.5 else RIGHT, np.uint8)
        labels[piece.box][piece.mask] = (whole if halves is None else halves)[piece.mask]
        astride |= min(left, 1 - left) > ASTRIDE
    for side in (RIGHT, LEFT):
        if float((labels == side).sum()) * float(np.prod(spacing)) < SMALLEST_LUNG_MM3:
            labels[labels == side] = 0
    return Sides(labels=labels, astride=astride)


def _pieces(hu: Densities, air: Mask, spacing: Spacing) -> list[_Piece]:
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing))
    sizes[0] = 0
    smallest = max(SMALLEST_PIECE_MM3, SMALLEST_SHARE * float(sizes.sum()))
    boxes = ndimage.find_objects(labels)
    means = ndimage.mean(hu, labels, np.arange(count + 1))
    return [
        _Piece(mask=labels[boxes[label - 1]] == label, box=boxes[label - 1])
        for label in np.flatnonzero(sizes >= smallest)
        if LUNG_HU[0] < means[label] < LUNG_HU[1]
    ]


def _left_share(piece: _Piece, midline: float) -> float:
    columns = np.arange(piece.box[2].start, piece.box[2].stop)
    weights = piece.mask.sum(axis=(0, 1))
    return float(weights[columns > midline].sum()) / float(weights.sum())


def _split(piece: _Piece, midline: float, spacing: Spacing) -> Labels | None:
    """Two lungs that touch: eroded until they part, then flooded back from the two cores.

    None when they never part: then it is one lung, wherever it lies.
    """
    depth = ndimage.distance_transform_edt(np.pad(piece.mask, 1), sampling=spacing)[
        1:-1, 1:-1, 1:-1
    ].astype(np.float32)
    middle = midline - piece.box[2].start
    step = max(spacing)
    for level in np.arange(step / 2, 12 * step, step):
        cores = _cores(depth > level, middle, float(piece.mask.sum()))
        if cores is not None:
            return flooded(-depth, cores, piece.mask)
    return None


def flooded(relief: Densities, cores: Labels, mask: Mask) -> Labels:
    """The watershed of `relief` from labelled cores inside the mask."""
    labels: Labels = watershed(relief, cores, mask=mask).astype(np.uint8)  # type: ignore[no-untyped-call]
    return labels


def _cores(eroded: Mask, middle: float, whole: float) -> Labels | None:
    labels, count = ndimage.label(eroded)
    if count < 2:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = np.argsort(-sizes, kind="stable")[:2]
    centres = [float(np.nonzero(labels == label)[2].mean()) for label in large]
    if sizes[large[1]] < SMALLEST_HALF * whole or not min(centres) < middle < max(centres):
        return None
    cores = np.zeros(labels.shape, np.uint8)
    for label, centre in zip(large, centres, strict=True):
        cores[labels == label] = LEFT if centre > middle else RIGHT
    return cores


CLOSING_MM = 6.0
TWO_PLANES = 2


def smoothed(labels: Labels, forbidden: Mask, spacing: Spacing) -> Labels:
    """Each lung closed by a ball of CLOSING_MM, vessels and nodules filled in.

    `forbidden`: the airway, the outside of the body. A lung never takes what the other has.
    """
    closed = np.zeros_like(labels)
    for side, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
        mask = labels == side
        if mask.any():
            closed[_filled(mask, spacing) & ~forbidden & (labels != other) & (closed == 0)] = side
    return closed


def _filled(mask: Mask, spacing: Spacing) -> Mask:
    margin = [int(CLOSING_MM / step) + 2 for step in spacing]
    box = bounding_box(mask, (margin[0], margin[1], margin[2]))
    whole = np.zeros_like(mask)
    whole[box] = _holes(_closed(mask[box], spacing))
    return whole


def _closed(mask: Mask, spacing: Spacing) -> Mask:
    reach = int(CLOSING_MM / spacing[0]) + 1
    tall = np.pad(mask, [(reach, reach), (0, 0), (0, 0)], mode="edge")
    near = within(tall, CLOSING_MM, spacing)
    closed: Mask = ndimage.distance_transform_edt(near, sampling=spacing) > CLOSING_MM
    return (closed | tall)[reach:-reach]


def _holes(mask: Mask) -> Mask:
    """Filled where at least two of the three planes call it a hole.

    The diaphragm's dome is a hole in one plane only.
    """
    votes = np.zeros(mask.shape, np.uint8)
    for axis in range(3):
        planes, counts = np.moveaxis(mask, axis, 0), np.moveaxis(votes, axis, 0)
        for level, plane in enumerate(planes):
            counts[level] += ndimage.binary_fill_holes(plane)
    return mask | (votes >= TWO_PLANES)
