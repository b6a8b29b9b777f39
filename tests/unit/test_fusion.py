"""Series on the grid of the first: every place where it belongs, or a refusal that says why.

Not covered: series that a scanner says lie in one frame of reference though the patient moved.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import fusion, phantom, volume
from inference.errors import InputRefused
from inference.phantom import Grid, Scan
from inference.volume import Stack

FIRST = phantom.regular((24, 40, 36), (2.0, 1.5, 1.5))


def stack(grid: Grid = FIRST, series: str = "T1", reference: str | None = None) -> Stack:
    """A series of place-dependent values: linear in x, y and z, so that interpolation is exact."""
    found = volume.read(phantom.datasets(phantom.markers(grid), Scan(series=series)))
    image = found.image.volume
    places = np.indices(image.spatial_shape, dtype=np.float64).reshape(3, -1)
    x, y, z = image.affine[:3, :3] @ places + image.affine[:3, 3:]
    values = (2 * x - 3 * y + 5 * z).reshape(image.spatial_shape).astype(np.float32)
    made = image.with_array(values)
    if reference is not None:
        made = type(made)(values, made.affine, "PATIENT", frame_of_reference_uid=reference or None)
    return replace(found, image=replace(found.image, volume=made))


def of(fused: Stack, role: str) -> NDArray[np.float32]:
    return np.asarray(fused.image.roles[role].array)


def test_a_series_on_the_same_grid_is_taken_as_it_is() -> None:
    one, two = stack(), stack(series="T2")
    fused = fusion.fused(one, {"T2": two}, role="T1")
    assert list(fused.image.roles) == ["T1", "T2"]
    assert np.array_equal(of(fused, "T2"), two.image.volume.array)
    assert fused.notes == one.notes


@pytest.mark.parametrize(
    "grid",
    [
        phantom.regular((60, 90, 90), (1.0, 1.0, 1.0)),
        phantom.regular((30, 60, 60), (4.0, 2.0, 2.0)),
        phantom.regular((60, 60, 60), (2.0, 2.0, 2.0), right=(0, 1, 0), down=(0, 0, -1)),
        phantom.regular((60, 70, 70), (2.0, 2.0, 2.0), right=(0.8, 0.6, 0), down=(-0.6, 0.8, 0)),
    ],
    ids=["finer", "coarser", "sagittal", "oblique"],
)
def test_every_voxel_has_the_value_of_its_place(grid: Grid) -> None:
    one, two = stack(), stack(grid, "T2")
    fused = fusion.fused(one, {"T2": two}, role="T1")
    assert fused.image.roles["T2"].geometry_equal(one.image.volume)
    assert np.allclose(of(fused, "T2"), one.image.volume.array, atol=1e-2)


def test_what_another_series_does_not_show_is_background_and_told() -> None:
    short = phantom.regular((22, 40, 36), (2.0, 1.5, 1.5))
    one, two = stack(), stack(short, "T2")
    fused = fusion.fused(one, {"T2": two}, role="T1")
    shown = of(fused, "T2") != two.image.volume.array.min()
    assert 0.88 < shown.mean() < 0.96
    assert fused.notes[-1].startswith("T2 shows 9")


def test_of_one_field_of_view_in_coarser_voxels_nothing_is_background() -> None:
    one = stack()
    two = stack(phantom.regular((12, 20, 18), (4.0, 3.0, 3.0)), "T2")
    fused = fusion.fused(one, {"T2": two}, role="T1")
    assert fused.notes == one.notes
    difference = np.abs(of(fused, "T2") - one.image.volume.array)
    assert difference.max() <= (2 * 0.75 + 3 * 0.75 + 5 * 1.0) + 1e-2  # a quarter of a voxel


def test_a_series_of_another_patient_is_refused() -> None:
    grid = phantom.markers(FIRST)
    other = volume.read(phantom.datasets(grid, Scan(series="T2", patient_id="OTHER")))
    with pytest.raises(InputRefused, match=r"^T2 names another patient than the first series$"):
        fusion.fused(stack(), {"T2": other}, role="T1")


def test_a_series_that_shows_too_little_is_refused() -> None:
    two = stack(phantom.regular((10, 40, 36), (2.0, 1.5, 1.5)), "T2")
    with pytest.raises(InputRefused, match=r"^T2 shows only 4\d% of what the first series does$"):
        fusion.fused(stack(), {"T2": two}, role="T1")


@pytest.mark.parametrize(
    ("reference", "words"),
    [("1.2.3", "T2 lies in another frame of reference"), ("", "no frame of reference")],
)
def test_only_a_common_frame_of_reference_relates_two_series(reference: str, words: str) -> None:
    with pytest.raises(InputRefused, match=words):
        fusion.fused(stack(), {"T2": stack(series="T2", reference=reference)}, role="T1")
