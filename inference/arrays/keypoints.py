"""From heat maps, a channel for each label, to points between the voxels of the source."""

from collections.abc import Iterator

from torch import Tensor

from inference import peaks as tops
from inference.arrays.options import Output
from inference.arrays.segmentation import activated, channel
from inference.description import Description, Label


def peaks(
    channels: Tensor, description: Description, output: Output
) -> Iterator[tuple[Label, tuple[float, ...], float]]:
    """Each label, the index of its maximum in the network's grid, and how high that is.

    `channels`: (channel, *space).
    """
    heat = activated(channels, output)
    for label in description.labels:
        values = channel(heat, label).double().cpu().numpy()
        place, height = tops.peak(values)
        yield label, place, height
