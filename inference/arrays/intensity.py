"""From the image's values to those that the network was trained on, as the options say."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.arrays.options import Input

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as photographs are turned to grey
Range = tuple[float, float]


def limits(array: NDArray[np.generic], options: Input) -> Range | None:
    """The values that are clipped to, of one channel of the whole image; None: not clipped."""
    if options.clip:
        return options.clip[0], options.clip[1]
    if not options.clip_percentiles:
        return None
    low, high = np.percentile(np.asarray(array, np.float32), options.clip_percentiles)
    return float(low), float(high)


def scaled(values: Tensor, clip: Range | None, options: Input) -> Tensor:
    """One channel, any shape, clipped and scaled; float32."""
    clipped = values if clip is None else values.clamp(*clip)
    if options.scale == "unit":
        low, high = clip or (float(clipped.min()), float(clipped.max()))
        return (clipped - low) / _not_zero(high - low)
    if options.scale == "zscore":
        return (clipped - clipped.mean()) / _not_zero(_deviation(clipped))
    if options.scale == "zscore_nonzero":
        inside = clipped != 0
        chosen = clipped[inside]
        if chosen.numel() == 0:
            return clipped
        normal = (clipped - chosen.mean()) / _not_zero(_deviation(chosen))
        return torch.where(inside, normal, torch.zeros_like(normal))
    return clipped


def coloured(channels: Sequence[Tensor], wanted: int) -> Tensor:
    """Channels first: grey three times, or the luma of three; others as they are."""
    if wanted == len(LUMA) and len(channels) == 1:
        return torch.stack([channels[0]] * wanted)
    if wanted == 1 and len(channels) == len(LUMA):
        luma = sum(part * weight for part, weight in zip(channels, LUMA, strict=True))
        return torch.as_tensor(luma)[None]
    return torch.stack(list(channels))


def shifted(channels: Tensor, options: Input) -> Tensor:
    """Times `multiply` plus `add`, each one number or one a channel."""
    along = (-1, *([1] * (channels.ndim - 1)))
    multiply = torch.tensor(options.multiply, dtype=torch.float32).reshape(along)
    add = torch.tensor(options.add, dtype=torch.float32).reshape(along)
    return channels * multiply + add


def _deviation(values: Tensor) -> float:
    return float(values.std()) if values.numel() > 1 else 0.0


def _not_zero(value: float) -> float:
    """An even image has no contrast to scale."""
    return value if value > 0 else 1.0
