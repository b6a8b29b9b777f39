"""Key points of a bundle: the tops of its heat maps, or the coordinates that its network gives.

A heat map is what comes out of the postprocessing, on the grid that it states; its top is found
between the voxels. Coordinates are indices into the image that the network saw. Either becomes LPS
mm by the affine of that grid, in a planar image (column, row).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference import heat_maps, peaks
from inference.bundles import grids
from inference.description import Description, Label
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, Keypoint, PlanarImage, Verdict

FORMS, UNITS = ("heat_map", "coordinates"), ("voxels", "fraction")
KEYS = ("form", "unit", "reversed")
ALLOWED = (
    'options.points: allowed: form = "heat_map" or "coordinates", unit = "voxels" or "fraction", '
    "reversed = true or false"
)
LPS = np.array([-1.0, -1.0, 1.0])
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the network's numbers are. Of coordinates:

    `unit`: "voxels" of the image that the network saw (a whole number is the middle of one) or its
    "fraction" from the outer edge of the first to that of the last; `reversed`: the last axis of
    the array first, as (y, x).
    """

    form: str = "heat_map"
    unit: str = "voxels"
    reversed: bool = False


def form(options: Mapping[str, Any]) -> Form:
    """The table `points` of a sidecar's options; raises ModelRefused."""
    table = options.get("points", {})
    if not isinstance(table, Mapping) or not set(table) <= set(KEYS):
        raise ModelRefused(ALLOWED)
    made = Form(**table)
    if made.form not in FORMS or made.unit not in UNITS or not isinstance(made.reversed, bool):
        raise ModelRefused(ALLOWED)
    return made


def of_heat_maps(
    maps: Any, seen: Any, image: Image | PlanarImage, description: Description
) -> Findings:
    """The top of each label's map; `maps` (channel, *space) with the grid that it lies on.

    `seen`: the image as the network saw it. Tops below a label's threshold and those of flat maps
    are not found, and it is said why.
    """
    values, affine = grids.stated(maps, grids.of_image(image), seen=seen)
    tops = (
        (label, peaks.top(_of(label, values).astype(np.float64))) for label in description.labels
    )
    return heat_maps.findings(tops, lambda place: at(place, affine, image), description)


def of_coordinates(
    numbers: torch.Tensor,
    seen: Any,
    image: Image | PlanarImage,
    description: Description,
    given: Form,
) -> Findings:
    """A point for each label, of `numbers`: (dimension, point) or (point, dimension)."""
    from monai.data.utils import to_affine_nd

    dimensions = len(grids.of_image(image).shape)
    places = _columns(np.asarray(numbers.numpy(), np.float64), dimensions)
    places = places[:, ::-1] if given.reversed else places
    if given.unit == "fraction":
        places = places * np.asarray(seen.shape[1:]) - 0.5
    affine = np.asarray(to_affine_nd(dimensions, seen.affine), np.float64)
    points = tuple(
        Keypoint(definition=label.definition, position=at(tuple(_of(label, places)), affine, image))
        for label in description.labels
    )
    return Findings(verdict=Verdict.MEASURED, keypoints=points, limitations=description.limits)


def _columns(numbers: Floats, dimensions: int) -> Floats:
    """One row a point; when both lengths are the same, the first axis is the dimension."""
    flat = numbers.squeeze()
    if flat.ndim == 1 and flat.size % dimensions == 0:
        flat = flat.reshape(dimensions, -1)
    if flat.ndim != 2 or dimensions not in flat.shape:
        raise ModelError(f"the model gave {numbers.shape} numbers, no points of {dimensions} axes")
    return flat.T if flat.shape[0] == dimensions else flat


def _of(label: Label, values: NDArray[Any]) -> NDArray[Any]:
    if label.value >= len(values):
        raise ModelError(f"the model gave {len(values)} points; a label has {label.value}")
    found: NDArray[Any] = values[label.value]
    return found


def at(index: tuple[float, ...], affine: Floats, image: Image | PlanarImage) -> tuple[float, ...]:
    """An index into a grid as a place in the image: LPS mm, or (column, row)."""
    if isinstance(image, PlanarImage):
        step = np.linalg.inv(grids.of_image(image).affine) @ affine
    else:
        step = np.diag([*LPS, 1.0]) @ affine
    return tuple(float(one) for one in (step @ [*index, 1.0])[:-1])
