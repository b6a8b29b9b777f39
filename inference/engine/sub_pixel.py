"""Transposed convolutions that give few channels, made of a convolution: the same, several times
as fast on a processor, whose convolutions want many channels.

What lies between two voxels of the input are further channels there, which then change places
(Shi et al., CVPR 2016, sub-pixel convolution).
"""

import copy
import itertools
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional

from inference.engine.folding import is_in_sequence, is_watched

FEW = 4  # channels; with more the ordinary way is as fast
TAPS = (((1, 0),), ((2, 0), (0, 1)))
"""Of each of the two voxels that one becomes: index in the kernel, step in the input."""


class SubPixel(nn.Module):
    """As ConvTranspose3d of kernel 3, stride 2, padding 1 and output padding 1."""

    def __init__(self, transposed: nn.ConvTranspose3d) -> None:
        super().__init__()
        kernel = transposed.weight.detach()  # (in, out, 3, 3, 3)
        self.channels = transposed.out_channels
        weight = kernel.new_zeros(2, 2, 2, self.channels, transposed.in_channels, 2, 2, 2)
        for place in itertools.product((0, 1), repeat=3):
            for taps in itertools.product(*(TAPS[half] for half in place)):
                index, step = zip(*taps, strict=True)
                weight[(*place, ..., *step)] = kernel[(..., *index)].t()
        self.weight = nn.Parameter(weight.flatten(0, 3), requires_grad=False)
        bias = transposed.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(8))

    def forward(self, batch: Tensor) -> Tensor:
        """(windows, channels, *size) to twice the size."""
        edge = functional.pad(batch, (0, 1) * 3)
        found = functional.conv3d(edge, self.weight, self.bias).movedim(1, -1)
        windows, *size = found.shape[:-1]
        parts = found.reshape(windows, *size, 2, 2, 2, self.channels)
        woven = parts.permute(0, 1, 4, 2, 5, 3, 6, 7)
        return woven.reshape(windows, *(2 * extent for extent in size), self.channels).movedim(
            -1, 1
        )


def is_alike(module: nn.Module) -> TypeGuard[nn.ConvTranspose3d]:
    """Whether `SubPixel` does the same as `module`, sooner."""
    return (
        type(module) is nn.ConvTranspose3d
        and module.out_channels <= FEW
        and module.groups == 1
        and (module.kernel_size, module.stride) == ((3, 3, 3), (2, 2, 2))
        and (module.padding, module.output_padding) == ((1, 1, 1), (1, 1, 1))
        and module.dilation == (1, 1, 1)
        and not is_watched(module)
    )


def replaced(network: nn.Module) -> nn.Module:
    """The same function; `network` itself, unchanged, where nothing of it is made sooner so.

    Looked for in sequences alone: elsewhere one may be asked for a size of its answer.
    """
    found = {
        name: module
        for name, module in network.named_modules()
        if is_alike(module) and is_in_sequence(network, name)
    }
    if not found:
        return network
    made = copy.deepcopy(network)
    for name, transposed in found.items():
        made.set_submodule(name, SubPixel(transposed))
    return made
