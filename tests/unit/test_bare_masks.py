"""Masks of bare networks: on the exact grid of the image, whatever lies between.

The networks are small and their answers known. Not covered: the engine (test_bare_engine.py), sides
(test_bare_sides.py), thresholds (test_thresholds.py), real weights
(tests/integration/test_real_weights.py).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference import regions
from inference.errors import ModelError, ModelRefused
from inference.findings import Image, Verdict
from inference.models import torchscript
from tests.array_models import artifact, image, label, oblique, planar, scripted
from tests.bare_networks import (
    BRIGHT,
    Ask,
    Bright,
    Constant,
    Identity,
    Several,
    Sides,
    masks,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("orientation", ["source", "RAS", "LPS", "SPL", "AIR"])
def test_whatever_the_orientation_the_mask_is_on_the_grid(orientation: str, ask: Ask) -> None:
    seen = oblique()
    found = ask(Bright(), seen, label(1, "Bright"), input={"orientation": orientation})
    (segment,) = found.segments
    mask = regions.on_grid(segment.mask, seen.volume).whole()
    assert np.array_equal(mask, seen.volume.array > BRIGHT)
    (volume,) = found.measurements
    expected = int((seen.volume.array > BRIGHT).sum()) * seen.volume.voxel_volume / 1000
    assert volume.value == pytest.approx(expected)
    assert found.limitations == ("Only a test.",)


@pytest.mark.parametrize(
    ("letter", "axis", "sign"),
    [("R", 0, -1), ("L", 0, 1), ("A", 1, -1), ("P", 1, 1), ("S", 2, 1), ("I", 2, -1)],
)
def test_an_index_grows_towards_the_side_that_its_letter_names(
    letter: str, axis: int, sign: int, ask: Ask
) -> None:
    seen = oblique()
    others = "".join(pair[0] for pair in ("LR", "PA", "SI") if letter not in pair)
    found = ask(Sides(), seen, label(1, "Half"), input={"orientation": letter + others})
    mask = masks(found, seen)["Half"]
    affine = np.asarray(seen.volume.affine)
    middle, other = (
        (affine @ [*np.argwhere(part).mean(axis=0), 1])[axis] for part in (mask, ~mask)
    )
    assert sign * (middle - other) > 0
    assert 0.4 < mask.mean() < 0.6


def test_resampled_to_a_spacing_and_back(ask: Ask) -> None:
    seen = oblique()
    found = ask(
        Bright(),
        seen,
        label(1, "Bright"),
        input={"orientation": "RAS", "spacing": [1.0, 1.0, 1.5]},
    )
    mask, truth = masks(found, seen)["Bright"], seen.volume.array > BRIGHT
    assert mask.shape == truth.shape
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("weight", ["gaussian", "constant"])
def test_windows_of_a_local_network_give_what_it_gives_at_once(weight: str, ask: Ask) -> None:
    seen = oblique()
    found = ask(
        Bright(),
        seen,
        label(1, "Bright"),
        window={"size": [12, 16, 16], "overlap": 0.25, "weight": weight},
        input={"multiple": 5, "pad_value": -1000},
    )
    mask, truth = masks(found, seen)["Bright"], seen.volume.array > BRIGHT
    assert (mask != truth).mean() < 1e-3  # weighted means of equal values are equal up to rounding


def test_slice_by_slice(ask: Ask) -> None:
    class Plane(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(nn.functional.avg_pool2d(x, 1) - 300.0)

    seen = oblique()
    found = ask(Plane(), seen, label(0, "Bright"), overlapping=True, input={"slicewise": True})
    assert np.array_equal(masks(found, seen)["Bright"], seen.volume.array >= BRIGHT)


def test_channels_may_overlap_each_with_its_threshold(ask: Ask) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], dim=1)

    seen = oblique()
    found = masks(
        ask(
            Two(),
            seen,
            label(0, "Half"),
            label(1, "Core", threshold=0.9),
            overlapping=True,
            input={"multiply": 0.01, "add": -3.0},
            output={"activation": "sigmoid"},
            calibration={"temperature": 2.0},
        ),
        seen,
    )
    logits = (seen.volume.array * 0.01 - 3.0) / 2.0
    assert np.array_equal(found["Half"], logits >= 0)
    assert np.array_equal(found["Core"], 1 / (1 + np.exp(-logits)) >= 0.9)
    assert found["Core"].sum() < found["Half"].sum()


def test_a_label_map_and_what_is_absent_is_said(ask: Ask) -> None:
    class Map(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 300.0).to(torch.int64)[:, 0] * 7

    seen = oblique()
    found = ask(Map(), seen, label(7, "Seven"), label(8, "Eight"), output={"form": "label_map"})
    assert np.array_equal(masks(found, seen)["Seven"], seen.volume.array > BRIGHT)
    assert "Not found: Eight." in found.limitations


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (1.5, "no label map")],
)
def test_a_label_map_of_no_labels_is_an_error_and_not_nothing(
    value: float, words: str, ask: Ask
) -> None:
    with pytest.raises(ModelError, match=words):
        ask(Constant(value), oblique(), label(1, "One"), output={"form": "label_map"})


def test_a_coarse_answer_that_is_not_finite_is_an_error_and_no_empty_place(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    scripted(Identity(), folder / "model.pt")
    scripted(Constant(float("nan")), folder / "coarse.pt")
    options = {"file": "model.pt", "locate": {"file": "coarse.pt", "size": [8, 8, 8], "channel": 0}}
    made = artifact(folder, [label(0, "Box")], overlapping=True, options=options)
    with pytest.raises(ModelError, match="not finite"):
        torchscript.load({}, made).predict(oblique())


def test_the_largest_component_without_holes(ask: Ask) -> None:
    array = np.zeros((9, 9, 20), np.int16)
    array[1:8, 1:8, 1:8] = 1000
    array[4, 4, 4] = 0
    array[1:3, 1:3, 15:18] = 1000
    seen = image(array, np.eye(4))
    found = ask(
        Bright(),
        seen,
        label(1, "Bright"),
        output={"components": "largest", "fill_holes": True},
    )
    assert int(masks(found, seen)["Bright"].sum()) == 7**3


def test_a_coarse_network_says_where_to_look(tmp_path: Path) -> None:
    """The second network marks the whole of what it sees: the box of what the first marked."""

    class All(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    array = np.zeros((20, 40, 60), np.int16)
    array[5:10, 10:30, 20:50] = 1000
    folder = tmp_path / "two"
    folder.mkdir()
    scripted(All(), folder / "model.pt")
    scripted(Identity(), folder / "coarse.pt")
    made = artifact(
        folder,
        [label(0, "Box")],
        overlapping=True,
        options={
            "file": "model.pt",
            "input": {"orientation": "LPS", "interpolation": "nearest"},
            "locate": {"file": "coarse.pt", "size": [30, 20, 20], "channel": 0, "margin": 0.2},
        },
    )
    affine = np.eye(4)[[2, 1, 0, 3]]  # axial: slices along z
    seen = image(array, affine)
    (segment,) = torchscript.load({}, made).predict(seen).segments
    expected = np.zeros(array.shape, bool)
    expected[4:11, 6:34, 14:56] = True
    assert np.array_equal(regions.on_grid(segment.mask, seen.volume).whole(), expected)
    empty = image(array * 0, affine)
    refused = torchscript.load({}, made).predict(empty)
    assert refused.verdict is Verdict.NOT_ANALYSED
    assert "nothing to look at" in str(refused.reason)


def test_colour_to_grey_and_one_of_several_outputs(ask: Ask) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:5, 3:6] = (200, 100, 50)
    picture = planar(pixels, "XC")
    found = ask(
        Several(),
        picture,
        label(0, "Skin", threshold=0.5),
        overlapping=True,
        dimensions=2,
        modalities=["XC"],
        input={"scale": "unit"},
        output={"take": "wanted"},
    )
    assert int(masks(found, picture)["Skin"].sum()) == 9


def test_several_series_are_the_channels_in_the_order_of_their_roles(ask: Ask) -> None:
    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:] - x[:, :1]

    first, second = np.zeros((3, 4, 5), np.int16), np.zeros((3, 4, 5), np.int16)
    second[1, 2, 3] = 1
    one = image(first, np.eye(4), "MR")
    both = Image(
        volume=one.volume,
        acquisition=one.acquisition,
        roles={"flair": one.volume.with_array(second), "t1": one.volume},
    )
    found = ask(
        Difference(),
        both,
        label(0, "Lesion"),
        overlapping=True,
        modalities=["MR"],
        roles=["t1", "flair"],
    )
    assert np.argwhere(masks(found, both)["Lesion"]).tolist() == [[1, 2, 3]]
    with pytest.raises(ModelRefused, match="no series has the role t1, flair"):
        ask(
            Difference(),
            one,
            label(0, "Lesion"),
            overlapping=True,
            modalities=["MR"],
            roles=["t1", "flair"],
        )


def test_the_same_image_gives_the_same_findings(ask: Ask) -> None:
    seen = oblique()
    one, other = (
        ask(
            Bright(),
            seen,
            label(1, "Bright"),
            input={"spacing": [1.5, 1.5, 1.5], "orientation": "RAS"},
            window={"size": [16, 16, 16]},
        )
        for _ in range(2)
    )
    assert masks(one, seen)["Bright"].tobytes() == masks(other, seen)["Bright"].tobytes()
