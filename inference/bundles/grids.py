"""An image as a MONAI tensor, and a result back on the image's own grid: exactly, or refused.

MONAI's axes are (x, y, z) = (column, row, slice) and its affines RAS+, as its readers of DICOM
give them; ours are (slice, row, column) and LPS. A result on another grid is resampled to the
image's by the two affines; one whose place is not known is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.errors import ModelError
from inference.findings import Image, PlanarImage

Affine = NDArray[np.float64]
Values = NDArray[np.float32]

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
SAME_PLACE = 1e-3  # mm; what float32 leaves of coordinates of a metre is a tenth of it
COLOURS, GREY = 3, 2  # length of the last axis; dimensions without it
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where voxels (x, y, z) or pixels (x, y) lie: RAS mm, or in the plane of the image."""

    shape: tuple[int, ...]
    affine: Affine  # (n + 1, n + 1)

    def is_at(self, other: "Grid") -> bool:
        """Whether the corners of both coincide."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*((0, size - 1) for size in self.shape), indexing="ij"))
        points = np.vstack([corners.reshape(len(self.shape), -1), np.ones(2 ** len(self.shape))])
        return bool(np.abs((self.affine - other.affine) @ points).max() < SAME_PLACE)


def of_image(image: Image | PlanarImage) -> Grid:
    """The grid that results must lie on."""
    if isinstance(image, PlanarImage):
        rows, columns = image.pixels.shape[:2]
        between_rows, between_columns = image.spacing or (1.0, 1.0)
        return Grid(shape=(columns, rows), affine=np.diag((between_columns, between_rows, 1.0)))
    return _of_volume(image.volume)


def _of_volume(volume: hd.Volume) -> Grid:
    slices, rows, columns = volume.spatial_shape
    lps = np.asarray(volume.affine, np.float64)[:, [2, 1, 0, 3]]
    return Grid(shape=(columns, rows, slices), affine=LPS_TO_RAS @ lps)


def tensor(
    image: Image | PlanarImage, roles: Sequence[str] = (), *, colours: int | None = None
) -> Any:
    """A MetaTensor as a file reader gives it, float32: (x, y[, z]), colours last, roles first.

    `roles`: which series are the channels, in order; () for the image alone. `colours`: 3 makes a
    grey picture one of three equal colours, 1 a coloured one grey (ITU-R BT.601, as Pillow does).
    """
    from monai.data.meta_tensor import MetaTensor

    grid = of_image(image)
    values, channel = _values(image, roles, colours)
    meta = {
        "original_affine": grid.affine.copy(),
        "spatial_shape": np.array(grid.shape),
        "original_channel_dim": channel,
        "filename_or_obj": "image",
        "space": "RAS",
    }
    return MetaTensor(values, affine=_torch(grid.affine), meta=meta)


def _torch(affine: Affine) -> Any:
    import torch

    return torch.as_tensor(affine.copy())


def _values(
    image: Image | PlanarImage, roles: Sequence[str], colours: int | None
) -> tuple[Any, str | int]:
    """The values and which axis holds the channels."""
    if isinstance(image, PlanarImage):
        turned = _coloured(np.moveaxis(image.pixels, 0, 1), colours)
        return _copied(turned), -1 if turned.ndim == COLOURS else "no_channel"
    if not roles:
        return _copied(image.volume.array.transpose(2, 1, 0)), "no_channel"
    return _copied(np.stack([image.roles[role].array.transpose(2, 1, 0) for role in roles])), 0


def _coloured(pixels: NDArray[Any], colours: int | None) -> NDArray[Any]:
    if colours == COLOURS and pixels.ndim == GREY:
        return np.repeat(pixels[..., None], COLOURS, axis=-1)
    if colours == 1 and pixels.ndim > GREY:
        return np.asarray(pixels @ LUMA)
    return pixels


def _copied(values: NDArray[Any]) -> Any:
    import torch

    return torch.from_numpy(np.array(values, np.float32, order="C"))


def on_grid(result: Any, grid: Grid, *, seen: Any) -> Values:
    """A result (channel, x, y[, z]) on the grid, whole numbers kept whole.

    `seen`: the image as the network saw it. Raises ModelError when the result does not say where
    it lies, or says so of another shape.
    """
    values, affine = stated(result, grid, seen=seen)
    found = Grid(shape=values.shape[1:], affine=affine)
    placed = values if found.is_at(grid) else _resampled(values, found, grid)
    if placed.shape[1:] != grid.shape:
        raise ModelError("the model's result is not on the grid of the image")
    return placed


def stated(result: Any, grid: Grid, *, seen: Any) -> tuple[Values, Affine]:
    """A result (channel, x, y[, z]) and where it says that it lies; raises ModelError.

    `grid`: of the image, for its dimensions; `seen`: the image as the network saw it.
    """
    from monai.data.meta_tensor import MetaTensor
    from monai.data.utils import to_affine_nd

    if not isinstance(result, MetaTensor) or result.ndim != len(grid.shape) + 1:
        raise ModelError("the model's result does not say where in the image it lies")
    ndim = len(grid.shape)
    values = result.as_tensor().detach().cpu().numpy().astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ModelError("the model's result is not finite")
    affine = np.asarray(to_affine_nd(ndim, result.affine), np.float64)
    network = np.asarray(to_affine_nd(ndim, seen.affine), np.float64)
    moved = not np.allclose(affine, network, atol=1e-6)
    if not moved and values.shape[1:] != tuple(seen.shape[1:]):
        raise ModelError("the model's result has another shape than the place that it states")
    return values, affine


def _resampled(values: Values, found: Grid, grid: Grid) -> Values:
    """Nearest for labels, linear for what lies between; nothing outside of what was found.

    What was found reaches to the outer edges of its voxels: a slice between the last centre of a
    coarser grid and its edge has the value of that voxel.
    """
    step = np.linalg.inv(found.affine) @ grid.affine
    order = 0 if np.array_equal(values, np.rint(values)) else 1
    inside = _moved(np.ones(found.shape, np.uint8), step, grid, order=0, mode="grid-constant")
    placed = np.stack([_moved(one, step, grid, order=order, mode="nearest") for one in values])
    placed[:, inside == 0] = 0
    return placed


def _moved(
    values: NDArray[Any], step: Affine, grid: Grid, *, order: int, mode: str
) -> NDArray[Any]:
    matrix, offset = step[:-1, :-1], step[:-1, -1]
    found: NDArray[Any] = ndimage.affine_transform(
        values, matrix, offset, output_shape=grid.shape, order=order, mode=mode
    )
    return found
