"""Every slice of a stack is named by its source instance and lies exactly where that one lies.

Positions are the source's own; one orientation, one pixel spacing and a recomputed distance
between slices hold for all. A stack whose affine and sources disagree is refused: its masks would
be misplaced.
"""

from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from inference import regions
from inference.encoding import Reference
from inference.encoding.source_headers import number, numbers, quiet, reference
from inference.errors import EncodingError
from inference.findings import Segment
from inference.frames import Source
from inference.regions import Region
from inference.volume import Stack

Floats = NDArray[np.float64]
ORIENTATION_TOLERANCE = 2e-3  # of a direction cosine: 0.1 degree
POSITION_TOLERANCE = 0.25  # of the distance between slices, and of a pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One slice: its source instance, frame (from 1) and the centre of its first pixel, LPS mm."""

    reference: Reference
    frame: int | None
    position: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """The slices of a stack in its order, on the source's grid.

    `orientation`: direction cosines of increasing column, then row index (PS3.3 C.7.6.2.1.1);
    `pixel_spacing`: between rows, between columns; `distance`: between slices; `thickness`; all mm.
    """

    planes: tuple[Plane, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    distance: float
    thickness: float
    rows: int
    columns: int
    number_of_frames: int | None  # of the multi-frame source instance

    def point(self, plane: int, row: float, column: float) -> Floats:
        """Patient coordinates, mm, of a place in a slice; pixel centres are whole numbers."""
        right, down = np.reshape(self.orientation, (2, 3))
        place: Floats = (
            np.asarray(self.planes[plane].position)
            + down * (row * self.pixel_spacing[0])
            + right * (column * self.pixel_spacing[1])
        )
        return place


def of_stack(stack: Stack) -> Planes:
    """The planes of a stack. Raises EncodingError when its affine and its sources disagree."""
    with quiet():
        planes = _of_stack(stack)
    _agree(planes, np.asarray(stack.image.volume.affine, dtype=np.float64))
    return planes


def on_grid(segment: Segment, volume: hd.Volume) -> Region:
    """Where the mask is in the axes of the volume: flips, permutations and crops undone.

    Raises EncodingError when it lies on another grid.
    """
    mask, name = segment.mask, segment.definition.label
    if mask.number_of_channel_dimensions:
        raise EncodingError(f"segment {name!r} has channels; a mask has none")
    try:
        return regions.on_grid(mask, volume)
    except (RuntimeError, ValueError) as error:
        raise EncodingError(f"segment {name!r} is not on the grid of the image") from error


def _of_stack(stack: Stack) -> Planes:
    count, rows, columns = stack.image.volume.spatial_shape
    if len(stack.sources) != count:
        raise EncodingError(f"{count} slices, but {len(stack.sources)} sources")
    first = stack.sources[0]
    geometry = _attributes(first)
    distance = float(stack.image.volume.spacing[0])
    thickness = number(geometry, "SliceThickness") or 0.0
    return Planes(
        planes=tuple(_plane(source) for source in stack.sources),
        orientation=_exactly(geometry, "ImageOrientationPatient", 6),
        pixel_spacing=_pair(_exactly(geometry, "PixelSpacing", 2)),
        distance=distance,
        thickness=thickness if thickness > 0 else distance,
        rows=rows,
        columns=columns,
        number_of_frames=None if first.frame_number is None else int(first.dataset.NumberOfFrames),
    )


def _plane(source: Source) -> Plane:
    x, y, z = _exactly(_attributes(source), "ImagePositionPatient", 3)
    return Plane(reference=reference(source.dataset), frame=source.frame_number, position=(x, y, z))


_MACROS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


def _attributes(source: Source) -> Dataset:
    """The plane attributes of an instance, or of its frame (PS3.3 C.7.6.16.2)."""
    if source.frame_number is None:
        return source.dataset
    shared = source.dataset.SharedFunctionalGroupsSequence[0]
    own = source.dataset.PerFrameFunctionalGroupsSequence[source.frame_number - 1]
    merged = Dataset()
    for macro in _MACROS:
        for item in (*shared.get(macro, ())[:1], *own.get(macro, ())[:1]):
            merged.update(item)
    return merged


def _exactly(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    values = numbers(dataset, keyword)
    if len(values) != count:
        raise EncodingError(f"{keyword} of the source has {len(values)} values, not {count}")
    return values


def _pair(values: tuple[float, ...]) -> tuple[float, float]:
    return values[0], values[1]


def _agree(planes: Planes, affine: Floats) -> None:
    right, down = np.reshape(planes.orientation, (2, 3))
    expected = np.stack([down * planes.pixel_spacing[0], right * planes.pixel_spacing[1]], axis=1)
    scale = np.asarray(planes.pixel_spacing)
    if np.abs((affine[:3, 1:3] - expected) / scale).max() > ORIENTATION_TOLERANCE:
        raise EncodingError("the rows and columns of the volume are not those of its source")
    positions = np.asarray([plane.position for plane in planes.planes])
    placed = affine[:3, 3] + np.arange(len(positions))[:, None] * affine[:3, 0]
    away = np.linalg.norm(positions - placed, axis=1)
    if away.max() > POSITION_TOLERANCE * max(planes.distance, *planes.pixel_spacing):
        raise EncodingError(
            f"slice {int(away.argmax()) + 1} of the volume lies {away.max():.2f} mm from its source"
        )
