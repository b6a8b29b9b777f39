"""One call of a network or a sliding window over a large image; the result has its voxels."""

from collections.abc import Callable, Sequence

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor
from torch.nn import functional

from inference.arrays.options import Window

Network = Callable[[Tensor], Tensor]
"""(batch, channel, *space) of float32 to (batch, channel, *space) or (batch, output)."""


def run(network: Network, channels: Tensor, window: Window) -> Tensor:
    """What `network` says of (batch, channel, *space), windows weighted and averaged."""
    with torch.inference_mode():
        if not window.size:
            return network(channels)
        found = sliding_window_inference(
            channels,
            roi_size=window.size,
            sw_batch_size=1,
            predictor=network,
            overlap=window.overlap,
            mode=window.weight,
        )
    if not isinstance(found, Tensor):
        raise TypeError("a window gave several outputs")
    return found


def padded(channels: Tensor, multiple: int, value: float) -> Tensor:
    """(batch, channel, *space), grown at the end of each axis to a multiple of `multiple`."""
    space = channels.shape[2:]
    growth = [-count % multiple for count in space]
    if not any(growth):
        return channels
    ends = [end for grown in reversed(growth) for end in (0, grown)]
    return functional.pad(channels, ends, value=value)


def cut(channels: Tensor, space: Sequence[int]) -> Tensor:
    """The first voxels of each axis of (batch, channel, *space): undoes `padded`."""
    for axis, count in enumerate(space, start=2):
        channels = channels.narrow(axis, 0, count)
    return channels
