"""bfloat16 for a network that is asked window by window, where its masks stay those of float32.

Measured when it is loaded, on seeded windows as it sees images. Key points and numbers are always
computed in float32: what is measured of them is no decision that could agree.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from inference import phantom
from inference.arrays.inputs import Seen, given
from inference.arrays.options import Options
from inference.arrays.placement import Placement
from inference.arrays.running import EXACT, Network
from inference.arrays.segmentation import rule
from inference.description import Description, Task
from inference.engine import precision
from inference.engine.device import Device
from inference.engine.precision import Choice
from inference.engine.samples import SEED, blobs
from inference.engine.sliding_window import UnevenScores

STEP_MM = 1.5  # of images whose spacing the options leave open
PLANES = 3
BRIGHTEST = 1000.0


def chosen(network: Network, options: Options, description: Description, device: Device) -> Choice:
    """The faster arithmetic that agrees; float32 where nothing is measured."""
    windowed = description.task is Task.SEGMENTATION and bool(options.window.size)
    if not windowed or not device.bfloat16 or options.window.agreement > 1:
        return EXACT
    seen = list(samples(options, description))
    try:
        with torch.inference_mode(), precision.comparing():
            classes = network(seen[0][None].to(device.torch)).shape[1]
        decision = rule(description, options.output, interpolated=False, classes=classes)
        bound = options.window.agreement
        return precision.choose(network, device, decision, seen, bound=bound)
    except (RuntimeError, UnevenScores):  # (it takes no such window: the first image will say so)
        return EXACT


def samples(options: Options, description: Description) -> Iterator[Tensor]:
    """Opposite corners of a synthetic image, (channel, *window): a chest for CT, else blobs."""
    size = options.window.size
    shape = (*(PLANES for _ in range(description.dimensions - len(size))), *_larger(size))
    channels = max(1, len(description.roles))
    if description.modalities == ("CT",) and description.dimensions > len(("row", "column")):
        arrays = _chest(shape, options, channels)
    else:
        arrays = Seen(channels=(_blobs(shape),) * channels, affine=None, spacing=None)
    orientation = options.input.orientation
    placement = Placement.whole(arrays.shape, affine=arrays.affine, orientation=orientation)
    image = given(arrays, placement, options.input, description.roles)
    if options.input.slicewise:
        image = image[:, PLANES // 2]
    for part in (slice(0, extent) for extent in size), (slice(-extent, None) for extent in size):
        yield image[tuple(chain([slice(None)], part))]


def _larger(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent * 3 // 2 for extent in size)


def _chest(shape: tuple[int, ...], options: Options, channels: int) -> Seen:
    """`shape`: of the network's grid, which lies as the options have it."""
    steps = options.input.spacing or (STEP_MM,) * len(shape)
    small = phantom.regular((2, 2, 2), (1.0, 1.0, 1.0))
    turned = Placement.whole(
        (2, 2, 2), affine=small.affine, orientation=options.input.orientation
    ).order
    slices, rows, columns = (shape[turned.index(axis)] for axis in range(len(shape)))
    between, down, right = (steps[turned.index(axis)] for axis in range(len(shape)))
    made = phantom.thorax((slices, rows, columns), (between, down, right), seed=SEED)
    return Seen(channels=(made.hu,) * channels, affine=made.affine, spacing=(between, down, right))


def _blobs(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """From 0 to as bright as an MR."""
    field = blobs(shape)
    low, high = float(field.min()), float(field.max())
    found = (field - low) * (BRIGHTEST / max(high - low, 1e-6))
    return np.asarray(found.numpy(), np.float32)
