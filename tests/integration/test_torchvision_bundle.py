"""A bundle whose network is torchvision's runs where that is installed: breast density of the zoo.

Its configuration of 2022 with random weights, compared with the bundle's steps by hand. Not
covered: its real weights; that it says what is missing (test_bundle_conventions.py).
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import TorchVisionFCModel
from monai.transforms import Resize, ScaleIntensity

from inference.description import Task
from inference.models import monai_bundle
from tests import bundles, disc_finder
from tests.array_models import planar

pytestmark = [disc_finder.usable, pytest.mark.usefixtures("one_thread")]

DENSITIES = ("A", "B", "C", "D")
SIZE = [299, 299]
NETWORK: dict[str, Any] = {
    "model_name": "inception_v3",
    "aux_logits": False,
    "num_classes": len(DENSITIES),
    "in_channels": 2048,
    "use_conv": False,
    "pool": "",
}
ON_IMAGE = {"keys": "image"}
CONFIGURATION = {
    "import": ["$import glob", "$import os", "$import torchvision"],
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "TorchVisionFCModel", **NETWORK},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **ON_IMAGE},
            {"_target_": "EnsureChannelFirstd", **ON_IMAGE},
            {"_target_": "ScaleIntensityd", **ON_IMAGE, "minv": 0.0, "maxv": 1.0},
            {"_target_": "Resized", **ON_IMAGE, "spatial_size": SIZE},
        ],
    },
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        ],
    },
}
METADATA = {
    "version": "0.1.0",
    "task": "Breast Density Classification",
    "description": "A pre-trained model for classifying breast images (mammograms)",
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "modality": "Mammogram",
                "num_channels": 3,
                "spatial_shape": [229, 229],
                "channel_def": {"0": "image"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "num_channels": len(DENSITIES),
                "channel_def": {str(n): name for n, name in enumerate(DENSITIES)},
            }
        },
    },
}
FAINT = 1e-10  # of the last layer: random layers before it say 1e10


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # torchvision's, of its own initial weights
        made: torch.nn.Module = TorchVisionFCModel(**NETWORK)
    with torch.no_grad():
        made.fc.weight *= FAINT  # type: ignore[union-attr,operator]
    return made.eval()


def made(folder: Path) -> Path:
    """The bundle with these weights."""
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIGURATION))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    torch.save(network().state_dict(), folder / "models" / "model.pt")
    return folder


def test_it_is_proposed_runs_without_trust_and_says_what_its_own_steps_say(tmp_path: Path) -> None:
    artifact = bundles.artifact(made(tmp_path / "breast_density_classification"))
    description = artifact.description
    assert (description.task, description.dimensions) == (Task.CLASSIFICATION, 2)
    assert description.modalities == ("MG",)
    assert tuple(one.definition.label for one in description.labels) == DENSITIES
    rows, columns = np.mgrid[:400, :300]
    pixels = (np.hypot(rows - 150, columns) < 180) * (500 + rows * 3.0 + columns)
    found = monai_bundle.load({}, artifact).predict(planar(pixels.astype(np.float32), "MG"))
    image = torch.from_numpy(np.repeat(pixels.T[None], 3, axis=0)).float()
    with torch.inference_mode():
        given = torch.as_tensor(Resize(SIZE)(ScaleIntensity(0.0, 1.0)(image)))
        (expected,) = torch.sigmoid(network()(given.as_subclass(torch.Tensor)[None])).tolist()
    said = {one.answer.meaning: one.probability for one in found.classifications}
    above = {name: p for name, p in zip(DENSITIES, expected, strict=True) if p >= 0.5}
    assert 0 < len(above) < len(DENSITIES)
    assert 0.5 < min(above.values()) < max(above.values()) < 0.999
    assert said == pytest.approx(above, rel=1e-4)
