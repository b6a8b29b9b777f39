"""When a class, a voxel or a point counts is the same for bundles and for bare networks.

Both are given the same numbers. Not covered: nnU-Net, which refuses thresholds where classes
compete (test_nnunet_model.py), and boxes (test_detection.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference import peaks, regions
from inference.arrays import answers as bare
from inference.arrays.options import Output
from inference.bundles import answers as bundled
from inference.description import Description
from inference.errors import ModelRefused
from inference.findings import Findings, Image
from inference.models import torchscript
from tests.array_models import artifact, image, label, oblique, scripted

QUESTION = ["246456000", "SCT", "Episodicity"]


class Given(nn.Module):
    """The image as one channel, and what is left to 1 as another before it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([1 - x, x], dim=1)


class Same(nn.Module):
    """What it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def described(tmp_path: Path, thresholds: Sequence[float | None], **described: Any) -> Description:
    """A sidecar with a label for each of these thresholds, from value 0 on."""
    file = scripted(Same(), tmp_path / "net.pt")
    labels = [
        label(value, f"C{value}", question=QUESTION, **given(threshold))
        for value, threshold in enumerate(thresholds)
    ]
    return artifact(file, labels, **described).description


def given(threshold: float | None) -> Mapping[str, float]:
    return {} if threshold is None else {"threshold": threshold}


@pytest.mark.parametrize(
    ("thresholds", "overlapping", "probabilities", "said"),
    [
        ((None, None, None), False, (0.2, 0.5, 0.3), ["C1"]),
        ((None, None, 0.25), False, (0.2, 0.5, 0.3), ["C1", "C2"]),
        ((None, 0.6, 0.4), False, (0.2, 0.5, 0.3), []),
        ((None, 0.5, None), False, (0.2, 0.5, 0.3), ["C1"]),
        ((None, None, None), True, (0.5, 0.4, 0.9), ["C0", "C2"]),
        ((0.6, 0.4, None), True, (0.5, 0.4, 0.9), ["C1", "C2"]),
        ((None,), False, (0.4,), []),
        ((0.3,), False, (0.4,), ["C0"]),
    ],
)
def test_the_classes_of_an_image(
    thresholds: Sequence[float | None],
    overlapping: bool,
    probabilities: Sequence[float],
    said: list[str],
    tmp_path: Path,
) -> None:
    description = described(tmp_path, thresholds, task="classification", overlapping=overlapping)
    ours = bare.classifications(
        torch.tensor(probabilities, dtype=torch.float64), description, Output()
    )
    theirs = bundled.classification(np.array(probabilities), description).classifications
    assert [one.answer.meaning for one in ours] == said
    assert [one.answer.meaning for one in theirs] == said


def ramp() -> Image:
    """From 0 to 1 along the rows, in steps of 1/16."""
    values = np.broadcast_to(np.arange(17, dtype=np.float32) / 16, (5, 6, 17))
    return image(np.ascontiguousarray(values), np.eye(4))


def bright(findings: Findings, seen: Image) -> np.ndarray:
    (segment,) = findings.segments
    return regions.on_grid(segment.mask, seen.volume).whole()


@pytest.mark.parametrize(
    ("threshold", "overlapping", "least"),
    [
        (None, False, 0.5001),  # the first of equals is the background
        (0.75, False, 0.75),
        (0.25, False, 0.5001),  # a voxel is of its likeliest class or of none
        (None, True, 0.5),
        (0.75, True, 0.75),
        (0.25, True, 0.25),
    ],
)
def test_the_voxels_of_a_mask(
    threshold: float | None, overlapping: bool, least: float, tmp_path: Path
) -> None:
    seen = ramp()
    values = np.stack([1 - seen.volume.array, seen.volume.array])
    file = scripted(Given(), tmp_path / "two.pt")
    made = artifact(file, [label(1, "Bright", **given(threshold))], overlapping=overlapping)
    expected = seen.volume.array >= least
    ours = torchscript.load({}, made).predict(seen)
    theirs = bundled.segmentation(values.transpose(0, 3, 2, 1), seen, made.description)
    assert np.array_equal(bright(ours, seen), expected)
    assert np.array_equal(bright(theirs, seen), expected)


def test_what_falls_short_of_its_threshold_is_of_no_other_class(tmp_path: Path) -> None:
    seen = ramp()
    values = np.stack([1 - seen.volume.array, seen.volume.array])
    labels = [label(0, "Dark"), label(1, "Bright", threshold=0.75), label(2, "Third")]
    made = artifact(scripted(Given(), tmp_path / "two.pt"), labels[:2])
    several = artifact(scripted(Given(), tmp_path / "two.pt"), labels)
    ours = torchscript.load({}, made).predict(seen)
    theirs = bundled.segmentation(values.transpose(0, 3, 2, 1), seen, several.description)
    for found in (ours, theirs):
        counted = {
            one.definition.label: int(regions.on_grid(one.mask, seen.volume).whole().sum())
            for one in found.segments
        }
        assert counted == {"Dark": 9 * 30, "Bright": 5 * 30}


def test_a_label_map_has_no_thresholds(tmp_path: Path) -> None:
    seen, file = ramp(), scripted(Same(), tmp_path / "net.pt")
    labels = [label(1, "Bright", threshold=0.5)]
    made = artifact(file, labels, options={"output": {"form": "label_map"}})
    words = "a label map.*says nothing of probabilities; allowed: no threshold"
    with pytest.raises(ModelRefused, match=words):
        torchscript.load({}, made)
    whole = np.rint(seen.volume.array)
    with pytest.raises(ModelRefused, match=words):
        bundled.segmentation(whole.transpose(2, 1, 0)[None], seen, made.description)
    with pytest.raises(ModelRefused, match=words):
        bundled.labelled(whole.astype(np.uint8), seen, made.description)


@pytest.mark.parametrize(
    ("value", "threshold"), [(0.0, None), (1.0, 0.5), (-3.0, None), (0.5, 0.5), (1e-9, None)]
)
def test_a_flat_heat_map_has_no_point(
    value: float, threshold: float | None, tmp_path: Path
) -> None:
    """Equal up to rounding: the maximum of such a map is a corner, or noise."""
    noise = np.random.default_rng(0).uniform(1 - 1e-6, 1, (6, 7, 8))
    seen = image((value * noise).astype(np.float32), np.eye(4))
    file = scripted(Same(), tmp_path / "net.pt")
    made = artifact(file, [label(0, "Tip", **given(threshold))], task="keypoints")
    found = torchscript.load({}, made).predict(seen)
    assert found.keypoints == ()
    assert "Not found: Tip (its heat map is flat)." in found.limitations


def test_a_heat_map_that_is_low_is_not_flat(tmp_path: Path) -> None:
    seen = oblique()
    made = artifact(
        scripted(Same(), tmp_path / "net.pt"),
        [label(0, "Tip")],
        task="keypoints",
        options={"input": {"multiply": 1e-9}},
    )
    assert torchscript.load({}, made).predict(seen).keypoints


def test_a_top_that_reaches_its_threshold_counts() -> None:
    values = np.zeros((3, 4, 5))
    values[1, 2, 3] = 0.5
    top = peaks.top(values)
    assert (top.place, top.height, top.lowest) == ((1.0, 2.0, 3.0), 0.5, 0.0)
    assert top.lacking(0.5) is None
    assert top.lacking(0.51) == "its heat map reaches 0.5, its threshold is 0.51"
