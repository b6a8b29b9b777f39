"""From logits at the network's spacing to a label map on the image's own grid, class by class.

At no time is more than one class at the image's resolution in memory, beside the winner so far.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.nnunet import resampling
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared

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
    if labels.regions_order is None:
        found = _competing(logits, prepared, configuration)
    else:
        limits = thresholds or (HALF,) * len(labels.regions_order)
        found = _regions(logits, prepared, configuration, labels.regions_order, limits)
    whole = np.zeros(prepared.whole, np.int16)
    whole[prepared.box] = found.cpu().numpy()
    return whole.transpose(configuration.transpose_backward)


def _classes(logits: Tensor, prepared: Prepared, configuration: Configuration) -> Iterator[Tensor]:
    for channel in logits:
        yield resampling.logits(
            channel,
            prepared.cropped,
            configuration.probabilities,
            spacing=prepared.wanted,
            wanted=prepared.spacing,
        )


def _competing(logits: Tensor, prepared: Prepared, configuration: Configuration) -> Tensor:
    """The class with the largest logit; of equal ones the first."""
    classes = _classes(logits, prepared, configuration)
    best = next(classes).clone()
    found = torch.zeros(best.shape, dtype=torch.int16, device=best.device)
    for index, channel in enumerate(classes, start=1):
        found.masked_fill_(channel > best, index)
        torch.maximum(best, channel, out=best)
    return found


def _regions(
    logits: Tensor,
    prepared: Prepared,
    configuration: Configuration,
    values: Sequence[int],
    limits: Sequence[float],
) -> Tensor:
    """Each region over those before it."""
    found = torch.zeros(prepared.cropped, dtype=torch.int16, device=logits.device)
    classes = _classes(logits, prepared, configuration)
    for channel, value, limit in zip(classes, values, limits, strict=True):
        found.masked_fill_(torch.sigmoid(channel.float()) > limit, value)
    return found
