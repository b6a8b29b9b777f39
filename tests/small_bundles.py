"""Plain bundles of one small network, part by part: a test replaces the part that it is about."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import phantom, regions, volume
from inference.bundles import recipe
from inference.findings import Findings, Image
from inference.models import Artifact
from inference.models.monai_bundle import BundleModel
from tests import bundles
from tests.volumes import turned

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}
TURNED = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
INVERTED = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
}
LARGEST = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SAVED = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "eval"}


def chain(*steps: Mapping[str, Any]) -> dict[str, Any]:
    """Transforms one after the other."""
    return {"_target_": "Compose", "transforms": list(steps)}


def reading(keys: str | list[str] = "image", **more: Any) -> tuple[dict[str, Any], ...]:
    """What a chain begins with."""
    return (
        {"_target_": "LoadImaged", "keys": keys, **more},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
    )


def bundle(**changes: Any) -> dict[str, Any]:
    """A plain bundle of one series and two structures, with parts replaced."""
    return {
        "bundle_root": ".",
        "network_def": NETWORK,
        "preprocessing": chain(*reading(), TURNED),
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
        "postprocessing": chain(SOFTMAX, INVERTED, LARGEST, SAVED),
        **changes,
    }


def metadata(channels: int = 1, **image: Any) -> dict[str, Any]:
    """What a plain bundle says of itself; `image`: more of what it says of its image."""
    names = {"0": "background", "1": "liver", "2": "spleen"}
    stated = {"modality": "CT", "num_channels": channels, "channel_def": {"0": "image"}}
    return {
        "name": "Conventions",
        "version": "1",
        "network_data_format": {
            "inputs": {"image": stated | image},
            "outputs": {"pred": {"channel_def": names}},
        },
    }


def written(
    folder: Path,
    tree: Mapping[str, Any],
    stated: Mapping[str, Any] | None = None,
    *,
    weights: Any = None,
    code: Mapping[str, str] = {},
) -> Path:
    """A bundle's folder: its configuration and metadata, seeded weights of its network or others.

    `stated`: its metadata, those of a plain one when None; `code`: files of its own by name.
    """
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(tree))
    (folder / "configs" / "metadata.json").write_text(json.dumps(stated or metadata()))
    for name, text in code.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if weights is None:
        weights = bundles.network(folder).state_dict()
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def model(artifact: Artifact) -> BundleModel:
    """By its own parts alone."""
    built = recipe.build(
        artifact.files,
        artifact.description.options,
        trusted=artifact.trusted,
        device="cpu",
    )
    return BundleModel(
        recipe=built, description=artifact.description, requirements=artifact.requirements
    )


def image() -> Image:
    """Markers in a small oblique stack whose three spacings differ."""
    right, down = turned((0.1, 0.2, -0.3))
    grid = phantom.regular((12, 24, 20), (3.0, 2.0, 1.5), right=right, down=down)
    return volume.read(phantom.datasets(phantom.markers(grid, base=20), phantom.Scan())).image


def label_map(found: Findings, seen: Image, values: Mapping[str, int]) -> np.ndarray:
    """Segments on the image's grid, each by the value of its label."""
    whole = np.zeros(seen.volume.spatial_shape, np.int32)
    for segment in found.segments:
        mask = regions.on_grid(segment.mask, seen.volume).whole()
        whole[mask] = values[segment.definition.label]
    return whole
