"""What a network gives of a small part of a window: enough to know how it is made, and cheap."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference.engine.device import is_exhausted

CORNERS = (16, 32)  # voxels a side: what networks with four and five levels can halve
LAST_BITS = 1e-3  # of the largest score


def answered(network: nn.Module, window: Tensor) -> tuple[Tensor, Tensor | Sequence[Tensor]]:
    """The smallest corner of a window (channels, *size) that the network takes, and its answer.

    Else all of it, of which it raises what the network raises.
    """
    for side in CORNERS:
        corner = window[(slice(None), *(slice(side) for _ in window.shape[1:]))]
        try:
            return corner, network(corner[None])
        except (RuntimeError, ValueError) as error:  # (of one that takes no such size)
            if is_exhausted(error):
                raise
    return window, network(window[None])


def alike(found: Tensor, expected: Tensor) -> bool:
    """Whether scores differ in last bits alone; not those that are no numbers."""
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= LAST_BITS * expected.abs().max())


def first(answer: Tensor | Sequence[Tensor]) -> Tensor:
    """Of several outputs (deep supervision) the first, which is the full resolution."""
    while isinstance(answer, list | tuple):
        answer = answer[0]
    return torch.as_tensor(answer)
