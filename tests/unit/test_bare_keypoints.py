"""Key points of bare networks: where the top of a heat map lies in the patient, slab by slab.

Not covered: flat maps and thresholds, which bundles share (test_thresholds.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import peaks, phantom
from inference.arrays import keypoints
from inference.arrays.options import Output
from inference.engine.sliding_window import Slab
from inference.findings import Image
from tests.array_models import artifact, image, label, oblique, planar
from tests.bare_networks import (
    Ask,
    Identity,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (20, 44, 36)


@pytest.mark.parametrize(
    ("spacing", "error_mm"),
    [([], 0.02), ([0.65, 0.55, 1.3], 0.7)],  # the second: values between voxels are interpolated
)
def test_key_points_lie_between_voxels_where_they_are_in_the_patient(
    spacing: list[float], error_mm: float, ask: Ask
) -> None:
    seen = oblique((24, 60, 48))
    marker = np.asarray(phantom.MARKERS[0])
    found = ask(
        Identity(),
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
    height: float, stated: float | None, ask: Ask
) -> None:
    array = np.full((4, 6, 6), min(height, 0.0) - 1, np.float32)
    array[2, 3, 3] = height
    found = ask(Identity(), image(array, np.eye(4)), label(0, "Tip"), task="keypoints")
    assert found.keypoints[0].probability == stated


def test_a_key_point_below_its_threshold_is_none(ask: Ask) -> None:
    array = np.zeros((4, 6, 6), np.float32)
    array[2, 3, 3] = 0.4
    found = ask(
        Identity(),
        image(array, np.eye(4)),
        label(0, "Faint", threshold=0.5),
        task="keypoints",
    )
    assert found.keypoints == ()
    why = "its heat map reaches 0.4, its threshold is 0.5"
    assert f"Not found: Faint ({why})." in found.limitations


def test_a_key_point_of_a_planar_image_is_column_and_row(ask: Ask) -> None:
    pixels = np.zeros((20, 30), np.float32)
    pixels[5, 20] = 1.0
    found = ask(
        Identity(),
        planar(pixels),
        label(0, "Tip"),
        task="keypoints",
        dimensions=2,
        modalities=["DX"],
    )
    assert found.keypoints[0].position == (20.0, 5.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(6))
def test_tops_found_in_slabs_are_those_of_the_whole_map(
    axis: int, thickness: int, seed: int
) -> None:
    """Whole numbers have equal maxima: the first in the order of the array is taken."""
    generator = np.random.default_rng(seed)
    shape = (2, 12, 9, 10)
    values = (generator.integers(0, 4, shape) if seed % 2 else generator.random(shape)).astype(
        np.float32
    )
    maps, planes = torch.from_numpy(values), shape[axis + 1]
    slabs = (
        Slab(start=start, scores=maps.narrow(axis + 1, start, min(thickness, planes - start)))
        for start in range(0, planes, thickness)
    )
    wanted = artifact_labels()
    found = keypoints.tops(slabs, axis, planes, wanted, Output())
    expected = [peaks.top(one.astype(np.float64)) for one in values]
    assert found == expected


def artifact_labels() -> Any:
    """Two labels, of channels 0 and 1."""
    here = Path(__file__)
    return artifact(here, [label(0, "A"), label(1, "B")], task="keypoints").description.labels


def test_key_points_of_a_heat_map_in_windows(ask: Ask) -> None:
    """A window at a time or all at once: the same place to a thousandth of a voxel."""
    seen = oblique(SHAPE)
    places = []
    for size in ([], [8, 12, 12], [20, 12, 12]):
        options = {"window": {"size": size}, "input": {"orientation": "RAS"}}
        (point,) = ask(Identity(), seen, label(0, "Tip"), task="keypoints", **options).keypoints
        places.append(point.position)
    assert np.ptp(places, axis=0).max() < 1e-3
