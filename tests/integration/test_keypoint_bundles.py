"""Key points of bundles with a heat map or with coordinates, where the place is known.

The network is set by hand. Not covered: trained weights; reports
(tests/acceptance/test_annotations.py).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.errors import ModelError, ModelRefused
from inference.findings import Image
from tests import array_models
from tests.annotated import MARKER, answered, bundle, by_hand, flat_image, labels

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


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
