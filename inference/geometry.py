"""A stack is regular, to a tenth of a voxel at every corner of every slice, or refused by name.

Slices are sorted by Image Position (Patient) along the normal of Image Orientation (Patient)
(PS3.3 C.7.6.2.1.1); Slice Location, Instance Number and Spacing Between Slices are never used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from inference.errors import InputRefused
from inference.frames import Frame

Floats = NDArray[np.float64]

TOLERANCE_VOXELS = 0.1  # how far a slice's corner may lie from where the affine puts it
SAME_PLACE_MM = 0.05  # nearer than this along the normal, two images are at one place
NAMED = 4  # how many offending slices a refusal names


class Irregular(InputRefused):
    """The images do not form one regular stack; another choice among them may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """Slices of equal size, sorted along their common normal."""

    frames: tuple[Frame, ...]
    axes: Floats  # (3, 3): rows are normal, down (increasing row), right (increasing column)
    along: Floats  # (n,) mm along the normal

    @classmethod
    def sort(cls, frames: Sequence[Frame]) -> Self:
        """The frames by position along the normal of their mean orientation."""
        axes = _axes(np.array([frame.orientation for frame in frames]))
        along = np.array([frame.position for frame in frames]) @ axes[0]
        order = np.argsort(along, kind="stable")
        ordered = tuple(frames[index] for index in order)
        return cls(frames=ordered, axes=axes, along=along[order])

    def name(self, index: int) -> str:
        """A slice as a refusal calls it, with its place along the normal."""
        return f"{self.frames[index].name} at {self.along[index]:.1f} mm"


def _axes(orientations: Floats) -> Floats:
    """Exactly orthonormal axes nearest to the mean orientation (normal, down, right)."""
    right, down = orientations.mean(axis=0).reshape(2, 3)
    u, _, v = np.linalg.svd(np.array([right, down]), full_matrices=False)
    right, down = u @ v
    return np.array([np.cross(right, down), down, right])


def same_place(planes: Planes) -> tuple[tuple[int, ...], ...]:
    """Indices of the slices that share a place with others, group by group."""
    breaks = np.flatnonzero(np.diff(planes.along) >= SAME_PLACE_MM) + 1
    groups = np.split(np.arange(len(planes.along)), breaks)
    return tuple(tuple(map(int, group)) for group in groups if len(group) > 1)


def affine(planes: Planes) -> Floats:
    """Index (slice, row, column) to LPS mm, exactly orthogonal; raises Irregular with the reason.

    Every corner of every slice lies within TOLERANCE_VOXELS of its true place.
    """
    if len(planes.frames) < 2:
        raise Irregular("a single slice has no spacing: at least two are needed")
    fitted = _fit(planes)
    deviation = _corner_deviations(planes, fitted)
    if deviation.max() > TOLERANCE_VOXELS:
        raise Irregular(_diagnosis(planes, deviation))
    return fitted


def _fit(planes: Planes) -> Floats:
    count = len(planes.along)
    index = np.arange(count) - (count - 1) / 2
    spacing = float(index @ planes.along / (index @ index))
    positions = np.array([frame.position for frame in planes.frames])
    sideways = positions @ planes.axes[1:].T
    middle = (sideways.min(axis=0) + sideways.max(axis=0)) / 2
    first = planes.along.mean() - spacing * (count - 1) / 2
    between_rows, between_columns = planes.frames[0].pixel_spacing
    fitted = np.eye(4)
    fitted[:3, 0] = planes.axes[0] * spacing
    fitted[:3, 1] = planes.axes[1] * between_rows
    fitted[:3, 2] = planes.axes[2] * between_columns
    fitted[:3, 3] = np.array([first, *middle]) @ planes.axes
    return fitted


def _corner_deviations(planes: Planes, fitted: Floats) -> Floats:
    """How far, in voxels along (slice, row, column), each slice's worst corner lies off; (n, 3)."""
    if abs(np.linalg.det(fitted[:3, :3])) < 1e-12:
        return np.full((len(planes.frames), 3), np.inf)
    true = np.stack([_corners(frame) for frame in planes.frames])
    inverse = np.linalg.inv(fitted)
    indices = true @ inverse[:3, :3].T + inverse[:3, 3]
    first = planes.frames[0]
    wanted = np.array([[0, row, column] for row, column in _corner_indices(first)], np.float64)
    number = np.arange(len(planes.frames), dtype=np.float64)
    grid = wanted[None] + number[:, None, None] * np.array([1.0, 0.0, 0.0])
    deviations: Floats = np.abs(indices - grid).max(axis=1)
    return deviations


def _corner_indices(frame: Frame) -> tuple[tuple[int, int], ...]:
    bottom, last = frame.rows - 1, frame.columns - 1
    return ((0, 0), (0, last), (bottom, 0), (bottom, last))


def _corners(frame: Frame) -> Floats:
    right, down = np.asarray(frame.orientation).reshape(2, 3)
    between_rows, between_columns = frame.pixel_spacing
    return np.array(
        [
            frame.position + down * between_rows * row + right * between_columns * column
            for row, column in _corner_indices(frame)
        ]
    )


def _diagnosis(planes: Planes, deviation: Floats) -> str:
    steps = np.diff(planes.along)
    if same_place(planes):
        return several_at_one_place(planes)
    if np.ptp(steps) > TOLERANCE_VOXELS * np.median(steps):
        return _missing(planes, steps) or _uneven(planes, steps)
    return _tilted(planes) or _shifted(planes, deviation)


def several_at_one_place(planes: Planes) -> str:
    """The refusal of images that share a place and are not copies of each other."""
    shared = same_place(planes)
    places = [_listed(planes, group) for group in shared]
    hold = "1 place holds" if len(places) == 1 else f"{len(places)} places hold"
    return f"{hold} different images: {_first(places)}"


def _listed(planes: Planes, group: Sequence[int]) -> str:
    names = " and ".join(planes.frames[index].name for index in group[:NAMED])
    return f"{names} at {planes.along[group[0]]:.1f} mm"


def _first(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _missing(planes: Planes, steps: Floats) -> str | None:
    """Gaps that are whole multiples of the common step; None when the steps are otherwise odd."""
    usual = float(np.median(steps))
    multiples = np.rint(steps / usual)
    if np.abs(steps / usual - multiples).max() > TOLERANCE_VOXELS or multiples.max() < 2:
        return None
    gaps = [int(gap) for gap in np.flatnonzero(multiples > 1)]
    total = int((multiples[gaps] - 1).sum())
    named = [
        f"{steps[gap]:.2f} mm between {planes.name(gap)} and {planes.name(gap + 1)}" for gap in gaps
    ]
    slices = "1 slice is" if total == 1 else f"{total} slices are"
    return f"{slices} missing: {_first(named)}, where the others lie {usual:.2f} mm apart"


def _uneven(planes: Planes, steps: Floats) -> str:
    low, high = int(steps.argmin()), int(steps.argmax())
    return (
        f"unevenly spaced slices: {steps[low]:.2f} mm between {planes.name(low)} and "
        f"{planes.name(low + 1)}, {steps[high]:.2f} mm between {planes.name(high)} and "
        f"{planes.name(high + 1)}"
    )


def _tilted(planes: Planes) -> str | None:
    """A sideways drift that is even from slice to slice, as a tilted gantry makes it."""
    positions = np.array([frame.position for frame in planes.frames])
    sideways = positions @ planes.axes[1:].T
    drift = sideways[-1] - sideways[0]
    part = (planes.along - planes.along[0]) / (planes.along[-1] - planes.along[0])
    rest = np.abs(sideways - sideways[0] - part[:, None] * drift).max()
    shift = float(np.linalg.norm(drift))
    if shift <= TOLERANCE_VOXELS * min(planes.frames[0].pixel_spacing) or rest > shift / 4:
        return None
    angle = np.rad2deg(np.arctan2(shift, planes.along[-1] - planes.along[0]))
    return (
        f"tilted by {angle:.2f} degrees: the slices are shifted sideways by {shift:.1f} mm from "
        f"{planes.name(0)} to {planes.name(len(planes.frames) - 1)}"
    )


def _shifted(planes: Planes, deviation: Floats) -> str:
    worst = int(deviation.max(axis=1).argmax())
    pixels = float(deviation[worst].max())
    return f"shifted or turned slices: {planes.name(worst)} lies {pixels:.2f} voxels off the stack"
