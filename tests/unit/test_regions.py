"""Regions: a mask on the whole grid and the same in its bounding box say the same.

Not covered here: how results are encoded from regions (test_encoding_segmentation.py).
"""

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inference import phantom, regions

SHAPE = (6, 9, 7)
AXES = ((0,), (1, 2), (0, 1, 2))


def grid() -> hd.Volume:
    turned = {"right": (0.8, 0.6, 0.0), "down": (-0.6, 0.8, 0.0)}
    made = phantom.markers(phantom.regular(SHAPE, (3.0, 2.0, 2.5), **turned))
    return hd.Volume(made.hu, made.affine, "PATIENT")


def sparse(seed: int, share: float = 0.02) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(SHAPE) < share


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999))
def test_a_region_is_its_mask(seed: int) -> None:
    mask = sparse(seed)
    region = regions.of_mask(mask)
    assert np.array_equal(region.whole(), mask)
    assert np.array_equal(region.transposed().whole(), mask.transpose())
    for axis, size in enumerate(SHAPE):
        for index in range(size):
            assert np.array_equal(region.plane(index, axis), mask.take(index, axis=axis))
    assert region.reaches_the_ends() == bool(mask[[0, -1]].any())
    places = np.argwhere(mask)
    if len(places):
        assert region.begin == tuple(places.min(axis=0))
        assert region.mask.shape == tuple(np.ptp(places, axis=0) + 1)
    else:
        assert region.mask.size == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), share=st.sampled_from([0.0, 0.004, 0.02, 0.2]))
def test_regions_overlap_where_their_masks_do(seed: int, share: float) -> None:
    one, other = sparse(seed, share), sparse(seed + 1, 0.02)
    found = regions.of_mask(one).overlaps(regions.of_mask(other))
    assert found == regions.of_mask(other).overlaps(regions.of_mask(one))
    assert found == bool((one & other).any())


def test_a_region_of_an_image_is_one_of_a_stack_of_it_alone() -> None:
    mask = sparse(3, 0.1)[2]
    assert np.array_equal(regions.of_mask(mask).as_stack().whole(), mask[None])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999))
def test_flips_permutations_and_crops_are_undone(seed: int) -> None:
    volume, mask = grid(), sparse(seed, 0.1)
    whole = volume.with_array(mask)
    assert np.array_equal(regions.on_grid(whole, volume).whole(), mask)
    part = regions.of_mask(mask).in_patient(volume)
    turned = part.permute_spatial_axes([2, 0, 1])
    for one in (part, turned, *(part.flip_spatial(list(axes)) for axes in AXES)):
        assert np.array_equal(regions.on_grid(one, volume).whole(), mask)
    floats = part.with_array(part.array.astype(np.float32))
    assert np.array_equal(regions.on_grid(floats, volume).whole(), mask)


def test_what_lies_beyond_the_grid_is_left_out() -> None:
    volume, mask = grid(), np.ones(SHAPE, np.bool_)
    region = regions.on_grid(volume.with_array(mask), volume[1:5, 2:, :])
    assert region.shape == (4, 7, 7)
    assert region.whole().all()


@pytest.mark.parametrize("away", [0.3, 1e-3])
def test_a_mask_between_the_voxels_is_refused(away: float) -> None:
    volume = grid()
    affine = volume.affine.copy()
    affine[:3, 3] += away * affine[:3, 0]
    moved = hd.Volume(np.ones(SHAPE, np.bool_), affine, "PATIENT")
    with pytest.raises(RuntimeError, match="non-integer"):
        regions.on_grid(moved, volume)


def test_the_values_of_a_label_map_have_their_regions() -> None:
    labels = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
    labels[labels == 3] = 4
    wanted = (4, 0, 3, 1, 200)
    for value, region in zip(wanted, regions.of_labels(labels, wanted), strict=True):
        if region is None:
            assert value in (3, 200)
        else:
            assert np.array_equal(region.whole(), labels == value)


def test_a_region_keeps_nothing_of_the_whole_alive() -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[2:4, 3, 5] = True
    assert regions.of_mask(mask).mask.base is None
    labels = mask.astype(np.uint8)
    (region,) = regions.of_labels(labels, [1])
    assert region is not None
    assert region.mask.base is None
