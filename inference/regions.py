"""A mask as the part of a grid that it fills, exactly: memory goes with what is found.

Masks of a hundred structures on the whole grid of an image would be a hundred images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Box = tuple[slice, ...]
SAME = 1e-5  # of a voxel, and of a length in the affine, mm


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The voxels of a mask in its bounding box; any number of axes.

    `shape`: of the grid; `begin`: index of the first voxel of the box; `mask`: the box, without a
    voxel when nothing is found.
    """

    shape: tuple[int, ...]
    begin: tuple[int, ...]
    mask: Mask

    @property
    def box(self) -> Box:
        """Where the mask is on the grid."""
        return tuple(
            slice(first, first + size)
            for first, size in zip(self.begin, self.mask.shape, strict=True)
        )

    def whole(self) -> Mask:
        """The mask on the whole grid."""
        mask = np.zeros(self.shape, np.bool_)
        mask[self.box] = self.mask
        return mask

    def plane(self, index: int, axis: int = 0) -> Mask:
        """One plane of the whole grid."""
        plane = np.zeros([size for place, size in enumerate(self.shape) if place != axis], np.bool_)
        box = self.box
        if box[axis].start <= index < box[axis].stop:
            within = tuple(part for place, part in enumerate(box) if place != axis)
            plane[within] = self.mask.take(index - box[axis].start, axis=axis)
        return plane

    def overlaps(self, other: "Region") -> bool:
        """Whether a voxel is in both; `other` is of the same grid."""
        common = tuple(
            slice(max(one.start, two.start), min(one.stop, two.stop))
            for one, two in zip(self.box, other.box, strict=True)
        )
        if any(part.start >= part.stop for part in common):
            return False
        return bool((_within(self, common) & _within(other, common)).any())

    def as_stack(self) -> "Region":
        """The same as the only plane of a stack."""
        return Region(shape=(1, *self.shape), begin=(0, *self.begin), mask=self.mask[None])

    def transposed(self) -> "Region":
        """The same with its axes in the reverse order."""
        return Region(
            shape=self.shape[::-1],
            begin=self.begin[::-1],
            mask=np.ascontiguousarray(self.mask.transpose()),
        )

    def reaches_the_ends(self) -> bool:
        """Whether the first or the last plane of the first axis holds a voxel."""
        return bool(self.mask.size) and (
            self.begin[0] == 0 or self.begin[0] + len(self.mask) == self.shape[0]
        )

    def in_patient(self, grid: hd.Volume) -> hd.Volume:
        """A mask that is not empty as a volume, the part of `grid` that it fills."""
        return grid[self.box].with_array(self.mask)  # type: ignore[index]  # (stub: of one axis)


def _within(region: Region, box: Box) -> Mask:
    """The part of a mask in a box of the grid that lies inside its own."""
    return region.mask[
        tuple(
            slice(part.start - first, part.stop - first)
            for part, first in zip(box, region.begin, strict=True)
        )
    ]


def of_mask(mask: Mask) -> Region:
    """The region of a mask; it keeps nothing of the rest alive."""
    return _trimmed(mask, shape=mask.shape, begin=(0,) * mask.ndim)


def of_labels(labels: NDArray[Any], values: Sequence[int]) -> Iterator[Region | None]:
    """For each of the values (from 0) where a label map has it, None where it has not."""
    boxes = ndimage.find_objects(labels)
    for value in values:
        if value == 0:  # what find_objects leaves out
            region = of_mask(labels == 0)
            yield region if region.mask.size else None
            continue
        box = boxes[value - 1] if value <= len(boxes) else None
        yield None if box is None else _region(labels[box] == value, labels.shape, box)


def on_grid(mask: hd.Volume, grid: hd.Volume | hd.VolumeGeometry) -> Region:
    """Where a mask is on a grid: flips, permutations and crops undone.

    What is not zero is inside. Raises RuntimeError or ValueError when it lies on another grid.
    """
    begin = _begin(mask, grid)
    if begin is None:
        mask, begin = mask.match_geometry(grid), (0, 0, 0)
    array = np.asarray(mask.array)
    inside = array if array.dtype == np.bool_ else array > 0
    return _trimmed(inside, shape=tuple(grid.spatial_shape), begin=begin)


def _begin(mask: hd.Volume, grid: hd.Volume | hd.VolumeGeometry) -> tuple[int, ...] | None:
    """The index in the grid of the first voxel of a part of it, None for anything else."""
    own, other = (np.asarray(one.affine, np.float64) for one in (mask, grid))
    if mask.coordinate_system != grid.coordinate_system:
        return None
    if not np.allclose(own[:3, :3], other[:3, :3], rtol=0, atol=SAME):
        return None
    exact = np.linalg.solve(other[:3, :3], own[:3, 3] - other[:3, 3])
    first = np.rint(exact)
    last = first + mask.spatial_shape
    if np.abs(exact - first).max() > SAME or (first < 0).any() or (last > grid.spatial_shape).any():
        return None
    return tuple(int(one) for one in first)


def _trimmed(mask: Mask, *, shape: tuple[int, ...], begin: tuple[int, ...]) -> Region:
    box = bounds(mask)
    inside = tuple(
        slice(first + part.start, first + part.stop) for first, part in zip(begin, box, strict=True)
    )
    return _region(mask[box], shape, inside)


def _region(mask: Mask, shape: tuple[int, ...], box: Box) -> Region:
    return Region(
        shape=tuple(shape),
        begin=tuple(int(part.start) for part in box),
        mask=mask if mask.base is None and mask.flags.c_contiguous else np.array(mask, order="C"),
    )


def bounds(mask: Mask) -> Box:
    """The smallest box around a mask; of no voxels when it is empty."""
    box: list[slice] = []
    for _ in range(mask.ndim):
        along = mask.reshape(len(mask), -1).any(axis=1) if len(mask) else np.zeros(0, np.bool_)
        found = np.flatnonzero(along)
        if not found.size:
            return (slice(0, 0),) * (len(box) + mask.ndim)
        box.append(slice(int(found[0]), int(found[-1]) + 1))
        mask = np.asarray(mask[box[-1]].any(axis=0))
    return tuple(box)
