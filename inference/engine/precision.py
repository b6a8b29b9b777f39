"""Half precision only where the hardware has it and a model's answers stay those of float32.

Both are compared once, when a model is loaded, on windows that are given. The choice is the same
on every start of one machine; other machines may choose otherwise, and bfloat16 gives other last
bits on another processor: results name the arithmetic with which they were computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from inference.engine.device import Device
from inference.engine.folding import folded
from inference.engine.labelling import Rule, decided
from inference.engine.sliding_window import Predict, UnevenScores

BOUND = 0.995


class Precision(StrEnum):
    """The arithmetic of a network's convolutions."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"  # of GPUs; what nnU-Net's own package computes in there


HALVES = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT16: torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`agreement`: of half precision with float32, 0 to 1; None where it was not measured."""

    precision: Precision
    agreement: float | None = None


def choose(
    network: torch.nn.Module,
    device: Device,
    rule: Rule,
    samples: Sequence[Tensor],
    *,
    bound: float = BOUND,
    quick: Precision = Precision.BFLOAT16,
) -> Choice:
    """The faster arithmetic that agrees: what `rule` decides on `samples` (channels, *size).

    The agreement is the smaller of the fraction of equal decisions and, where float32 finds
    anything but the first class, the Dice of all that is found, each voxel as its own class.
    Raises UnevenScores when the network changes the size of a sample.
    """
    if bound > 1 or not available(quick, device):
        return Choice(precision=Precision.FLOAT32)
    exact = predictor(network, device, Precision.FLOAT32)
    half = predictor(network, device, quick)
    with torch.inference_mode():
        agreement = min(_agreement(exact, half, rule, sample[None]) for sample in samples)
    return Choice(precision=quick if agreement >= bound else Precision.FLOAT32, agreement=agreement)


def available(precision: Precision, device: Device) -> bool:
    """Whether a device computes in it without being slower than in float32."""
    match precision:
        case Precision.FLOAT32:
            return True
        case Precision.BFLOAT16:
            return device.bfloat16
        case Precision.FLOAT16:
            return device.torch.type == "cuda"


def predictor(
    network: torch.nn.Module, device: Device, precision: Precision, *, channels_last: bool = True
) -> Predict:
    """The network on its device, windows and scores on the caller's; channels last in memory.

    Of several outputs (deep supervision) the first, which is the full resolution. In bfloat16
    batch normalisations are folded into convolutions: it is not exact anyway, and is measured.
    """
    half = HALVES.get(precision)
    if precision is Precision.BFLOAT16:
        network = folded(network)

    def predict(batch: Tensor) -> Tensor:
        windows = batch.to(device.torch)
        if channels_last:
            layout = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
            windows = windows.contiguous(memory_format=layout)
        with torch.autocast(device.torch.type, half, enabled=half is not None):
            scores = network(windows)
        while isinstance(scores, list | tuple):
            scores = scores[0]
        return torch.as_tensor(scores).to(batch.device)

    return predict


def prepared(network: torch.nn.Module, device: Device, dimensions: int) -> torch.nn.Module:
    """The network on its device, for inference, its weights with channels last."""
    layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last
    placed = network.to(device.torch).eval()
    for parameter in placed.parameters():
        if parameter.ndim == dimensions + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return placed


def _agreement(exact: Predict, quick: Predict, rule: Rule, batch: Tensor) -> float:
    expected, found = exact(batch)[0].float(), quick(batch)[0].float()
    if expected.shape[1:] != batch.shape[2:]:
        raise UnevenScores(f"{tuple(batch.shape[2:])} gives {tuple(expected.shape[1:])}")
    if not torch.isfinite(found).all():
        return 0.0
    one, other = decided(expected, rule), decided(found, rule)
    some, others = (_found(decisions, rule, len(expected)) for decisions in (one, other))
    same = float((one == other).double().mean())
    both = int(((one == other) & some).sum())
    either = int(some.sum()) + int(others.sum())
    return min(same, 2 * both / either) if either else same


def _found(decisions: Tensor, rule: Rule, classes: int) -> Tensor:
    """Where anything but the first class is; what is below its `least` is nobody's."""
    return (decisions > 0) & (decisions < classes) if rule.least else decisions > 0
