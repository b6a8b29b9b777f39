"""From the image's grid to the network's and back, so that what comes back is on the exact grid.

Turning is a permutation and reversal of axes; resampling keeps the field of view, whose outer
edges (not the centres of the outer voxels) are the same on both grids. Nothing is rotated, and the
way back ends on the shape of the source by construction.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.arrays.rules import LETTERS
from inference.engine.resampling import Axes, Axis

Floats = NDArray[np.float64]
LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the network's grid lies in the source's.

    `order`: the source's axis of each axis of the network's; `reversed`: those that are turned
    round; `shape`: the source's, turned; `region`: what the network sees of it, (start, stop) an
    axis; `size`: voxels of the network's grid.
    """

    order: tuple[int, ...]
    reversed: tuple[bool, ...]
    shape: tuple[int, ...]
    region: tuple[tuple[int, int], ...]
    size: tuple[int, ...]

    @classmethod
    def whole(
        cls, shape: Sequence[int], *, affine: Floats | None = None, orientation: str = "source"
    ) -> Self:
        """All of an image, at its own spacing, turned."""
        turned = turn(affine, orientation, len(shape))
        order = tuple(axis for axis, _ in turned)
        seen = tuple(shape[axis] for axis in order)
        return cls(
            order=order,
            reversed=tuple(back for _, back in turned),
            shape=seen,
            region=tuple((0, count) for count in seen),
            size=seen,
        )

    def within(self, region: tuple[tuple[int, int], ...]) -> Self:
        """A box of it, in voxels of the turned source."""
        return replace(self, region=region, size=tuple(stop - start for start, stop in region))

    def resized(
        self, *, source_spacing: Sequence[float], spacing: Sequence[float], size: Sequence[int]
    ) -> Self:
        """With voxels of `spacing` mm, or `size` of them, or as it is when both are empty.

        `source_spacing`: of the source's own axes, mm.
        """
        if size:
            return replace(self, size=tuple(size))
        if not spacing:
            return self
        turned = [source_spacing[axis] for axis in self.order]
        wanted = zip(self.size, turned, spacing, strict=True)
        return replace(
            self, size=tuple(max(1, round(count * old / new)) for count, old, new in wanted)
        )

    def turned(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array on the source's grid with the network's axes; a view."""
        moved = array.transpose(self.order)
        return moved[tuple(slice(None, None, -1 if back else 1) for back in self.reversed)]

    def seen(self, array: NDArray[np.generic], interpolation: str) -> Tensor:
        """The source's values on the network's grid, float32, axes of the network."""
        part = self.turned(array)[tuple(slice(*ends) for ends in self.region)]
        return resampled(torch.from_numpy(np.array(part, np.float32)), self.size, interpolation)

    def back(self, values: Tensor, interpolation: str) -> NDArray[np.float32]:
        """Values of the network's grid on the source's, 0 outside of what the network saw."""
        part = resampled(
            values, tuple(stop - start for start, stop in self.region), interpolation
        ).numpy()
        whole = part
        if part.shape != self.shape:
            whole = np.zeros(self.shape, np.float32)
            whole[tuple(slice(*ends) for ends in self.region)] = part
        flipped = whole[tuple(slice(None, None, -1 if back else 1) for back in self.reversed)]
        return np.ascontiguousarray(flipped.transpose(np.argsort(self.order)))

    @property
    def resamples(self) -> bool:
        """Whether the network's voxels are other ones than the source's."""
        return any(stop - start != count for (start, stop), count in self._sizes())

    @property
    def axes(self) -> Axes:
        """The axes of what the network sees of the source; a plane is a stack of one."""
        lacking = 3 - len(self.order)
        one = Axis(source=0, flipped=False, count=1, length=1, step=1.0)
        found = [
            Axis(
                source=axis + lacking,
                flipped=back,
                count=stop - start,
                length=count,
                step=(stop - start) / count,
                edges=True,
            )
            for axis, back, ((start, stop), count) in zip(
                self.order, self.reversed, self._sizes(), strict=True
            )
        ]
        first, second, third = (*([one] * lacking), *found)
        return Axes(axes=(first, second, third))

    def embedded(self, labels: NDArray[np.generic], *, outside: int) -> NDArray[np.generic]:
        """Labels of what the network sees, on the source's grid; `outside` where it saw nothing.

        `labels`: three axes of the source, or a class and these; a plane loses its first axis.
        """
        places = dict(zip(self.order, self._in_source(), strict=True))
        shape = dict(zip(self.order, self.shape, strict=True))
        classes = labels.shape[:-3]
        axes = range(len(self.order))
        part = labels.reshape(*classes, *labels.shape[labels.ndim - len(self.order) :])
        whole = (*classes, *(shape[axis] for axis in axes))
        if part.shape == whole:
            return part
        found = np.full(whole, outside, labels.dtype)
        place: tuple[Any, ...] = (..., *(places[axis] for axis in axes))
        found[place] = part
        return found

    def _sizes(self) -> Iterator[tuple[tuple[int, int], int]]:
        return zip(self.region, self.size, strict=True)

    def _in_source(self) -> Iterator[slice]:
        """The region along the source's axis of each of the network's."""
        for (start, stop), count, back in zip(self.region, self.shape, self.reversed, strict=True):
            yield slice(count - stop, count - start) if back else slice(start, stop)

    def source_index(self, index: Sequence[float]) -> tuple[float, ...]:
        """A place in the network's grid as an index into the source, both between voxels too."""
        found = [0.0] * len(self.order)
        for place, axis in enumerate(self.order):
            start, stop = self.region[place]
            at = (index[place] + 0.5) * (stop - start) / self.size[place] - 0.5 + start
            found[axis] = self.shape[place] - 1 - at if self.reversed[place] else at
        return tuple(found)


def turn(affine: Floats | None, orientation: str, axes: int) -> tuple[tuple[int, bool], ...]:
    """For each axis of the network the source's axis and whether it runs the other way.

    `affine`: index to LPS mm. Of an oblique stack the assignment of axes whose cosines are largest.
    """
    if orientation == "source" or affine is None:
        return tuple((axis, False) for axis in range(axes))
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = _nearest(directions)
    found = []
    for letter in orientation:
        axis_of_patient, sign = LETTERS[letter]
        axis = nearest[axis_of_patient]
        found.append((axis, bool(math.copysign(1, directions[axis_of_patient, axis]) != sign)))
    return tuple(found)


def _nearest(directions: Floats) -> dict[int, int]:
    """Axis of the patient -> axis of the source, the clearest first."""
    weights = np.abs(directions)
    found: dict[int, int] = {}
    for _ in range(len(weights)):
        patient, source = np.unravel_index(int(weights.argmax()), weights.shape)
        found[int(patient)] = int(source)
        weights[patient, :] = -1
        weights[:, source] = -1
    return found


def resampled(values: Tensor, size: Sequence[int], interpolation: str) -> Tensor:
    """`values` on so many voxels of the same field of view; as they are when there are as many."""
    if tuple(values.shape) == tuple(size):
        return values
    if interpolation == "nearest":
        mode, corners = "nearest-exact", None
    elif interpolation == "area":
        mode, corners = "area", None
    else:
        mode, corners = LINEAR[values.ndim], False
    out: Tensor = functional.interpolate(
        values[None, None], tuple(size), mode=mode, align_corners=corners
    )
    return out[0, 0]
