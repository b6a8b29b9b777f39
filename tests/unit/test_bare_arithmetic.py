"""Bare networks compute in bfloat16 only where their decisions stay those of float32.

Not covered: how agreement is counted (test_precision.py), a GPU.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference.arrays import arithmetic
from inference.arrays.model import ArrayModel
from inference.arrays.options import parse
from inference.arrays.running import EXACT, Network, Runner
from inference.engine.precision import Choice, Precision
from inference.models.torchscript import load
from tests.array_models import artifact, label, scripted
from tests.bare_networks import CLASSES, Small, labels, masks, noisy
from tests.fake_device import FakeDevice

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = [16, 16, 16]
PLENTY = 1 << 40


class Fine(nn.Module):
    """Two classes that differ by less than bfloat16 can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv3d(1, 1, 1, bias=False)
        self.same.weight.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.same(x * 0.123)
        return torch.cat([torch.sin(seen * 300.0), torch.cos(seen * 300.0)], dim=1)


def reloaded(file: Path) -> Any:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        return torch.jit.load(file).eval()


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    ("network", "precision"), [(Small(), Precision.BFLOAT16), (Fine(), Precision.FLOAT32)]
)
def test_bfloat16_is_chosen_where_masks_stay_those_of_float32(
    network: nn.Module, precision: Precision, modality: str, overlapping: bool, tmp_path: Path
) -> None:
    device = FakeDevice(memory_bytes=PLENTY, bfloat16=True)
    made = artifact(
        scripted(network, tmp_path / "net.pt"),
        [label(1, "One")],
        options={"window": {"size": WINDOW, "agreement": 0.9}, "input": {"orientation": "AIR"}},
        overlapping=overlapping,
        modalities=[modality],
    )
    options, loaded = parse(made.description), reloaded(tmp_path / "net.pt")
    choice = arithmetic.chosen(Network(loaded, 0), options, made.description, device)
    assert choice.precision is precision
    assert choice.agreement is not None
    assert (choice.agreement >= 0.9) == (precision is Precision.BFLOAT16)


class Near(nn.Module):
    """The second class is the likeliest everywhere, with a probability about nine tenths."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            self.last.weight[:] = torch.tensor([0.0, 1e-5]).reshape(2, 1, 1, 1, 1)
            self.last.bias[:] = torch.tensor([0.0, float(np.log(9.0))])  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x - x.mean())


@pytest.mark.parametrize(
    ("threshold", "precision"), [({}, Precision.BFLOAT16), ({"threshold": 0.9}, Precision.FLOAT32)]
)
def test_agreement_is_that_of_the_decision_which_a_threshold_makes(
    threshold: dict[str, float], precision: Precision, tmp_path: Path
) -> None:
    device = FakeDevice(memory_bytes=PLENTY, bfloat16=True)
    options = {"window": {"size": WINDOW}, "output": {"activation": "softmax"}}
    made = artifact(
        scripted(Near(), tmp_path / "net.pt"), [label(1, "One", **threshold)], options=options
    )
    network = Network(reloaded(tmp_path / "net.pt"), 0)
    choice = arithmetic.chosen(network, parse(made.description), made.description, device)
    assert choice.precision is precision


@pytest.mark.parametrize(
    ("options", "task", "bfloat16"),
    [
        ({"window": {"size": WINDOW, "agreement": 1.1}}, "segmentation", True),
        ({"window": {"size": []}}, "segmentation", True),
        ({"window": {"size": WINDOW}}, "keypoints", True),
        ({"window": {"size": WINDOW}}, "segmentation", False),
    ],
    ids=["above one", "no window", "key points", "not in hardware"],
)
def test_what_is_not_measured_is_float32(
    options: dict[str, Any], task: str, bfloat16: bool, tmp_path: Path
) -> None:
    device = FakeDevice(memory_bytes=PLENTY, bfloat16=bfloat16)
    made = artifact(scripted(Small(), tmp_path / "n.pt"), labels(), options=options, task=task)
    network = Network(Small().eval(), 0)
    assert arithmetic.chosen(network, parse(made.description), made.description, device) == EXACT


@pytest.mark.parametrize(
    ("described", "given", "channels"),
    [
        ({}, {"spacing": [2.0, 1.0, 1.0], "orientation": "SRA", "scale": "zscore"}, 1),
        ({}, {"slicewise": True, "channels": 3}, 3),
        ({"modalities": ["MR"], "roles": ["t1", "flair"]}, {"clip_percentiles": [1, 99]}, 2),
        ({"modalities": ["DX"], "dimensions": 2}, {}, 1),
        ({"modalities": ["XC"], "dimensions": 2}, {"channels": 3}, 3),
    ],
    ids=["CT", "slice by slice", "two series", "planar", "colour"],
)
def test_agreement_is_measured_on_windows_as_the_network_sees_them(
    described: dict[str, Any], given: dict[str, Any], channels: int, tmp_path: Path
) -> None:
    planes = described.get("dimensions") == 2 or given.get("slicewise", False)
    size = [12, 20, 16][planes:]
    options = {"window": {"size": size}, "input": given}
    made = artifact(scripted(Small(), tmp_path / "n.pt"), labels(), options=options, **described)
    seen = list(arithmetic.samples(parse(made.description), made.description))
    again = list(arithmetic.samples(parse(made.description), made.description))
    assert [tuple(one.shape) for one in seen] == [(channels, *size)] * 2
    assert all(torch.equal(one, other) for one, other in zip(seen, again, strict=True))
    assert all(torch.isfinite(one).all() and one.std() > 0 for one in seen)
    assert not torch.equal(*seen)


@pytest.mark.parametrize("slicewise", [False, True])
def test_a_network_in_bfloat16_sees_channels_last_and_says_so(
    slicewise: bool, tmp_path: Path
) -> None:
    """Its masks agree with float32; weights of TorchScript are laid out alike."""

    class Plane(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.only = nn.Conv2d(1, CLASSES, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.only(x * 0.01)

    seen = noisy()
    file = scripted(Plane() if slicewise else Small(), tmp_path / "net.pt")
    window = {"size": WINDOW[slicewise:], "agreement": 2.0}
    made = artifact(file, labels(), options={"window": window, "input": {"slicewise": slicewise}})
    exact = load({}, made)
    device, loaded = FakeDevice(memory_bytes=PLENTY, bfloat16=True), reloaded(file)
    options = parse(made.description)
    quick = ArrayModel(
        requirements=made.requirements,
        description=made.description,
        options=options,
        network=Runner(
            Network(loaded, 0),
            options,
            3 - slicewise,
            device,
            Choice(precision=Precision.BFLOAT16, agreement=1.0),
        ),
    )
    one, other = masks(exact.predict(seen), seen), masks(quick.predict(seen), seen)
    said = [found.predict(seen).computed for found in (quick, exact)]
    assert list(map(str, said)) == ["bfloat16 on cpu", "float32 on cpu"]
    same = [float((one[name] == other[name]).mean()) for name in one]
    assert 0.97 < min(same) < 1
    layout = torch.channels_last if slicewise else torch.channels_last_3d
    assert all(
        weights.is_contiguous(memory_format=layout)
        for weights in loaded.parameters()
        if weights.ndim > 1
    )
