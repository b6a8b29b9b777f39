"""From masks and places in a grid to findings of the image, absent ones said in words."""

from collections.abc import Iterable, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from inference import measurement, regions
from inference.description import Description, Label
from inference.errors import ModelRefused
from inference.findings import Findings, Image, PlanarImage, Segment, Verdict, not_found

Mask = NDArray[np.bool_]
Index = Sequence[float]


def segmented(
    image: Image | PlanarImage, description: Description, masks: Iterable[tuple[Label, Mask]]
) -> Findings:
    """Masks on the image's grid with their volumes; raises ModelRefused for another grid."""
    segments, absent = segments_of(image, masks)
    stack = isinstance(image, Image)
    return Findings(
        verdict=Verdict.MEASURED,
        segments=segments,
        measurements=tuple(map(measurement.volume, segments)) if stack else (),
        limitations=(*description.limits, *not_found(absent)),
    )


def segments_of(
    image: Image | PlanarImage, masks: Iterable[tuple[Label, Mask]]
) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """The segments that are not empty, and the names of the labels that are."""
    segments, absent = [], []
    for label, mask in masks:
        if mask.shape != shape_of(image):
            raise ModelRefused(f"a mask of {mask.shape} voxels for an image of {shape_of(image)}")
        if mask.any():
            segments.append(Segment(definition=label.definition, mask=_placed(image, mask)))
        else:
            absent.append(label.definition.label)
    return tuple(segments), tuple(absent)


def shape_of(image: Image | PlanarImage) -> tuple[int, ...]:
    """(slice, row, column), or (row, column)."""
    if isinstance(image, PlanarImage):
        return tuple(image.pixels.shape[:2])
    return tuple(image.volume.spatial_shape)


def located(image: Image | PlanarImage, index: Index) -> tuple[float, ...]:
    """An index into the image, between voxels too, as LPS mm; as (column, row) when planar."""
    if isinstance(image, PlanarImage):
        row, column = index
        return float(column), float(row)
    place = np.asarray(image.volume.affine, np.float64) @ np.asarray([*index, 1.0])
    return tuple(float(one) for one in place[:3])


def _placed(image: Image | PlanarImage, mask: Mask) -> hd.Volume:
    """A mask that is not empty at its place; a planar one is a region, as `Segment` says."""
    region = regions.of_mask(mask)
    if isinstance(image, PlanarImage):
        return region  # type: ignore[return-value]
    return region.in_patient(image.volume)
