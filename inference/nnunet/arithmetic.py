"""Half precision only where a model's decisions stay those of float32, measured when it is loaded.

On a GPU float16, in which nnU-Net's own package computes there; on a processor that has it,
bfloat16. Every network of every fold and stage has to agree, each by itself and unmirrored, on
seeded windows as it sees images.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference import phantom
from inference.engine import precision
from inference.engine.device import Device
from inference.engine.labelling import Rule
from inference.engine.precision import Choice, Precision
from inference.engine.samples import SEED, blobs
from inference.nnunet.plans import Channel, Configuration, Scheme
from inference.nnunet.prediction import Member, Trained
from inference.nnunet.preprocessing import Floats, normalised
from inference.nnunet.restoration import HALF

SLICES_MM = 5.0  # apart, where the plans do not say
BELOW_ONE = 1e-6
COMPETING = Rule(activation=None, threshold=None, interpolated=True)
REGIONS = Rule(activation="sigmoid", threshold=HALF, interpolated=True)


def chosen(members: Sequence[Member], device: Device, *, bound: float) -> Choice:
    """The faster arithmetic in which all of a model's networks agree with float32.

    `bound`: see `precision.choose`; above 1: float32, nothing is measured.
    """
    quick = Precision.FLOAT16 if device.torch.type == "cuda" else Precision.BFLOAT16
    if bound > 1 or not precision.available(quick, device):
        return Choice(precision=Precision.FLOAT32)
    least = 1.0
    for trained in (stage for member in members for stage in member):
        rule = COMPETING if trained.labels.regions_order is None else REGIONS
        windows = samples(trained)
        for network in trained.folds:
            placed = network.to(device.torch).eval()
            found = precision.choose(placed, device, rule, windows, bound=bound, quick=quick)
            if found.precision is Precision.FLOAT32:
                return found
            least = min(least, found.agreement or 0.0)
    return Choice(precision=quick, agreement=least)


def samples(trained: Trained) -> list[Tensor]:
    """Two windows (channel, *patch) as the network sees images: of a synthetic chest, or blobs."""
    configuration = trained.configuration
    size = (1,) * (3 - len(configuration.patch)) + configuration.patch
    ct = configuration.channels[0].scheme is Scheme.CT
    values = _chest(configuration, size) if ct else iter([_blobs(size, 0), _blobs(size, 1)])
    return [_window(trained, one).reshape(-1, *configuration.patch) for one in values]


def _window(trained: Trained, values: Floats) -> Tensor:
    """All channels of one field (z, y, x); a previous stage's labels are bands of another."""
    channels = trained.configuration.channels
    inside = np.ones(values.shape, np.bool_)
    found = [normalised(_scaled(values, one), one, inside) for one in channels]
    if trained.configuration.previous is not None:
        foreground = trained.labels.foreground
        bands = _blobs(values.shape, len(channels)) * (len(foreground) + 1)
        found += [(np.floor(bands) == value).astype(np.float32) for value in foreground]
    return torch.from_numpy(np.stack(found).astype(np.float32))


def _scaled(values: Floats, channel: Channel) -> Floats:
    """A field of 0 to 1 as this channel's images have it; HU stay."""
    match channel.scheme:
        case Scheme.RGB:
            return values * np.float32(255)
        case Scheme.NONE if channel.intensities is not None:
            low, high = channel.intensities.lowest, channel.intensities.highest
            return np.asarray(values * (high - low) + low, np.float32)
        case _:
            return values


def _chest(configuration: Configuration, size: tuple[int, ...]) -> Iterator[Floats]:
    """Opposite corners of the middle of a chest, HU."""
    shape = tuple(extent * 3 // 2 for extent in size)
    steps = (SLICES_MM,) * (3 - len(configuration.spacing)) + configuration.spacing
    back = configuration.transpose_backward
    made = phantom.thorax(_ordered(shape, back), _ordered(steps, back), seed=SEED).hu
    chest = made.astype(np.float32).transpose(configuration.transpose_forward)
    yield chest[tuple(slice(0, extent) for extent in size)]
    yield chest[tuple(slice(-extent, None) for extent in size)]


def _ordered(values: tuple[Any, ...], places: Sequence[int]) -> tuple[Any, Any, Any]:
    first, second, third = (values[place] for place in places)
    return first, second, third


def _blobs(size: tuple[int, ...], seed: int) -> Floats:
    """A smooth field of 0 to below 1, with blobs of several sizes."""
    field = blobs(size, seed=SEED + seed)
    low, high = float(field.min()), float(field.max())
    found: Floats = ((field - low) / ((high - low) * (1 + BELOW_ONE))).numpy()
    return found
