"""Classes and numbers of bundles and TorchScript networks, against known answers.

Networks of MONAI (ResNet, DenseNet) and one in the manner of VGG, with seeded random weights, are
compared with the same network called by hand. Not covered: trained weights; key points
(test_keypoint_bundles.py); reports (tests/acceptance/test_annotations.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference.errors import ModelRefused
from inference.findings import PlanarImage
from inference.models import monai_bundle, torchscript
from tests import array_models, bundles
from tests.annotated import (
    FOUR,
    NETWORKS,
    QUESTION,
    answered,
    by_hand,
    classifier,
    flat_image,
    labels,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


YEARS = ["a", "UCUM", "year"]


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
