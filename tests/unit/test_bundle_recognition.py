"""A bundle is the engine's only when that has an equal of each of its parts and settings.

Not covered: that its labels are then the bundle's (integration/test_engine.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference.bundles import recipe
from inference.bundles.recognition import Chain, recognised
from tests import bundles
from tests.small_bundles import (
    INVERTED,
    LARGEST,
    SAVED,
    SOFTMAX,
    TURNED,
    bundle,
    chain,
    reading,
    written,
)

Step = Mapping[str, Any]
SPACED = {"_target_": "Spacingd", "keys": "image", "pixdim": [2, 3, 4], "mode": "bilinear"}
SCALED = {"_target_": "NormalizeIntensityd", "keys": "image"}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ABOVE = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
NEAREST = {**INVERTED, "nearest_interp": True}
WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]}


def found(folder: Path, tree: Mapping[str, Any]) -> Chain | None:
    artifact = bundles.artifact(written(folder / "bundle", tree))
    built = recipe.build(artifact.files, artifact.description.options, trusted=True, device="cpu")
    return recognised(built)


def before(*steps: Step) -> dict[str, Any]:
    return bundle(preprocessing=chain(*reading(), *steps))


def after(*steps: Step) -> dict[str, Any]:
    return bundle(postprocessing=chain(*steps, SAVED))


@pytest.mark.parametrize(
    ("tree", "spacing", "rule"),
    [
        (before(TURNED), None, ("softmax", None, True)),
        (before(TURNED, SPACED), (2.0, 3.0, 4.0), ("softmax", None, True)),
        (before(SCALED, TURNED, SPACED, SCALED), (2.0, 3.0, 4.0), ("softmax", None, True)),
        (before(TURNED, {**SPACED, "pixdim": 2.0}), (2.0, 2.0, 2.0), ("softmax", None, True)),
        (after(SIGMOID, INVERTED, ABOVE), None, ("sigmoid", 0.5, True)),
        (after(SIGMOID, ABOVE, NEAREST), None, ("sigmoid", 0.5, False)),
        (after(SOFTMAX, LARGEST, NEAREST), None, ("softmax", None, False)),
        (after(INVERTED, LARGEST), None, (None, None, True)),
    ],
)
def test_a_bundle_of_the_common_kind_is_known_with_its_settings(
    tmp_path: Path, tree: Mapping[str, Any], spacing: Any, rule: Any
) -> None:
    known = found(tmp_path, tree)
    assert known is not None
    assert known.spacing == spacing
    assert (known.rule.activation, known.rule.threshold, known.rule.interpolated) == rule


OTHERS = {
    "one of several": bundle(
        preprocessing={"_target_": "OneOf", "transforms": [*reading(), TURNED]}
    ),
    "a spacing of two axes": before(TURNED, {**SPACED, "pixdim": [2, 2, -1]}),
    "the image after the network": after(SOFTMAX, INVERTED, LARGEST, SCALED),
    "two turns": before(TURNED, TURNED),
    "no turn": before(SCALED),
    "another direction": before({**TURNED, "axcodes": "LPS"}),
    "the nearest orientation": before({**TURNED, "as_closest_canonical": True}),
    "nearest voxels": before(TURNED, {**SPACED, "mode": "nearest"}),
    "zeros outside": before(TURNED, {**SPACED, "padding_mode": "zeros"}),
    "aligned corners": before(TURNED, {**SPACED, "align_corners": True}),
    "a scaled extent": before(TURNED, {**SPACED, "scale_extent": True}),
    "a diagonal affine": before(TURNED, {**SPACED, "diagonal": True}),
    "an affine computed anew": before(TURNED, {**SPACED, "recompute_affine": True}),
    "a spacing that may stay": before(TURNED, {**SPACED, "max_pixdim": [9, 9, 9]}),
    "two spacings": before(TURNED, SPACED, SPACED),
    "a spacing before the turn": before(SPACED, TURNED),
    "a crop": before(TURNED, {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": 8}),
    "a key that may be missing": before(
        TURNED, {**SCALED, "keys": ["image", "label"], "allow_missing_keys": True}
    ),
    "coordinates for the network": bundle(inferer={**WINDOWS, "with_coord": True}),
    "the whole image at once": bundle(inferer={"_target_": "SimpleInferer"}),
    "another activation": after(
        {"_target_": "Activationsd", "keys": "pred", "other": "$lambda x: x + 1"}, INVERTED, LARGEST
    ),
    "one channel a class": after(SOFTMAX, INVERTED, {**LARGEST, "to_onehot": 3}),
    "rounded": after(SIGMOID, INVERTED, {**ABOVE, "rounding": "torchrounding"}),
    "the largest and a threshold": after(SOFTMAX, INVERTED, {**LARGEST, "threshold": 0.5}),
    "a probability of softmax": after(SOFTMAX, INVERTED, ABOVE),
    "labels between labels": after(SIGMOID, ABOVE, INVERTED),
    "another inversion": after(
        SOFTMAX, {**INVERTED, "post_func": "$lambda x: x + 1"}, LARGEST
    ),
    "no inversion": after(SOFTMAX, LARGEST),
    "the largest component": after(
        SOFTMAX,
        INVERTED,
        LARGEST,
        {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_setting_that_the_engine_has_no_equal_of_is_left_to_the_bundle(
    tmp_path: Path, what: str
) -> None:
    assert found(tmp_path, OTHERS[what]) is None
