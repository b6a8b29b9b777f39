"""From an image to what a bare network is given: turned, cut, resampled, scaled, as options say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inference.arrays import intensity
from inference.arrays.options import Input
from inference.arrays.placement import Placement
from inference.errors import ModelRefused
from inference.findings import Image, PlanarImage

Array = NDArray[np.generic]
COLOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An image as arrays: its channels on one grid, and that grid.

    `affine`: index to LPS mm; None for a planar image; `spacing`: mm; None when it is not known.
    """

    channels: tuple[Array, ...]
    affine: NDArray[np.float64] | None
    spacing: tuple[float, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.channels[0].shape


def seen(image: Image | PlanarImage, roles: Sequence[str]) -> Seen:
    """The arrays of an image, in the order of `roles`; raises ModelRefused for a role it lacks."""
    if isinstance(image, PlanarImage):
        pixels = image.pixels
        colours = pixels.shape[-1] if pixels.ndim == COLOURS else 0
        channels = tuple(pixels[..., index] for index in range(colours)) or (pixels,)
        return Seen(channels=channels, affine=None, spacing=image.spacing)
    missing = [role for role in roles if role not in image.roles]
    if missing:
        raise ModelRefused(f"no series has the role {', '.join(missing)}")
    volumes = [image.roles[role] for role in roles] or [image.volume]
    return Seen(
        channels=tuple(volume.array for volume in volumes),
        affine=np.asarray(image.volume.affine, np.float64),
        spacing=tuple(float(step) for step in image.volume.spacing),
    )


def given(arrays: Seen, placement: Placement, options: Input, roles: Sequence[str]) -> Tensor:
    """(channel, *space) of the network's grid, float32."""
    channels = [
        intensity.scaled(
            placement.seen(array, options.interpolation), intensity.limits(array, options), options
        )
        for array in arrays.channels
    ]
    wanted = options.channels if len(channels) in (1, COLOURS) else len(channels)
    wanted = len(channels) if roles else wanted
    return intensity.shifted(intensity.coloured(channels, wanted), options)
