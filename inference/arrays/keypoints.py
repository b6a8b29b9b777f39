"""From heat maps, a channel for each label, to points between the voxels of the source."""

from collections.abc import Iterator

from torch import Tensor

from inference import peaks as tops
from inference.arrays.options import Output
from inference.arrays.segmentation import activated, channel
from inference.description import Description, Label
from inference.peaks import Top


def peaks(
    channels: Tensor, description: Description, output: Output
) -> Iterator[tuple[Label, Top]]:
    """Each label and the top of its heat map in the network's grid.

    `channels`: (channel, *space).
    """
    heat = activated(channels, output)
    for label in description.labels:
        yield label, tops.top(channel(heat, label).double().cpu().numpy())
