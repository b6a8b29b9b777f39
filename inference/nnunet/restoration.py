"""From logits at the network's spacing to a label map on the image's own grid, class by class.

At no time is more than one class at the image's resolution in memory, beside the winner so far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.nnunet import resampling
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared

HALF = 0.5  # probability from which a region counts


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
    whole[prepared.box] = found
    return whole.transpose(configuration.transpose_backward)


def _channel(
    logits: Tensor, index: int, prepared: Prepared, configuration: Configuration
) -> NDArray[np.floating[Any]]:
    return resampling.image(
        logits[index].numpy(),
        prepared.cropped,
        configuration.probabilities,
        spacing=prepared.wanted,
        wanted=prepared.spacing,
    )


def _competing(
    logits: Tensor, prepared: Prepared, configuration: Configuration
) -> NDArray[np.int16]:
    """The class with the largest logit; of equal ones the first."""
    best = _channel(logits, 0, prepared, configuration).copy()
    found = np.zeros(best.shape, np.int16)
    for index in range(1, len(logits)):
        channel = _channel(logits, index, prepared, configuration)
        larger = channel > best
        found[larger] = index
        np.copyto(best, channel, where=larger)
    return found


def _regions(
    logits: Tensor,
    prepared: Prepared,
    configuration: Configuration,
    values: Sequence[int],
    limits: Sequence[float],
) -> NDArray[np.int16]:
    """Each region over those before it."""
    found = np.zeros(prepared.cropped, np.int16)
    for index, (value, limit) in enumerate(zip(values, limits, strict=True)):
        channel = _channel(logits, index, prepared, configuration)
        probability = torch.sigmoid(torch.from_numpy(channel).float()).numpy()
        found[probability > limit] = value
    return found
