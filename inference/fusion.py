"""Several series of a study become one image: each on the grid of the first, or it is refused.

Only the scanner's own frame of reference relates two series (PS3.3 C.7.4.1); nothing is registered.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.attributes import text
from inference.errors import InputRefused
from inference.volume import Stack

LEAST_COVERED = 0.8  # of the first series' voxels that another must show


def fused(first: Stack, others: Mapping[str, Stack], *, role: str) -> Stack:
    """`first`, in its `role`, with the other series by theirs, all on the grid of the first.

    Linear interpolation in float32; beyond the outer edges of another series' voxels its smallest
    value. Raises InputRefused when one has no or another frame of reference, names another patient,
    or shows too little of the first.
    """
    volumes = {role: first.image.volume}
    notes = list(first.notes)
    for name, other in others.items():
        array, covered = resampled(other, first, role=name)
        volumes[name] = first.image.volume.with_array(array)
        if covered < 1:
            notes.append(f"{name} shows {covered:.0%} of what {role} does; the rest is background")
    image = replace(first.image, roles=volumes)
    return replace(first, image=image, notes=tuple(notes))


def resampled(other: Stack, first: Stack, *, role: str) -> tuple[NDArray[np.float32], float]:
    """The voxels of another series on the grid of the first, and the share of them it shows."""
    _refuse_strange(other, first, role=role)
    source, target = other.image.volume, first.image.volume
    array = np.asarray(source.array, dtype=np.float32)
    if source.geometry_equal(target):
        return array, 1.0
    index = np.linalg.inv(source.affine) @ target.affine
    covered = _covered(index, target.spatial_shape, source.spatial_shape)
    if covered < LEAST_COVERED:
        raise InputRefused(f"{role} shows only {covered:.0%} of what the first series does")
    found: NDArray[np.float32] = ndimage.affine_transform(
        array,
        index[:3, :3],
        offset=index[:3, 3],
        output_shape=target.spatial_shape,
        order=1,
        mode="nearest",
    )
    if covered < 1:
        inside = ndimage.affine_transform(
            np.ones(source.spatial_shape, np.uint8),
            index[:3, :3],
            offset=index[:3, 3],
            output_shape=target.spatial_shape,
            order=0,
            mode="grid-constant",
        )
        found[inside == 0] = array.min()
    return found, covered


def _refuse_strange(other: Stack, first: Stack, *, role: str) -> None:
    if text(other.headers[0], "PatientID") != text(first.headers[0], "PatientID"):
        raise InputRefused(f"{role} names another patient than the first series")
    mine, theirs = _frame_of_reference(first), _frame_of_reference(other)
    if not mine or not theirs:
        raise InputRefused(f"{role} cannot be placed on the first series: no frame of reference")
    if mine != theirs:
        raise InputRefused(f"{role} lies in another frame of reference than the first series")


def _frame_of_reference(stack: Stack) -> str:
    return str(stack.image.volume.frame_of_reference_uid or "")


def _covered(index: NDArray[np.float64], target: tuple[int, ...], source: tuple[int, ...]) -> float:
    """The share of the target's voxel centres that lie inside the source, half a voxel around."""
    inside = 0
    rows, columns = np.meshgrid(np.arange(target[1]), np.arange(target[2]), indexing="ij")
    limits = np.asarray(source, dtype=np.float64) - 0.5
    for number in range(target[0]):
        places = [
            axis[0] * number + axis[1] * rows + axis[2] * columns + axis[3] for axis in index[:3]
        ]
        shown = [
            (place >= -0.5) & (place <= limit) for place, limit in zip(places, limits, strict=True)
        ]
        inside += int(np.count_nonzero(shown[0] & shown[1] & shown[2]))
    return inside / float(np.prod(target))
