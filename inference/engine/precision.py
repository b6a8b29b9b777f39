"""Half precision only where the hardware has it and a model's answers stay those of float32.

Both are compared once, when a model is loaded, on windows that are given. The choice is the same
on every start of one machine; other machines may choose otherwise, and bfloat16 gives other last
bits on another processor: results name the arithmetic with which they were computed. Memory that
runs out meanwhile makes no choice: it is an error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce

import torch
from torch import Tensor

from inference.engine import sub_pixel
from inference.engine.device import Device, is_exhausted
from inference.engine.folding import folded, is_same
from inference.engine.labelling import Rule, decided
from inference.engine.sliding_window import Predict, UnevenScores
from inference.errors import OutOfMemory

BOUND = 0.995
ENOUGH = 500  # voxels of a class for its Dice: one of them is a thousandth of it
RADIUS = 5.0  # voxels, of the structure that a change of scores is measured by
SURE = 1e-6  # thresholds nearer to 0 or 1 have no logarithm that says anything
OUT_OF_MEMORY = (
    "memory ran out while half precision was compared with float32 on a window of the model; "
    "agreement = 2 in its options computes in float32 and compares nothing"
)


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

    The agreement is the smallest of the fractions of equal decisions and of the Dices of all that
    is found but the first class, together and of each class with ENOUGH voxels. Where float32
    decides alike everywhere in all samples, decisions say nothing: the scores do (`_steadiness`).
    A network that is another one when its layers are made into quicker ones stays in float32.
    Raises UnevenScores when the network changes the size of a sample, OutOfMemory.
    """
    if bound > 1 or not available(quick, device):
        return Choice(precision=Precision.FLOAT32)
    with torch.inference_mode(), comparing():
        exact = predictor(network, device, Precision.FLOAT32)
        half = predictor(network, device, quick)
        window = samples[0].to(device.torch)
        if quick is Precision.BFLOAT16 and not is_same(network, _quicker(network, device), window):
            return Choice(precision=Precision.FLOAT32)
        agreement = _agreement(exact, half, rule, samples)
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
    network: torch.nn.Module,
    device: Device,
    precision: Precision,
    *,
    channels_last: bool = True,
    by_class: bool = True,
) -> Predict:
    """The network on its device, windows and scores on the caller's; channels last in memory.

    `by_class`: scores are not, as they are compared class by class. Of several outputs (deep
    supervision) the first, which is the full resolution. In bfloat16 batch normalisations are
    folded into convolutions, and transposed ones of few channels become ordinary ones: it is not
    exact anyway, and is measured.
    """
    half = HALVES.get(precision)
    if precision is Precision.BFLOAT16:
        network = _quicker(network, device)

    def predict(batch: Tensor) -> Tensor:
        windows = batch.to(device.torch)
        if channels_last:
            windows = _channels_last(windows)
        with torch.autocast(device.torch.type, half, enabled=half is not None):
            scores = network(windows)
        while isinstance(scores, list | tuple):
            scores = scores[0]
        found = torch.as_tensor(scores)
        return (class_first(found) if by_class else found).to(batch.device)

    return predict


def _quicker(network: torch.nn.Module, device: Device) -> torch.nn.Module:
    made = folded(network)
    return sub_pixel.replaced(made) if device.torch.type == "cpu" else made


def _channels_last(windows: Tensor) -> Tensor:
    """Windows (windows, channels, *size), copied: their strides say it also of a single channel.

    `contiguous` takes that as it is, and then what a convolution makes of it has channels first.
    """
    layout = torch.channels_last_3d if windows.ndim == 5 else torch.channels_last
    return torch.empty_like(windows, memory_format=layout).copy_(windows)


def class_first(scores: Tensor) -> Tensor:
    """Scores (windows, classes, *size), those of a class together in memory as they are read later.

    As the transposed copy of a matrix: torch takes ten times as long for the same with all axes.
    """
    by_voxel = scores.movedim(1, -1)
    if scores.is_contiguous() or not by_voxel.is_contiguous():
        return scores.contiguous()
    by_class = torch.empty_like(scores, memory_format=torch.contiguous_format)
    for given, taken in zip(by_voxel.flatten(1, -2), by_class.flatten(2), strict=True):
        taken.copy_(given.t())
    return by_class


def prepared(network: torch.nn.Module, device: Device, dimensions: int) -> torch.nn.Module:
    """The network on its device, for inference, its weights with channels last."""
    layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last
    placed = network.to(device.torch).eval()
    for parameter in placed.parameters():
        if parameter.ndim == dimensions + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return placed


@contextmanager
def comparing() -> Iterator[None]:
    """Memory that runs out inside raises OutOfMemory: another arithmetic would be no answer."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhausted(error):
            raise
        raise OutOfMemory(OUT_OF_MEMORY) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Voxels of each outcome. `one`, `other`: by either arithmetic; `both`: by both.

    `whole`: of the window; `found`: which of the outcomes are something that is found.
    """

    one: Tensor
    other: Tensor
    both: Tensor
    whole: int
    found: Tensor

    @property
    def tell(self) -> bool:
        """Whether float32 finds something, and not the same everywhere."""
        seen = (self.one >= ENOUGH) & (self.whole - self.one >= ENOUGH)
        return bool((seen & self.found).any())

    @property
    def dices(self) -> list[float]:
        """Of each that either finds in ENOUGH voxels, and of all together."""
        one, other, both = (part[self.found] for part in (self.one, self.other, self.both))
        enough = torch.maximum(one, other) >= ENOUGH
        each = 2 * both[enough] / (one[enough] + other[enough])
        return [2 * float(both.sum()) / float(one.sum() + other.sum()), *each.tolist()]


def _agreement(exact: Predict, quick: Predict, rule: Rule, samples: Sequence[Tensor]) -> float:
    same, dices, steady = [], [], []
    for sample in samples:
        batch = sample[None]
        expected, found = exact(batch)[0].float(), quick(batch)[0].float()
        if expected.shape[1:] != batch.shape[2:]:
            raise UnevenScores(f"{tuple(batch.shape[2:])} gives {tuple(expected.shape[1:])}")
        if not torch.isfinite(found).all():
            return 0.0
        one, other = decided(expected, rule), decided(found, rule)
        same.append(float((one == other).double().mean()))
        counts = _counted(one, other, rule, len(expected))
        if counts.tell:
            dices += counts.dices
        else:
            steady.append(_steadiness(expected, found, rule))
    return min(*same, *(dices or steady))


def _counted(one: Tensor, other: Tensor, rule: Rule, classes: int) -> _Counts:
    """Of masks, one a class, or of labels, of which the first and nobody's are not found."""
    if rule.threshold is not None:
        masks = [part.flatten(1).sum(1).double() for part in (one, other, one & other)]
        found = torch.ones(classes, dtype=torch.bool, device=one.device)
        return _Counts(
            one=masks[0], other=masks[1], both=masks[2], whole=one[0].numel(), found=found
        )
    values = [part.flatten().long() for part in (one, other, one[one == other])]
    sums = [torch.bincount(part, minlength=classes + 1).double() for part in values]
    outcomes = torch.arange(classes + 1, device=one.device)
    found = (outcomes > 0) & (outcomes < classes)
    return _Counts(one=sums[0], other=sums[1], both=sums[2], whole=one.numel(), found=found)


def _steadiness(expected: Tensor, found: Tensor, rule: Rule) -> float:
    """What the changes of scores would do to the Dice of a structure, where none is seen.

    A surface across which scores go from one decision to the other within a voxel is moved by
    `change / (2 * distance)` voxels when scores at a `distance` from another decision change so
    much; a ball of RADIUS voxels whose surface moves by s to and fro has Dice 1 - 3 s / (2 RADIUS).
    """
    if rule.threshold is None and len(expected) == 1:
        return 1.0  # (there is no other decision)
    leading = int(expected.flatten(1).mean(1).argmax())
    before, after = (_distance(scores, rule, leading) for scores in (expected, found))
    moved = ((after - before).abs() / (2 * before.abs())).nan_to_num(nan=0.0).clamp(max=1.0)
    return 1.0 - 1.5 * float(moved.double().mean()) / RADIUS


def _distance(scores: Tensor, rule: Rule, leading: int) -> Tensor:
    """Signed, of scores (classes, *): to the next class, or of each class to its threshold."""
    if rule.threshold is None:
        others = (one for index, one in enumerate(scores) if index != leading)
        return torch.sub(scores[leading], reduce(torch.maximum, others))
    limits = torch.tensor(rule.thresholds(len(scores)), device=scores.device)
    match rule.activation:
        case "softmax":
            scores, limits = scores.log_softmax(0), limits.clamp(min=SURE).log()
        case "sigmoid":
            limits = limits.logit(eps=SURE)
    return scores - limits.reshape(-1, *(1 for _ in scores.shape[1:]))
