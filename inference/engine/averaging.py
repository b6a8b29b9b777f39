"""Several answers to one image, averaged: mirrored images, or several trainings of a network.

What is averaged is what the network gives (logits), before softmax or sigmoid.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Mirrored(nn.Module):
    """A network that also sees the image mirrored along each set of `axes` (0: the first)."""

    def __init__(self, network: nn.Module, axes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self._flips = [
            tuple(axis + 2 for axis in some)  # (batch and channel come first)
            for count in range(len(axes) + 1)
            for some in itertools.combinations(axes, count)
        ]

    def forward(self, batch: Tensor) -> Tensor:
        """The mean over all, each mirrored back: (batch, class, *space)."""
        answers = (_first(self.network(batch.flip(flip))).flip(flip) for flip in self._flips)
        return _mean(answers, len(self._flips))


class Ensemble(nn.Module):
    """Networks of one kind with weights of their own."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, batch: Tensor) -> Tensor:
        """The mean of their answers."""
        return _mean((_first(network(batch)) for network in self.networks), len(self.networks))


def _first(answer: Tensor | Sequence[Tensor]) -> Tensor:
    """Of several outputs (deep supervision) the full resolution."""
    while isinstance(answer, list | tuple):
        answer = answer[0]
    return torch.as_tensor(answer)


def _mean(answers: Iterable[Tensor], count: int) -> Tensor:
    """In float32, one answer after the other in memory."""
    total: Tensor | None = None
    for answer in answers:
        total = answer.to(torch.float32, copy=True) if total is None else total.add_(answer)
    if total is None:
        raise ValueError("nothing to average")
    return total / count
