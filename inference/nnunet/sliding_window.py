"""Logits of a whole image from windows that overlap, weighted towards their middle.

Sums are kept in half precision and in nnU-Net's order, so that the labels are the same voxel by
voxel; the memory is two bytes a class and voxel. As there, logits in the very corners of the image
are coarse, where weights are as small as half precision can hold.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import ceil

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from inference.errors import ModelError

SIGMA = 1 / 8  # of the patch
LARGEST_WEIGHT = 10.0  # keeps the smallest above what half precision can hold

Network = Callable[[Tensor], Tensor]
Slices = tuple[slice | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How an image is walked over. `mirrored`: axes (0: the first of the patch) to average over."""

    patch: tuple[int, ...]
    step: float = 0.5  # of the patch
    mirrored: tuple[int, ...] = ()


def weights(patch: Sequence[int]) -> Tensor:
    """A Gaussian about the patch's middle, half precision, nowhere zero."""
    point = np.zeros(patch)
    point[tuple(size // 2 for size in patch)] = 1
    blurred = ndimage.gaussian_filter(point, [size * SIGMA for size in patch], mode="constant")
    blurred /= blurred.max() / LARGEST_WEIGHT
    found = torch.from_numpy(blurred).half()
    found[found == 0] = found[found != 0].min()
    return found


def starts(size: int, patch: int, step: float) -> list[int]:
    """Where windows begin along an axis: evenly, at most `step` patches apart, the ends touched."""
    count = ceil((size - patch) / (patch * step)) + 1
    if count < 2:
        return [0]
    return [int(np.round((size - patch) / (count - 1) * index)) for index in range(count)]


def places(shape: Sequence[int], windows: Windows) -> Iterator[Slices]:
    """Each window's place in an array (channel, z, y, x)."""
    patch = windows.patch
    axes: list[list[slice | int]] = [
        [slice(start, start + size) for start in starts(length, size, windows.step)]
        for length, size in zip(shape[-len(patch) :], patch, strict=True)
    ]
    planes: list[list[slice | int]] = [list(range(shape[0]))] if len(patch) < len(shape) else []
    for place in product(*planes, *axes):
        yield (slice(None), *place)


def predict(
    network: nn.Module, image: Tensor, windows: Windows, *, classes: int, device: torch.device
) -> Tensor:
    """Logits (class, z, y, x), half precision, of an image (channel, z, y, x) on the CPU.

    They are on the device where it has room for them, else on the CPU. Raises ModelError when a
    logit is not finite.
    """
    with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
        network.to(device).eval()
        padded, inner = _padded(image, windows.patch)
        holding = _holding(classes * padded[0].numel(), device)
        summed = torch.zeros((classes, *padded.shape[1:]), dtype=torch.half, device=holding)
        counted = torch.zeros(padded.shape[1:], dtype=torch.half, device=holding)
        gaussian = weights(windows.patch).to(holding)
        for place in places(padded.shape[1:], windows):
            window = padded[place][None].contiguous().to(device)
            found = mirrored(network, window, windows.mirrored)[0].to(holding)
            found *= gaussian
            summed[place] += found
            counted[place[1:]] += gaussian
        summed /= counted
        logits = summed[(slice(None), *inner)]
    if not torch.isfinite(logits).all():
        raise ModelError("the network's answer is not finite")
    return logits


def _holding(values: int, device: torch.device) -> torch.device:
    """Where so many half values are summed: on a GPU with room for thrice that, or the CPU."""
    if device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    return device if 3 * values * torch.half.itemsize < free else torch.device("cpu")


def mirrored(network: Network, window: Tensor, axes: Sequence[int]) -> Tensor:
    """The mean of a network's answers to a window (1, channel, ...) and all its mirror images."""
    found = network(window)
    flips = [
        [axis + 2 for axis in chosen]
        for count in range(1, len(axes) + 1)
        for chosen in combinations(axes, count)
    ]
    for flip in flips:
        found += torch.flip(network(torch.flip(window, flip)), flip)
    return found / (len(flips) + 1) if flips else found


def _padded(image: Tensor, patch: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Zeros around an image smaller than the patch, and where in it the image lies."""
    sizes = image.shape[1:]
    wanted = (*sizes[: len(sizes) - len(patch)], *patch)
    missing = [max(0, new - old) for old, new in zip(sizes, wanted, strict=True)]
    before = [count // 2 for count in missing]
    pads = [(start, count - start) for start, count in zip(before, missing, strict=True)]
    flat = [size for pair in reversed(pads) for size in pair]
    inner = tuple(slice(start, start + old) for start, old in zip(before, sizes, strict=True))
    return functional.pad(image, flat), inner
