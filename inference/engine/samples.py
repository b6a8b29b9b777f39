"""What arithmetics are compared on is the same at every start: fields of a seed."""

import torch
from torch import Tensor
from torch.nn import functional

SEED = 20
COARSE = (3, 8, 24)  # blobs along an axis
MODES = {2: "bilinear", 3: "trilinear"}


def blobs(shape: tuple[int, ...], *, seed: int = SEED) -> Tensor:
    """A smooth field of two or three axes with blobs of several sizes, about 0."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.zeros(1, 1, *shape)
    for coarse in COARSE:
        noise = torch.randn(1, 1, *(min(coarse, one) for one in shape), generator=generator)
        field += functional.interpolate(noise, size=shape, mode=MODES[len(shape)])
    return field[0, 0]
