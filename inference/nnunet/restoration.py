"""From logits at the network's spacing to a label map on the image's own grid, plane by plane.

At the image's resolution only a few planes of one class are in memory, beside the labels so far.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.nnunet import resampling
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared

CPU_VOXELS = 1 << 20  # at a time: what stays in the cache
GPU_VOXELS = 1 << 26
HALF = 0.5  # probability from which a region counts


@torch.inference_mode()
def restored(
    logits: Tensor,
    prepared: Prepared,
    configuration: Configuration,
    labels: Labels,
    thresholds: Sequence[float] = (),
) -> NDArray[np.int16]:
    """The label map (z, y, x) of the whole image.

    `thresholds`: a probability for each region; () for one half.
    """
    limits = thresholds or (HALF,) * labels.heads
    found = torch.empty(prepared.cropped, dtype=torch.int16)
    for planes, classes in _parts(logits, prepared, configuration):
        if labels.regions_order is None:
            found[planes] = _competing(classes).cpu()
        else:
            found[planes] = _regions(classes, labels.regions_order, limits).cpu()
    whole = np.zeros(prepared.whole, np.int16)
    whole[prepared.box] = found.numpy()
    return whole.transpose(configuration.transpose_backward)


def _parts(
    logits: Tensor, prepared: Prepared, configuration: Configuration
) -> Iterator[tuple[slice, Iterator[Tensor]]]:
    """Planes of the image's grid and all classes there, one by one."""
    new, rule = prepared.cropped, configuration.probabilities
    grids = {"spacing": prepared.wanted, "wanted": prepared.spacing}
    device = logits.device
    way = resampling.linear(tuple(logits.shape[1:]), new, rule, **grids, device=device)
    if way is None:
        arrays = (channel.cpu().numpy() for channel in logits)
        yield (
            slice(None),
            (torch.from_numpy(resampling.image(one, new, rule, **grids)) for one in arrays),
        )
        return
    voxels = CPU_VOXELS if device.type == "cpu" else GPU_VOXELS
    count = max(1, voxels // (new[1] * new[2]))
    for start in range(0, new[0], count):
        stop = min(start + count, new[0])
        yield slice(start, stop), map(partial(way.part, start=start, stop=stop), logits)


def _competing(classes: Iterator[Tensor]) -> Tensor:
    """The class with the largest logit; of equal ones the first."""
    best = next(classes).clone()
    found = torch.zeros(best.shape, dtype=torch.int16, device=best.device)
    for index, channel in enumerate(classes, start=1):
        found.masked_fill_(channel > best, index)
        torch.maximum(best, channel, out=best)
    return found


def _regions(classes: Iterator[Tensor], values: Sequence[int], limits: Sequence[float]) -> Tensor:
    """Each region over those before it."""
    found: Tensor | None = None
    for channel, value, limit in zip(classes, values, limits, strict=True):
        if found is None:
            found = torch.zeros(channel.shape, dtype=torch.int16, device=channel.device)
        found.masked_fill_(torch.sigmoid(channel.float()) > limit, value)
    if found is None:
        raise ValueError("a network has at least one region")
    return found
