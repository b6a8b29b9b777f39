"""Small networks whose answers are known; bare_fixtures.py asks them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference import regions
from inference.findings import Findings, Image, PlanarImage
from tests.array_models import image, label, oblique, planar

BRIGHT = 300.0  # HU
QUESTION = ["246456000", "SCT", "Episodicity"]
CLASSES = 4  # of `Small`
SHAPE = (20, 44, 36)  # of `noisy`
Ask = Callable[..., Findings]


def masks(findings: Findings, seen: Image | PlanarImage) -> dict[str, np.ndarray]:
    """Each segment's mask on the image's grid, by its label."""
    return {
        one.definition.label: one.mask.whole()  # type: ignore[attr-defined]  # (a region)
        if isinstance(seen, PlanarImage)
        else regions.on_grid(one.mask, seen.volume).whole()
        for one in findings.segments
    }


def photograph(*colours: int) -> PlanarImage:
    """Of one colour: its red, green and blue."""
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in colours], axis=-1)
    return planar(pixels, "XC")


def labels(**more: Any) -> list[dict[str, Any]]:
    """Of every class of `Small` but the first."""
    return [label(value, f"C{value}", **more) for value in range(1, CLASSES)]


def noisy() -> Image:
    """Markers in a small oblique stack, in noise."""
    seen = oblique(SHAPE)
    noise = np.random.default_rng(1).normal(0, 300, SHAPE)
    return image((seen.volume.array + noise).astype(np.int16), np.asarray(seen.volume.affine))


class Small(nn.Module):
    """Two convolutions with weights of a seed."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(1, 6, 3, padding=1)
        self.second = nn.Conv3d(6, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x * 0.01)))


class Bright(nn.Module):
    """Two channels, the second larger above BRIGHT."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x, 300.0), x], dim=1)


class Sides(nn.Module):
    """Two channels, the second larger in the upper half of the first axis of the space."""

    def forward(self, x: Tensor) -> Tensor:
        place = torch.cumsum(torch.ones_like(x), dim=2) / x.shape[2]
        return torch.cat([torch.full_like(x, 0.5), place], dim=1)


class Identity(nn.Module):
    """What it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Constant(nn.Module):
    """A value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


class Several(nn.Module):
    """By name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"other": x * 0.0, "wanted": x}


class Means(nn.Module):
    """The mean of each channel, and of all of them, as a vector."""

    def forward(self, x: Tensor) -> Tensor:
        each = x.flatten(2).mean(2)
        return torch.cat([each, each.mean(1, keepdim=True)], dim=1)


class One(nn.Module):
    """The mean of all: one output."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean().reshape(1, 1)
