"""HD-BET's brain extraction with its published weights: an example of a model in Python.

Isensee et al., Human Brain Mapping 2019;40:4952-4964. The mean of the five networks, without
mirroring, which a CPU can do; MIRRORED makes it the authors' accurate mode.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FOLDS = (0, 1, 2, 3, 4)  # (0,) for the authors' fast mode: a fifth of the time
MIRRORED = False  # True for the accurate mode: eight times as long
SPACING = 1.5  # mm, of the networks' voxels
SMALLEST, MULTIPLE = 128, 16  # voxels of an axis that the networks are given
FILTERS = 21
UNUSED = ("running_mean", "running_var", "num_batches_tracked", "loc2_seg", "loc3_seg")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(files: Any) -> Callable[..., dict[str, Any]]:
    """Build the networks from the weights in the model's folder; returns `predict`."""
    networks = []
    for fold in FOLDS:
        weights = files.weights(f"{fold}.model")
        kept = {k: v for k, v in weights.items() if not any(word in k for word in UNUSED)}
        network = Network()
        network.load_state_dict(kept)
        networks.append(network.to(DEVICE).eval())

    def predict(*, array: Any, spacing: Sequence[float], **_: Any) -> dict[str, Any]:
        """The brain on an axial stack, axes (slice, row, column); `spacing` in mm."""
        image = torch.from_numpy(array.astype("float32"))
        size = [max(1, round(n * s / SPACING)) for n, s in zip(array.shape, spacing, strict=True)]
        small = resized(image, size)
        small = (small - small.mean()) / small.std().clamp(min=1e-6)
        padding = [(0, max(SMALLEST, n + -n % MULTIPLE) - n) for n in size]
        padded = functional.pad(small, [end for ends in reversed(padding) for end in ends])
        found = sum(probability(network, padded[None, None].to(DEVICE)) for network in networks)
        brain = (found / len(networks)).cpu()[: size[0], : size[1], : size[2]]
        return {"masks": {"Brain": (resized(brain, array.shape) > 0.5).numpy()}}

    return predict


def resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """Linearly, the field of view kept."""
    return functional.interpolate(values[None, None], tuple(size), mode="trilinear")[0, 0]


def probability(network: nn.Module, batch: Tensor) -> Tensor:
    """Of brain; the mean over all mirrorings when they are wanted."""
    subsets = [()]
    if MIRRORED:
        subsets = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
    found = [network(batch.flip(axes)).softmax(1).flip(axes) for axes in subsets]
    return torch.stack(found).mean(0)[0, 1]


def convolution(
    before: int, after: int, *, size: int = 3, step: int = 1, bias: bool = True
) -> nn.Conv3d:
    """Which keeps the size of the image at step 1 and halves it at step 2."""
    return nn.Conv3d(before, after, size, step, size // 2, bias=bias)


def norm(channels: int) -> nn.InstanceNorm3d:
    """Of the image at hand: the weights' running values are of no use."""
    return nn.InstanceNorm3d(channels, affine=True)


def rectified(values: Tensor, slope: float = 0.01) -> Tensor:
    """Leaky."""
    return functional.leaky_relu(values, slope)


class Context(nn.Module):
    """Two convolutions beside a shortcut. Names of parts are the weights', here and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn_1, self.conv1 = norm(channels), convolution(channels, channels)
        self.bn_2, self.conv2 = norm(channels), convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(rectified(self.bn_1(x)))
        return x + self.conv2(rectified(self.bn_2(inner)))


class Down(nn.Module):
    """What is kept for the way up, and half its size with twice its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn, self.downsample = norm(channels), convolution(channels, 2 * channels, step=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = rectified(self.bn(x))
        return kept, self.downsample(kept)


class Up(nn.Module):
    """Twice the size with half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample_conv, self.bn = convolution(channels, channels // 2), norm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        large = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
        return rectified(self.bn(self.upsample_conv(large)))


class Localisation(nn.Module):
    """What came up and what was kept, together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn_1 = convolution(channels, channels), norm(channels)
        self.conv2, self.bn_2 = convolution(channels, channels // 2, size=1), norm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return rectified(self.bn_2(self.conv2(rectified(self.bn_1(self.conv1(x))))))


class Network(nn.Module):
    """(1, 1, z, y, x) to (1, 2, z, y, x): not brain, brain."""

    def __init__(self) -> None:
        super().__init__()
        n = FILTERS
        self.init_conv = convolution(1, n)
        for level in range(1, 6):
            self.add_module(f"context{level}", Context(n * 2 ** (level - 1)))
        for level in range(1, 5):
            self.add_module(f"down{level}", Down(n * 2 ** (level - 1)))
            self.add_module(f"up{level}", Up(n * 2 ** (5 - level)))
        for level in range(1, 4):
            self.add_module(f"loc{level}", Localisation(n * 2 ** (5 - level)))
        self.bn_after_context5 = norm(16 * n)
        self.end_conv_1, self.end_conv_1_bn = convolution(2 * n, 2 * n), norm(2 * n)
        self.end_conv_2, self.end_conv_2_bn = convolution(2 * n, 2 * n), norm(2 * n)
        self.seg_layer = convolution(2 * n, 2, size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.init_conv(x), []
        for level in range(1, 5):
            skip, x = self.get_submodule(f"down{level}")(self.get_submodule(f"context{level}")(x))
            kept.append(skip)
        x = rectified(self.bn_after_context5(self.context5(x)), 0.1)
        for level in range(1, 4):
            x = torch.cat((kept.pop(), self.get_submodule(f"up{level}")(x)), dim=1)
            x = self.get_submodule(f"loc{level}")(x)
        x = torch.cat((kept.pop(), self.up4(x)), dim=1)
        x = rectified(self.end_conv_1_bn(self.end_conv_1(x)), 0.1)
        x = rectified(self.end_conv_2_bn(self.end_conv_2(x)), 0.1)
        return self.seg_layer(x)
