"""TorchScript networks with a sidecar: from an image to findings on its grid, task by task.

The networks are small and their answers known. Not covered: what the static policy refuses
(test_torchscript_policy.py), real weights (tests/integration/test_real_weights.py), a GPU.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference import phantom, pipeline, regions
from inference.arrays.options import DEFAULTS, Locate
from inference.arrays.rules import RULES
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.models import torchscript
from service import model_add, sidecar
from tests.array_models import artifact, image, label, oblique, planar, scripted

README = Path(__file__).resolve().parents[2] / "deploy" / "models" / "README.md"
BRIGHT = 300.0  # HU


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


class Writes(nn.Module):
    """Writes a file when it runs."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.file)
        return x


def ask(
    network: nn.Module,
    folder: Path,
    seen: Image | PlanarImage,
    *labels: dict[str, Any],
    trusted: bool = False,
    **options: Any,
) -> Findings:
    described = {
        key: options.pop(key)
        for key in ("task", "overlapping", "dimensions", "modalities", "roles")
        if key in options
    }
    file = scripted(network, folder / "net.pt")
    made = artifact(file, labels, options=options, trusted=trusted, **described)
    return pipeline.found_in(seen, torchscript.load({}, made))


def masks(findings: Findings, seen: Image | PlanarImage) -> dict[str, np.ndarray]:
    return {
        one.definition.label: one.mask
        if isinstance(seen, PlanarImage)
        else regions.on_grid(one.mask, seen.volume).whole()
        for one in findings.segments
    }


@pytest.mark.parametrize("orientation", ["source", "RAS", "LPS", "SPL", "AIR"])
def test_whatever_the_orientation_the_mask_is_on_the_grid(orientation: str, tmp_path: Path) -> None:
    seen = oblique()
    found = ask(Bright(), tmp_path, seen, label(1, "Bright"), input={"orientation": orientation})
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
    letter: str, axis: int, sign: int, tmp_path: Path
) -> None:
    seen = oblique()
    others = "".join(pair[0] for pair in ("LR", "PA", "SI") if letter not in pair)
    found = ask(Sides(), tmp_path, seen, label(1, "Half"), input={"orientation": letter + others})
    mask = masks(found, seen)["Half"]
    affine = np.asarray(seen.volume.affine)
    middle, other = (
        (affine @ [*np.argwhere(part).mean(axis=0), 1])[axis] for part in (mask, ~mask)
    )
    assert sign * (middle - other) > 0
    assert 0.4 < mask.mean() < 0.6


def test_resampled_to_a_spacing_and_back(tmp_path: Path) -> None:
    seen = oblique()
    found = ask(
        Bright(),
        tmp_path,
        seen,
        label(1, "Bright"),
        input={"orientation": "RAS", "spacing": [1.0, 1.0, 1.5]},
    )
    mask, truth = masks(found, seen)["Bright"], seen.volume.array > BRIGHT
    assert mask.shape == truth.shape
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("weight", ["gaussian", "constant"])
def test_windows_of_a_local_network_give_what_it_gives_at_once(weight: str, tmp_path: Path) -> None:
    seen = oblique()
    found = ask(
        Bright(),
        tmp_path,
        seen,
        label(1, "Bright"),
        window={"size": [12, 16, 16], "overlap": 0.25, "weight": weight},
        input={"multiple": 5, "pad_value": -1000},
    )
    mask, truth = masks(found, seen)["Bright"], seen.volume.array > BRIGHT
    assert (mask != truth).mean() < 1e-3  # weighted means of equal values are equal up to rounding


def test_slice_by_slice(tmp_path: Path) -> None:
    class Plane(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(nn.functional.avg_pool2d(x, 1) - 300.0)

    seen = oblique()
    found = ask(
        Plane(), tmp_path, seen, label(0, "Bright"), overlapping=True, input={"slicewise": True}
    )
    assert np.array_equal(masks(found, seen)["Bright"], seen.volume.array >= BRIGHT)


def test_channels_may_overlap_each_with_its_threshold(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], dim=1)

    seen = oblique()
    found = masks(
        ask(
            Two(),
            tmp_path,
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


def test_a_label_map_and_what_is_absent_is_said(tmp_path: Path) -> None:
    class Map(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 300.0).to(torch.int64)[:, 0] * 7

    seen = oblique()
    found = ask(
        Map(), tmp_path, seen, label(7, "Seven"), label(8, "Eight"), output={"form": "label_map"}
    )
    assert np.array_equal(masks(found, seen)["Seven"], seen.volume.array > BRIGHT)
    assert "Not found: Eight." in found.limitations


def test_the_largest_component_without_holes(tmp_path: Path) -> None:
    array = np.zeros((9, 9, 20), np.int16)
    array[1:8, 1:8, 1:8] = 1000
    array[4, 4, 4] = 0
    array[1:3, 1:3, 15:18] = 1000
    seen = image(array, np.eye(4))
    found = ask(
        Bright(),
        tmp_path,
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


@pytest.mark.parametrize(
    ("spacing", "error_mm"),
    [([], 0.02), ([0.65, 0.55, 1.3], 0.7)],  # the second: values between voxels are interpolated
)
def test_key_points_lie_between_voxels_where_they_are_in_the_patient(
    spacing: list[float], error_mm: float, tmp_path: Path
) -> None:
    seen = oblique((24, 60, 48))
    marker = np.asarray(phantom.MARKERS[0])
    found = ask(
        Identity(),
        tmp_path,
        seen_alone(seen, marker),
        label(0, "Marker"),
        task="keypoints",
        input={"orientation": "RAS", "spacing": spacing, "multiply": 1 / phantom.MARKER_HU},
    )
    (point,) = found.keypoints
    assert np.linalg.norm(np.asarray(point.position) - marker) < error_mm
    assert point.probability == pytest.approx(0.85, abs=0.15)


def seen_alone(seen: Image, marker: np.ndarray) -> Image:
    """The image of one marker alone."""
    affine = np.asarray(seen.volume.affine)
    indices = np.stack(np.meshgrid(*map(np.arange, seen.volume.spatial_shape), indexing="ij"), -1)
    places = indices @ affine[:3, :3].T + affine[:3, 3]
    squared = ((places - marker) ** 2).sum(-1)
    heat = phantom.MARKER_HU * np.exp(-squared / (2 * phantom.MARKER_WIDTH_MM**2))
    return image(np.rint(heat).astype(np.int16), affine)


@pytest.mark.parametrize(("height", "stated"), [(37.0, None), (0.25, 0.25), (-2.0, None)])
def test_a_height_that_is_no_probability_is_not_called_one(
    height: float, stated: float | None, tmp_path: Path
) -> None:
    array = np.full((4, 6, 6), min(height, 0.0) - 1, np.float32)
    array[2, 3, 3] = height
    found = ask(Identity(), tmp_path, image(array, np.eye(4)), label(0, "Tip"), task="keypoints")
    assert found.keypoints[0].probability == stated


def test_a_key_point_below_its_threshold_is_none(tmp_path: Path) -> None:
    array = np.zeros((4, 6, 6), np.float32)
    array[2, 3, 3] = 0.4
    found = ask(
        Identity(),
        tmp_path,
        image(array, np.eye(4)),
        label(0, "Faint", threshold=0.5),
        task="keypoints",
    )
    assert found.keypoints == ()
    why = "its heat map reaches 0.4, its threshold is 0.5"
    assert f"Not found: Faint ({why})." in found.limitations


def test_a_key_point_of_a_planar_image_is_column_and_row(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.float32)
    pixels[5, 20] = 1.0
    found = ask(
        Identity(),
        tmp_path,
        planar(pixels),
        label(0, "Tip"),
        task="keypoints",
        dimensions=2,
        modalities=["DX"],
    )
    assert found.keypoints[0].position == (20.0, 5.0)


QUESTION = ["246456000", "SCT", "Episodicity"]


def test_the_most_probable_class_with_its_probability(tmp_path: Path) -> None:
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 60)], axis=-1)
    found = ask(
        Means(),
        tmp_path,
        planar(pixels, "XC"),
        label(0, "Red", question=QUESTION),
        label(2, "Blue", question=QUESTION),
        task="classification",
        dimensions=2,
        modalities=["XC"],
        input={"channels": 3, "multiply": [0.1, 0.1, 0.1], "size": [4, 4]},
        output={"activation": "softmax"},
    )
    (answer,) = found.classifications
    outputs = np.exp([1.0, 2.0, 6.0, 3.0])
    assert (answer.answer.meaning, answer.question.value) == ("Blue", QUESTION[0])
    assert answer.probability == pytest.approx(outputs[2] / outputs.sum(), abs=1e-6)


def test_several_answers_each_above_its_threshold(tmp_path: Path) -> None:
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in (0, 20, 60)], axis=-1)
    found = ask(
        Means(),
        tmp_path,
        planar(pixels, "XC"),
        label(0, "Red", question=QUESTION),
        label(1, "Green", question=QUESTION),
        label(2, "Blue", question=QUESTION, threshold=0.999),
        task="classification",
        overlapping=True,
        dimensions=2,
        modalities=["XC"],
        input={"channels": 3, "multiply": 0.1, "add": -1.0},
        output={"activation": "sigmoid"},
    )
    assert [one.answer.meaning for one in found.classifications] == ["Green"]


def test_the_most_probable_class_without_a_label_is_no_other_class(tmp_path: Path) -> None:
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 60)], axis=-1)
    found = ask(
        Means(),
        tmp_path,
        planar(pixels, "XC"),
        label(0, "Red", question=QUESTION),
        label(1, "Green", question=QUESTION),
        task="classification",
        dimensions=2,
        modalities=["XC"],
        input={"channels": 3, "multiply": [0.1, 0.1, 0.1], "size": [4, 4]},
        output={"activation": "softmax"},
    )
    assert found.classifications == ()
    assert "The likeliest class (number 2) has no label: no answer is given." in found.limitations


@pytest.mark.parametrize(("add", "said"), [(-2.0, 0), (2.0, 1)])
def test_one_output_that_is_improbable_is_no_answer(add: float, said: int, tmp_path: Path) -> None:
    found = ask(
        One(),
        tmp_path,
        planar(np.full((8, 8), 100, np.int16), "DX"),
        label(0, "Effusion", question=QUESTION),
        task="classification",
        dimensions=2,
        modalities=["DX"],
        input={"multiply": 0.0, "add": add},
        output={"activation": "sigmoid"},
    )
    assert len(found.classifications) == said


@pytest.mark.parametrize("task", ["segmentation", "classification", "keypoints"])
def test_an_answer_that_is_not_finite_is_an_error_and_not_nothing(
    task: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="not finite"):
        ask(
            Means() if task == "classification" else Identity(),
            tmp_path,
            planar(np.full((8, 8), 100, np.int16), "DX"),
            label(0, "Effusion", question=QUESTION),
            task=task,
            overlapping=True,
            dimensions=2,
            modalities=["DX"],
            input={"channels": 3, "multiply": 1e38},
        )


def test_a_number_with_its_unit_and_interval(tmp_path: Path) -> None:
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 60)], axis=-1)
    found = ask(
        Means(),
        tmp_path,
        planar(pixels, "XC"),
        label(1, "Age", unit=["a", "UCUM", "year"]),
        task="regression",
        dimensions=2,
        modalities=["XC"],
        input={"channels": 3},
        output={"multiply": 2.0, "add": 1.0, "intervals": {"Age": [0, 2]}},
    )
    (number,) = found.measurements
    assert (number.value, number.interval, number.unit.value) == (41.0, (21.0, 121.0), "a")


def test_colour_to_grey_and_one_of_several_outputs(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:5, 3:6] = (200, 100, 50)
    picture = planar(pixels, "XC")
    found = ask(
        Several(),
        tmp_path,
        picture,
        label(0, "Skin", threshold=0.5),
        overlapping=True,
        dimensions=2,
        modalities=["XC"],
        input={"scale": "unit"},
        output={"take": "wanted"},
    )
    assert int(masks(found, picture)["Skin"].sum()) == 9


def test_several_series_are_the_channels_in_the_order_of_their_roles(tmp_path: Path) -> None:
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
        tmp_path,
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
            tmp_path,
            one,
            label(0, "Lesion"),
            overlapping=True,
            modalities=["MR"],
            roles=["t1", "flair"],
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": {}}, "options.inputs: unknown; allowed: file, input, window"),
        ({"input": {"spaceing": [1, 1, 1]}}, "options.input.spaceing: unknown; allowed: orient"),
        ({"input": {"orientation": "RAX"}}, "'RAX' is not allowed; allowed: source, or three"),
        ({"input": {"spacing": [1, 1]}}, "options.input.spacing: 2 numbers; allowed: one an axis"),
        ({"input": {"spacing": [1, 1, 0]}}, r"options.input.spacing: \[1, 1, 0\] is not allowed"),
        ({"input": {"clip": [5, 5]}}, r"options.input.clip: .* allowed: \[\], or \[lowest"),
        ({"input": {"scale": "minmax"}}, "allowed: none, unit, zscore, zscore_nonzero"),
        ({"input": {"channels": 2}}, "options.input.channels: 2 is not allowed; allowed: 1 or 3"),
        ({"input": {"slicewise": 1}}, "options.input.slicewise: 1 .* allowed: true or false"),
        ({"window": {"overlap": 1.0}}, "options.window.overlap: 1.0 .* from 0 to 0.95"),
        ({"window": {"size": [8, 8, 8]}, "output": {"form": "label_map"}}, "cannot be averaged"),
        ({"output": {"activation": "relu"}}, "allowed: none, softmax, sigmoid"),
        ({"output": {"intervals": {"Age": [0, 1]}}}, "options.output.intervals: names no label"),
        ({"output": {"take": 3}}, "options.output.take: the network gives no output 3"),
        ({"locate": {"file": "a.pt"}}, "options.locate.size: is missing"),
        ({"file": "other.pt"}, "other.pt is not among the files that were added"),
        ({"input": {"spacing": [1, 1, 1], "size": [9, 9, 9]}}, "together with spacing"),
    ],
)
def test_options_that_are_not_allowed_are_one_line(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=words) as refused:
        ask(Bright(), tmp_path, oblique(), label(1, "Bright"), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("network", "labels", "described", "words"),
    [
        (Bright(), [label(5, "Five")], {}, "Five has value 5; the network gives 2 outputs"),
        (Identity(), [label(0, "One")], {}, "one channel: output.overlapping = true"),
        (Means(), [label(0, "One")], {}, "the network answers .* allowed: a channel first"),
        (Bright(), [label(0, "No")], {"task": "classification"}, "labels: No: question is missing"),
        (Bright(), [label(0, "No")], {"task": "regression"}, "labels: No: unit is missing"),
        (Bright(), [label(0, "No")], {"task": "detection"}, "answers no boxes"),
        (Bright(), [], {}, "labels: none; allowed: one or more"),
    ],
)
def test_networks_that_do_not_fit_their_sidecar_are_refused(
    network: nn.Module, labels: list[Any], described: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=words):
        ask(network, tmp_path, oblique(), *labels, **described)


def test_an_image_of_another_modality_is_not_analysed(tmp_path: Path) -> None:
    seen = image(np.zeros((3, 4, 5), np.int16), np.eye(4), "MR")
    found = ask(Bright(), tmp_path, seen, label(1, "Bright"))
    assert (found.verdict, found.reason) == (Verdict.NOT_ANALYSED, "not a CT image but MR")


def test_a_network_that_writes_is_refused_unless_trusted(tmp_path: Path) -> None:
    written = tmp_path / "written"
    network, seen = Writes(str(written)), oblique()
    with pytest.raises(ModelRefused, match="aten::save"):
        ask(network, tmp_path, seen, label(0, "One"), overlapping=True)
    assert not written.exists()
    ask(network, tmp_path, seen, label(0, "One"), overlapping=True, trusted=True)
    assert written.exists()


def test_files_that_are_no_torchscript(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    file.write_bytes(b"no archive")
    made = artifact(file, [label(1, "One")], trusted=True)
    with pytest.raises(ModelRefused, match=r"net\.pt does not load as TorchScript"):
        torchscript.load({}, made)
    torch.save({"weight": torch.ones(2)}, file)
    assert torchscript.propose(file) is None
    assert torchscript.propose(tmp_path) is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file = scripted(Bright(), tmp_path / "net.pt")
    made = artifact(file, [label(1, "One")])
    scripted(Identity(), file)
    with pytest.raises(ModelRefused, match=r"net\.pt changed since the model was added"):
        torchscript.load({}, made)


def test_added_by_the_command_with_every_option_to_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    scripted(Bright(), folder / "a.ts")
    scripted(Bright(), folder / "model.ts")
    assert model_add.proposal(folder)[0] == "torchscript"
    model_add.add(folder)
    plain = sidecar.read(folder).plain
    assert plain["options"] == {"file": "model.ts", **DEFAULTS}
    made = artifact(folder, [label(1, "One")], options=plain["options"])
    assert torchscript.load({}, made).predict(oblique()).segments


def test_every_option_and_its_default_is_documented() -> None:
    """In the table of deploy/models/README.md; those of `locate` are the dataclass's."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| .+ \|$", README.read_text(), re.MULTILINE)
    stated = {key: default.strip("`") for key, default in rows if "." in key}
    known = {f"{table}.{key}" for table, keys in RULES.items() for key in keys}
    assert set(stated) == known
    defaults = {
        f"{table}.{key}": value for table in DEFAULTS for key, value in DEFAULTS[table].items()
    }
    for key, value in defaults.items():
        assert json.loads(stated[key]) == value, key
    for field in fields(Locate):
        if field.name not in ("file", "size"):
            assert float(stated[f"locate.{field.name}"]) == field.default


def test_the_same_image_gives_the_same_findings(tmp_path: Path) -> None:
    seen = oblique()
    one, other = (
        ask(
            Bright(),
            tmp_path,
            seen,
            label(1, "Bright"),
            input={"spacing": [1.5, 1.5, 1.5], "orientation": "RAS"},
            window={"size": [16, 16, 16]},
        )
        for _ in range(2)
    )
    assert masks(one, seen)["Bright"].tobytes() == masks(other, seen)["Bright"].tobytes()
