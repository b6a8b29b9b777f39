"""A bundle that looks at a part of the image says how much; one that cuts nothing says nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import CenterSpatialCrop

from inference.bundles import coverage
from inference.findings import Findings, Verdict
from inference.models import monai_bundle
from tests import bundles, detecting
from tests.small_bundles import (
    TURNED,
    bundle,
    chain,
    image,
    model,
    reading,
    written,
)


def cropped(folder: Path, crop: Mapping[str, Any]) -> Findings:
    tree = bundle(preprocessing=chain(*reading(), TURNED, crop))
    return model(bundles.artifact(written(folder, tree))).predict(image())


@pytest.mark.parametrize(
    ("crop", "percent"),
    [
        ({"_target_": "CenterSpatialCropd", "roi_size": [10, -1, 12]}, 50),
        ({"_target_": "ResizeWithPadOrCropd", "spatial_size": [32, 12, 32]}, 50),
        ({"_target_": "CenterScaleCropd", "roi_scale": 0.5}, 12),
        ({"_target_": "SpatialCropd", "roi_start": [0, 0, 0], "roi_end": [20, 24, 3]}, 25),
    ],
)
def test_a_bundle_that_cuts_the_image_says_how_much_it_saw(
    tmp_path: Path, crop: dict[str, Any], percent: int
) -> None:
    found = cropped(tmp_path / "cut", {**crop, "keys": "image"})
    said = f"The model looked at a part of the image only, {percent} % of it: what lies outside"
    assert [one for one in found.limitations if one.startswith(said)]
    assert found.verdict is Verdict.MEASURED


@pytest.mark.parametrize(
    "crop",
    [
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [32, 32, 32]},
        {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [100, 100, 100]},
    ],
)
def test_what_cuts_nothing_but_background_says_nothing(
    tmp_path: Path, crop: dict[str, Any]
) -> None:
    found = cropped(tmp_path / "whole", crop)
    assert not [one for one in found.limitations if "a part of the image" in one]


def test_a_picture_that_is_cut_says_so_too() -> None:
    picture = CenterSpatialCrop((10, 8))(MetaTensor(torch.zeros(1, 10, 16)))
    (said,) = coverage.limits(picture)
    assert " 50 % of it" in said


def test_what_a_detector_did_not_see_is_said(tmp_path: Path) -> None:
    crop = {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [-1, -1, 10]}
    override = {"override": {"preprocessing::transforms::-1": crop}}
    artifact = bundles.artifact(detecting.make(tmp_path / "bright"), {"options": override})
    found = monai_bundle.load({}, artifact).predict(image())
    assert found.verdict is Verdict.MEASURED
    assert [one for one in found.limitations if "a part of the image only" in one]


def test_an_image_without_a_history_is_taken_as_whole() -> None:
    assert coverage.limits(torch.zeros(1, 2, 2)) == ()
