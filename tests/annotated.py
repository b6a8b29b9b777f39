"""Small bundles of every kind of annotation, and what they answer about an image."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference import phantom
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.models import monai_bundle
from tests import array_models, bundles

QUESTION = ["FINDING", "99TEST", "Finding"]
MARKER = phantom.MARKERS[0]


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
