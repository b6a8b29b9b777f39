"""Key points, classes and numbers of bundles and TorchScript networks, against known answers.

Networks of MONAI (ResNet, DenseNet, Regressor) and one in the manner of VGG, with seeded random
weights, are compared with the same network called by hand; where a place is known the network is
set by hand. Not covered: trained weights; reports (tests/acceptance/test_annotations.py).
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference import phantom
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.models import monai_bundle, torchscript
from tests import array_models, bundles

QUESTION = ["FINDING", "99TEST", "Finding"]
YEARS = ["a", "UCUM", "year"]
MARKER = phantom.MARKERS[0]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compose(*transforms: Mapping[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def bundle(
    folder: Path,
    network: Mapping[str, Any],
    *,
    before: tuple[Mapping[str, Any], ...] = (),
    after: tuple[Mapping[str, Any], ...] = (),
    outputs: tuple[str, ...] = ("a",),
    code: str | None = None,
) -> Path:
    """A bundle's folder with seeded random weights."""
    read = {"_target_": "LoadImaged", "keys": "image"}
    first = {"_target_": "EnsureChannelFirstd", "keys": "image"}
    tree = {
        "network_def": dict(network),
        "preprocessing": compose(read, first, *before),
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": compose(*after),
    }
    metadata = {
        "name": folder.name,
        "version": "1",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1}},
            "outputs": {"pred": {"channel_def": dict(enumerate(outputs))}},
        },
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(tree))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(bundles.network(folder).state_dict(), folder / "models" / "model.pt")
    return folder


def labels(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [array_models.label(value, name, **more) for value, name in enumerate(names)]


def answered(folder: Path, image: Image | PlanarImage, **changes: Any) -> Findings:
    flat = {"input": {"modalities": ["DX"], "dimensions": 2}}
    changed = (flat if isinstance(image, PlanarImage) else {"input": {"min_slices": 1}}) | changes
    with warnings.catch_warnings(action="ignore"):
        findings = monai_bundle.load({}, bundles.artifact(folder, changed)).predict(image)
    assert findings.verdict is Verdict.MEASURED, findings.reason
    return findings


def by_hand(folder: Path, values: np.ndarray) -> Tensor:
    """The network's outputs for (x, y[, z])."""
    network = bundles.network(folder).eval()
    with torch.inference_mode():
        return network(torch.from_numpy(values.astype(np.float32))[None, None])[0]


def flat_image() -> PlanarImage:
    pixels = np.random.default_rng(3).random((48, 64)).astype(np.float32)
    return array_models.planar(pixels)


# Key points


def passing(folder: Path, dimensions: int) -> Path:
    """A bundle whose heat map is the image itself, resampled: a convolution of one voxel."""
    network = {
        "_target_": "torch.nn.Conv3d" if dimensions == 3 else "torch.nn.Conv2d",
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": 1,
    }
    turn = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
    scale = {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": 0.0,
        "a_max": 2000.0,
        "b_min": 0.0,
        "b_max": 1.0,
    }
    spacing = {
        "_target_": "Spacingd",
        "keys": "image",
        "pixdim": [1.2] * dimensions,
        "mode": "bilinear",
    }
    before = (*([turn] if dimensions == 3 else []), spacing, scale)
    made = bundle(folder, network, before=before, outputs=("ball",))
    weights = {"weight": torch.ones(1, 1, *[1] * dimensions), "bias": torch.zeros(1)}
    torch.save(weights, made / "models" / "model.pt")
    return made


def one_marker(image: Image) -> Image:
    """Only the first marker: the others are far from it."""
    affine = np.asarray(image.volume.affine)
    index = np.indices(image.volume.spatial_shape).reshape(3, -1)
    places = (affine[:3, :3] @ index).T + affine[:3, 3]
    near = np.linalg.norm(places - np.asarray(MARKER), axis=1) < 10
    kept = np.where(near.reshape(image.volume.spatial_shape), image.volume.array, 0)
    return array_models.image(kept.astype(np.int16), affine)


def test_the_top_of_a_heat_map_lies_where_the_ball_is_in_an_oblique_stack(tmp_path: Path) -> None:
    image = one_marker(array_models.oblique((20, 48, 40)))
    folder = passing(tmp_path / "heat", 3)
    (point,) = answered(folder, image, task="keypoints", labels=labels("Ball")).keypoints
    assert np.linalg.norm(np.subtract(point.position, MARKER)) < 0.5
    assert 0.7 < (point.probability or 0) <= 1


def test_the_top_of_a_heat_map_in_a_planar_image(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:80, :120]
    pixels = 2000 * np.exp(-((rows - 30.3) ** 2 / 18 + (columns - 81.6) ** 2 / 72))
    image = array_models.planar(pixels.astype(np.float32))
    folder = passing(tmp_path / "heat", 2)
    (point,) = answered(folder, image, task="keypoints", labels=labels("Ball")).keypoints
    np.testing.assert_allclose(point.position, (81.6, 30.3), atol=0.5)


def test_a_heat_map_below_the_threshold_is_no_point(tmp_path: Path) -> None:
    image = one_marker(array_models.oblique())
    folder = passing(tmp_path / "heat", 3)
    given = labels("Ball", threshold=0.999)
    findings = answered(folder, image, task="keypoints", labels=given)
    assert findings.keypoints == ()
    assert any(
        one.startswith("Not found: Ball (its heat map reaches 0.") for one in findings.limitations
    )


def test_a_flat_heat_map_is_no_point_in_the_corner(tmp_path: Path) -> None:
    image = array_models.image(np.full((8, 24, 20), 700, np.int16), np.diag([1.5, 1.1, 1.3, 1.0]))
    folder = passing(tmp_path / "heat", 3)
    findings = answered(folder, image, task="keypoints", labels=labels("Ball"))
    assert findings.keypoints == ()
    assert "Not found: Ball (its heat map is flat)." in findings.limitations


REGRESSOR = {
    "_target_": "Regressor",
    "in_shape": [1, 64, 48],
    "out_shape": [2, 3],
    "channels": [2, 4],
    "strides": [2, 2],
}


def test_coordinates_are_indices_into_what_the_network_saw(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "points", REGRESSOR)
    image = flat_image()
    expected = by_hand(folder, image.pixels.T).numpy()  # (x or y, point)
    given = {"task": "keypoints", "labels": labels("A", "B", "C")}
    found = answered(folder, image, **given, options={"points": {"form": "coordinates"}})
    for point, place in zip(found.keypoints, expected.T, strict=True):
        np.testing.assert_allclose(point.position, place, atol=1e-4)
        assert point.probability is None
    table = {"form": "coordinates", "unit": "fraction", "reversed": True}
    turned = answered(folder, image, **given, options={"points": table}).keypoints
    for point, (y, x) in zip(turned, expected.T, strict=True):
        np.testing.assert_allclose(point.position, (x * 64 - 0.5, y * 48 - 0.5), atol=1e-3)


def test_coordinates_of_a_stack_are_in_the_patient(tmp_path: Path) -> None:
    shape = {"in_shape": [1, 32, 40, 16], "out_shape": [3, 2]}
    folder = bundle(tmp_path / "points", REGRESSOR | shape)
    image = array_models.oblique((16, 40, 32))
    expected = by_hand(folder, image.volume.array.transpose(2, 1, 0)).numpy().T
    options = {"points": {"form": "coordinates"}}
    found = answered(
        folder, image, task="keypoints", labels=labels("A", "B"), options=options
    ).keypoints
    for point, (x, y, z) in zip(found, expected, strict=True):
        place = np.asarray(image.volume.affine) @ (z, y, x, 1)
        np.testing.assert_allclose(point.position, place[:3], rtol=1e-4, atol=1e-2)


def test_numbers_that_are_no_coordinates_are_a_fault_of_the_model(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "points", REGRESSOR | {"out_shape": [5]})
    options = {"points": {"form": "coordinates"}}
    with pytest.raises(ModelError, match="no points of 2 axes"):
        answered(folder, flat_image(), task="keypoints", labels=labels("A"), options=options)
    with pytest.raises(ModelRefused, match=r"options\.points: allowed"):
        answered(folder, flat_image(), task="keypoints", options={"points": {"form": "map"}})


# Classes

FOUR = ("Clear", "Hazy", "Dense", "Other")
NETWORKS: dict[str, dict[str, Any]] = {
    "DenseNet": {
        "_target_": "DenseNet",
        "in_channels": 1,
        "out_channels": 4,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
    },
    "ResNet": {
        "_target_": "ResNet",
        "block": "basic",
        "layers": [1, 1, 1, 1],
        "block_inplanes": [4, 8, 16, 32],
        "n_input_channels": 1,
        "num_classes": 4,
    },
}


def classifier(folder: Path, network: str, dimensions: int) -> Path:
    made = NETWORKS[network] | {"spatial_dims": dimensions}
    return bundle(folder, made, outputs=FOUR)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("dimensions", [2, 3])
def test_of_exclusive_classes_the_likeliest_with_its_calibrated_probability(
    network: str, dimensions: int, tmp_path: Path
) -> None:
    folder = classifier(tmp_path / network, network, dimensions)
    image = flat_image() if dimensions == 2 else array_models.oblique((16, 40, 32))
    values = image.pixels if isinstance(image, PlanarImage) else image.volume.array
    logits = by_hand(folder, values.T)
    for temperature in (1.0, 2.5):
        options = {"activation": "softmax", "calibration": {"temperature": temperature}}
        given = {"task": "classification", "labels": labels(*FOUR, question=QUESTION)}
        (said,) = answered(folder, image, **given, options=options).classifications
        expected = torch.softmax(logits / temperature, dim=0)
        assert said.answer.meaning == FOUR[int(expected.argmax())]
        assert said.question.value == "FINDING"
        assert said.probability == pytest.approx(float(expected.max()), rel=1e-4)


def test_several_labels_each_with_its_own_threshold_and_platt_s_line(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "multi", "DenseNet", 2)
    image = flat_image()
    logits = by_hand(folder, image.pixels.T)
    lines = {"Clear": [2.0, 0.5], "Hazy": [-1.0, 3.0]}
    named = labels(*FOUR, question=QUESTION, threshold=0.0)
    findings = answered(
        folder,
        image,
        task="classification",
        labels=named,
        output={"overlapping": True},
        options={"activation": "sigmoid", "calibration": {"platt": lines}},
    )
    slopes = [lines.get(name, [1.0, 0.0]) for name in FOUR]
    expected = [
        float(torch.sigmoid(slope * value + add))
        for value, (slope, add) in zip(logits, slopes, strict=True)
    ]
    found = [one.probability for one in findings.classifications]
    assert found == pytest.approx(expected, rel=1e-5)
    between = (sorted(expected)[1] + sorted(expected)[2]) / 2
    fewer = answered(
        folder,
        image,
        task="classification",
        labels=labels(*FOUR, question=QUESTION, threshold=between),
        output={"overlapping": True},
        options={"activation": "sigmoid", "calibration": {"platt": lines}},
    ).classifications
    assert len(fewer) == 2


class Vgg(nn.Module):
    """Blocks of convolutions and halving, then fully connected, as VGG; in 2-D or 3-D."""

    def __init__(self, dimensions: int, outputs: int) -> None:
        super().__init__()
        flat = dimensions == 2
        convolution = nn.Conv2d if flat else nn.Conv3d
        halving = nn.MaxPool2d if flat else nn.MaxPool3d
        average = nn.AdaptiveAvgPool2d if flat else nn.AdaptiveAvgPool3d
        self.features = nn.Sequential(
            convolution(1, 4, 3, padding=1),
            nn.ReLU(),
            halving(2),
            convolution(4, 8, 3, padding=1),
            nn.ReLU(),
            halving(2),
            average(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * 2**dimensions, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def network_of(name: str, dimensions: int, outputs: int) -> nn.Module:
    from monai.networks.nets import DenseNet, ResNet

    torch.manual_seed(11)
    if name == "VGG":
        return Vgg(dimensions, outputs).eval()
    given = {key: value for key, value in NETWORKS[name].items() if key != "_target_"}
    given["out_channels" if name == "DenseNet" else "num_classes"] = outputs
    kind = DenseNet if name == "DenseNet" else ResNet
    made: nn.Module = kind(spatial_dims=dimensions, **given).eval()
    return made


@pytest.mark.parametrize("name", ["VGG", "ResNet", "DenseNet"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_as_torchscript_classifies(name: str, dimensions: int, tmp_path: Path) -> None:
    network = network_of(name, dimensions, len(FOUR))
    image = flat_image() if dimensions == 2 else array_models.oblique((16, 40, 32))
    values = image.pixels if isinstance(image, PlanarImage) else image.volume.array
    with torch.inference_mode():
        logits = network(torch.from_numpy(values.astype(np.float32))[None, None])[0]
    artifact = array_models.artifact(
        array_models.scripted(network, tmp_path / "model.pt"),
        labels(*FOUR, question=QUESTION, threshold=0.0),
        task="classification",
        overlapping=True,
        dimensions=dimensions,
        modalities=["DX", "CT"],
        options={
            "output": {"activation": "sigmoid"},
            "calibration": {"temperature": 2.0, "platt": {"Dense": [1.5, -0.2]}},
        },
    )
    found = torchscript.load({}, artifact).predict(image).classifications
    expected = logits / 2
    expected[2] = 1.5 * expected[2] - 0.2
    assert [one.probability for one in found] == pytest.approx(
        torch.sigmoid(expected).tolist(), rel=1e-4
    )


# Numbers


INTERVALS: dict[str, Any] = {
    "quantiles": [1, 2],
    "sigma": {"sigma": 1},
    "margin": {"margin": 3.5},
}


def expected_ends(outputs: list[float], kind: str) -> tuple[float, float]:
    value = outputs[0]
    if kind == "quantiles":
        return min(outputs[1:3]), max(outputs[1:3])
    half = 3.5 if kind == "margin" else 1.959964 * abs(outputs[1])
    return value - half, value + half


@pytest.mark.parametrize("kind", list(INTERVALS))
def test_a_bundle_s_number_with_its_unit_and_interval(kind: str, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "age", "ResNet", 3)
    image = array_models.oblique((16, 40, 32))
    outputs = by_hand(folder, image.volume.array.T).tolist()
    findings = answered(
        folder,
        image,
        task="regression",
        labels=labels("Age", unit=YEARS),
        options={"activation": "none", "intervals": {"Age": INTERVALS[kind]}},
    )
    (number,) = findings.measurements
    assert number.value == pytest.approx(outputs[0], rel=1e-4)
    assert (number.name.meaning, number.unit.value) == ("Age", "a")
    assert number.interval == pytest.approx(expected_ends(outputs, kind), rel=1e-4)


@pytest.mark.parametrize("kind", list(INTERVALS))
def test_a_torchscript_number_with_its_interval(kind: str, tmp_path: Path) -> None:
    network = network_of("VGG", 2, 3)
    image = flat_image()
    with torch.inference_mode():
        outputs = network(torch.from_numpy(image.pixels)[None, None])[0].tolist()
    artifact = array_models.artifact(
        array_models.scripted(network, tmp_path / "model.pt"),
        labels("Age", unit=YEARS),
        task="regression",
        dimensions=2,
        modalities=["DX"],
        options={"output": {"intervals": {"Age": INTERVALS[kind]}}},
    )
    (number,) = torchscript.load({}, artifact).predict(image).measurements
    assert number.interval == pytest.approx(expected_ends(outputs, kind), rel=1e-4)


def test_calibration_of_a_label_that_is_none_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "wrong", "DenseNet", 2)
    for options, words in (
        ({"activation": "sigmoid", "calibration": {"platt": {"Typo": [1, 0]}}}, "no label: Typo"),
        ({"activation": "softmax", "calibration": {"platt": {"Hazy": [1, 0]}}}, "one by one"),
        ({"activation": "none", "calibration": {"temperature": 2.0}}, "an activation"),
    ):
        changes = {"labels": labels(*FOUR, question=QUESTION), "options": options}
        with pytest.raises(ModelRefused, match=words):
            monai_bundle.load({}, bundles.artifact(folder, changes))
