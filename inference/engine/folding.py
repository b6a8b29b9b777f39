"""A network without batch normalisations that only scale what a convolution gave: fewer passes.

Weights are multiplied instead of results, so last bits differ from those of the network as it is.
Which convolutions may be folded is read off the network's modules; code that uses a part of a
sequence by itself (`self.block[0](x)`) is not seen there, which is why `is_same` looks at scores.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference.engine import corner

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def folded(network: nn.Module) -> nn.Module:
    """The same function, for inference; `network` itself, unchanged, where nothing can be folded.

    Looked for in sequences alone: whatever follows in one has no other input. A module that is
    used in two places, or that somebody listens to, stays.
    """
    pairs = list(_pairs(network))
    if not pairs:
        return network
    made = copy.deepcopy(network)
    for convolution, normalisation in pairs:
        first: Any = made.get_submodule(convolution)
        second: Any = made.get_submodule(normalisation)
        transposed = isinstance(first, _TRANSPOSED)
        made.set_submodule(convolution, fuse_conv_bn_eval(first, second, transpose=transposed))
        made.set_submodule(normalisation, nn.Identity())
    return made


def is_same(network: nn.Module, made: nn.Module, window: Tensor) -> bool:
    """Whether what was `made` of a network scores a window (channels, *size) alike, but last bits.

    In float32, in the smallest corner that the network takes, which costs little.
    """
    if made is network:
        return True
    seen, answer = corner.answered(network, window)
    return corner.alike(corner.first(made(seen[None])), corner.first(answer))


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a convolution and of the batch normalisation that alone has its result."""
    places = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    for name, module in network.named_modules():
        if not is_sequence(module) or is_in_sequence(network, name):
            continue
        for (first, one), (second, other) in itertools.pairwise(_steps(name, module)):
            alone = places[id(one)] == places[id(other)] == 1
            if alone and _is_foldable(one, other):
                yield first, second


def _steps(name: str, sequence: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What a sequence does one after the other, sequences in it included, each time it does it."""
    for own, module in sequence.named_modules(remove_duplicate=False):
        if not own or "." in own:  # (itself, or what is deeper)
            continue
        full = f"{name}.{own}".lstrip(".")
        if is_sequence(module):
            yield from _steps(full, module)
        else:
            yield full, module


def is_sequence(module: nn.Module) -> bool:
    """Whether it does one thing after the other, each with nothing but what the last one gave."""
    if not isinstance(module, nn.Sequential):  # (nor one of TorchScript, whose `forward` is none)
        return False
    return type(module).forward is nn.Sequential.forward and not is_watched(module)


def is_in_sequence(network: nn.Module, name: str) -> bool:
    """Whether a module of a network is directly in such a sequence."""
    parent, _, _ = name.rpartition(".")
    return bool(name) and is_sequence(network.get_submodule(parent))


def _is_foldable(convolution: nn.Module, normalisation: nn.Module) -> bool:
    """As `fuse_conv_bn_eval` can, which takes no transposed convolution of several groups."""
    grouped = isinstance(convolution, _TRANSPOSED) and convolution.groups > 1
    return (
        type(convolution) in (*_CONVOLUTIONS, *_TRANSPOSED)
        and not grouped
        and type(normalisation) in _NORMALISATIONS
        and normalisation.running_mean is not None
        and not (convolution.training or normalisation.training)
        and not (is_watched(convolution) or is_watched(normalisation))
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody listens to what it is given or gives, and may change it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001  (the only way)
