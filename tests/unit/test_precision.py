"""Half precision is chosen where it decides as float32 does, by class, and where scores alone tell.

Networks of one convolution, whose scores are the samples' own values: what is found and what
bfloat16 makes of it is known. Not covered: real networks (integration/test_engine.py), GPUs.
"""

import pytest
import torch
from torch import Tensor, nn

from inference.engine.labelling import Rule
from inference.engine.precision import Choice, Precision, choose
from inference.errors import OutOfMemory
from tests.fake_device import FakeDevice

SIDE = 32
WHOLE = SIDE**3
LARGEST = Rule(activation="softmax", threshold=None, interpolated=True)
HALF = Rule(activation="sigmoid", threshold=0.5, interpolated=True)
LIKELY = Rule(activation="softmax", threshold=0.5, interpolated=True)
EXACT = Choice(precision=Precision.FLOAT32)


class Scores(nn.Module):
    """Its channels are its scores; one more class, the first, has the score `level`."""

    def __init__(self, level: float | None = None) -> None:
        super().__init__()
        self.level = level

    def forward(self, batch: Tensor) -> Tensor:
        first = () if self.level is None else (torch.full_like(batch[:, :1], self.level),)
        scores = torch.cat([*first, batch], dim=1)
        return scores.bfloat16() if torch.is_autocast_enabled("cpu") else scores


def chosen(network: nn.Module, rule: Rule, *samples: Tensor, bound: float = 0.995) -> Choice:
    device = FakeDevice(memory_bytes=1 << 40, bfloat16=True)
    return choose(network.eval(), device, rule, samples, bound=bound)


def channel(*parts: tuple[int, float], rest: float = 0.0) -> Tensor:
    """So many voxels of each value, one after the other, then `rest`."""
    values = torch.full((WHOLE,), rest)
    start = 0
    for count, value in parts:
        values[start : start + count] = value
        start += count
    return values.reshape(1, SIDE, SIDE, SIDE)


def small_class(sure: int, near: int) -> Tensor:
    """A large class, and a small one: `near` voxels exceed 256 by less than bfloat16 can say."""
    large = channel((16000, 300.0))
    small = channel((16000, 0.0), (sure, 300.0), (near, 256.4))
    return torch.cat([large, small])


def test_the_class_that_agrees_least_decides() -> None:
    """Of all that is found 0.9994 agree, of the small class 0.99."""
    choice = chosen(Scores(256.0), LARGEST, small_class(1000, 20))
    assert choice.precision is Precision.FLOAT32
    assert choice.agreement == pytest.approx(2000 / 2020)


def test_a_class_of_few_voxels_decides_nothing_alone() -> None:
    choice = chosen(Scores(256.0), LARGEST, small_class(300, 4))
    assert choice.precision is Precision.BFLOAT16
    assert choice.agreement == pytest.approx(2 * 16300 / (16300 + 16304))


def test_masks_are_classes_too() -> None:
    logits = torch.cat([channel((9000, 4.0), rest=-4.0), channel((700, 4.0), rest=-4.0)])
    assert chosen(Scores(), HALF, logits).agreement == 1.0
    near = Rule(activation=None, threshold=256.2, interpolated=True)
    lost = torch.cat([channel((9000, 300.0)), channel((700, 300.0), (7, 256.4))])
    assert chosen(Scores(), near, lost).agreement == pytest.approx(1400 / 1407)


@pytest.mark.parametrize(
    ("rule", "level", "sample"),
    [
        (LARGEST, 1000.3, channel(rest=995.7)),  # bfloat16 has every fourth number there
        (LARGEST, 995.7, channel(rest=1000.3)),  # the second class everywhere is no better
        (LARGEST, 1000.3, channel((400, 1100.0), rest=995.7)),
        (LIKELY, 1000.3, channel(rest=995.7)),
        (Rule(activation=None, threshold=999.0, interpolated=True), None, channel(rest=1001.6)),
    ],
    ids=["first class", "second class", "a few voxels", "probabilities", "threshold"],
)
def test_where_float32_decides_alike_everywhere_the_scores_tell(
    rule: Rule, level: float | None, sample: Tensor
) -> None:
    """Every decision agrees, and the scores are far from those of float32."""
    choice = chosen(Scores(level), rule, sample)
    assert choice.precision is Precision.FLOAT32
    assert choice.agreement is not None
    assert 0.8 < choice.agreement < 0.995


@pytest.mark.parametrize("rule", [LARGEST, HALF, LIKELY])
def test_scores_that_stay_are_agreement(rule: Rule) -> None:
    """As of a network that is sure of finding nothing: changes of a third of a per cent."""
    noise = torch.rand(1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    choice = chosen(Scores(None if rule is HALF else 5.0), rule, -6.0 - noise)
    assert choice.precision is Precision.BFLOAT16
    assert choice.agreement is not None
    assert 0.999 < choice.agreement < 1


def test_a_sample_that_tells_decides_for_one_that_does_not() -> None:
    silent, telling = channel(rest=995.7), channel((9000, 1100.0), rest=900.0)
    network = Scores(1000.3)
    assert chosen(network, LARGEST, silent).precision is Precision.FLOAT32
    assert chosen(network, LARGEST, silent, telling).agreement == 1.0


class Overflows(nn.Module):
    """Sure that there is nothing; in half precision its scores are no numbers."""

    def forward(self, batch: Tensor) -> Tensor:
        scores = torch.cat([torch.full_like(batch, 5.0), batch], dim=1)
        return scores * float("nan") if torch.is_autocast_enabled("cpu") else scores


@pytest.mark.parametrize("rule", [LARGEST, LIKELY])
def test_half_precision_whose_scores_are_no_numbers_agrees_with_nothing(rule: Rule) -> None:
    """No comparison with them holds, so they would pass for the nothing that float32 finds."""
    found = chosen(Overflows(), rule, channel(rest=-6.0))
    assert found == Choice(precision=Precision.FLOAT32, agreement=0.0)


def test_one_class_has_no_other() -> None:
    assert chosen(Scores(), LARGEST, channel(rest=3.0)).agreement == 1.0


class Reads(nn.Module):
    """A part of its sequence has another reader, which only its code says."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
        self.again = again
        nn.init.constant_(self.block[1].running_var, 4.0)  # type: ignore[arg-type]

    def forward(self, batch: Tensor) -> Tensor:
        seen: Tensor = self.block(batch)
        return seen + self.block[0](batch) if self.again else seen


class Particular(Reads):
    """Takes its own window alone."""

    def forward(self, batch: Tensor) -> Tensor:
        if batch.shape[-1] != 2 * SIDE:
            raise RuntimeError("a size mismatch")
        return super().forward(batch)


@pytest.mark.parametrize("made", [Reads, Particular])
def test_a_network_that_folding_makes_another_stays_in_float32(made: type[Reads]) -> None:
    sample = torch.randn(1, SIDE, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1))
    assert chosen(made(again=True), LARGEST, sample, bound=0.0) == EXACT
    assert chosen(made(again=False), LARGEST, sample, bound=0.0).precision is Precision.BFLOAT16


class Exhausted(nn.Module):
    """Memory runs out in it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, _batch: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_runs_out_chooses_nothing(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"memory ran out .* agreement = 2"):
        chosen(Exhausted(error), LARGEST, channel())


class Heavy(nn.Sequential):
    """There is no memory for a second one, of which a quicker one is made."""

    def __deepcopy__(self, _memo: object) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_for_a_quicker_network_chooses_nothing() -> None:
    with pytest.raises(OutOfMemory):
        chosen(Heavy(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)).eval(), LARGEST, channel())


def test_other_errors_are_the_networks_own() -> None:
    with pytest.raises(RuntimeError, match="a size mismatch"):
        chosen(Exhausted(RuntimeError("a size mismatch")), LARGEST, channel())
