"""The phantom is what its truth says, the same for the same seed, and written as the standard asks.

Not covered here: whether a lung model finds it plausible (tests of the model), beauty.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference import anatomy, phantom
from inference.phantom import MARKERS, Scan, datasets, enhanced, markers, regular, thorax
from tests.volumes import grids

CHEST = thorax(noise_hu=0.0, blur_mm=0.0)


def test_the_same_seed_gives_the_same_bytes():
    small = [thorax((8, 32, 32), (30.0, 12.0, 12.0), seed) for seed in (1, 1, 2)]
    assert np.array_equal(small[0].hu, small[1].hu)
    assert not np.array_equal(small[0].hu, small[2].hu)
    written = [[item.to_json() for item in datasets(one)] for one in small]
    assert written[0] == written[1]
    uids = [{item.SOPInstanceUID for item in datasets(one)} for one in small]
    assert uids[0].isdisjoint(uids[2])


def test_lungs_are_two_of_the_size_of_lungs():
    litres = 3.0 * 2.2 * 2.2 / 1e6
    for side in ("right_lung", "left_lung"):
        assert ndimage.label(CHEST.truth[side])[1] <= 3  # a bronchus may cut a corner off
        assert 1.5 < CHEST.truth[side].sum() * litres < 3.5
    assert not (CHEST.truth["right_lung"] & CHEST.truth["left_lung"]).any()


def test_the_right_lung_is_on_the_patients_right():
    for side, sign in (("right_lung", -1), ("left_lung", 1)):
        middle = CHEST.affine @ [*ndimage.center_of_mass(CHEST.truth[side]), 1]
        assert sign * middle[0] > 40  # LPS: x grows to the left


def test_the_airway_is_one_tree_of_air_from_the_neck_to_both_lungs():
    airway = CHEST.truth["airway"]
    assert (CHEST.hu[airway] == anatomy.AIR).all()
    assert airway[-1].any()
    counts = [ndimage.label(plane)[1] for plane in airway]
    carina = int(np.flatnonzero(np.array(counts) >= 2).max())
    assert counts[carina + 2 :] == [1] * len(counts[carina + 2 :])
    for side in ("right_lung", "left_lung"):
        near = ndimage.binary_dilation(CHEST.truth[side], iterations=3)
        assert (near & airway).any()


def test_air_of_lungs_and_airway_never_touches():
    parenchyma = (CHEST.truth["right_lung"] | CHEST.truth["left_lung"]) & (CHEST.hu == -850)
    trachea = CHEST.truth["airway"].copy()
    trachea[:70] = False  # below: bronchi, whose walls are thinner than a voxel
    assert not (ndimage.binary_dilation(trachea) & parenchyma).any()


def test_lungs_have_vessels_and_air():
    lungs = CHEST.truth["right_lung"] | CHEST.truth["left_lung"]
    values = CHEST.hu[lungs]
    assert 0.90 < (values == -850).mean() < 0.995
    assert (values == anatomy.BLOOD).any()


def test_bullae_are_darker_than_lung():
    emphysema = thorax((50, 88, 88), (6.0, 4.4, 4.4), bullae=12, noise_hu=0.0, blur_mm=0.0)
    lungs = emphysema.truth["right_lung"] | emphysema.truth["left_lung"]
    assert 0.005 < (emphysema.hu[lungs] < -950).mean() < 0.3


def test_noise_has_the_asked_width_and_padding_its_place():
    noisy = thorax((10, 64, 64), (25.0, 7.0, 7.0), noise_hu=30.0, padding_hu=-3024)
    outside = noisy.hu[:, :9, 22:42]
    assert np.std(outside[outside > -3024]) == pytest.approx(30, abs=3)
    assert (noisy.hu[:, 0, 0] == -3024).all()


@settings(max_examples=20, deadline=None)
@given(where=grids)
def test_markers_peak_at_their_places(where):
    truth = markers(where)
    inverse = np.linalg.inv(truth.affine)
    for place in MARKERS:
        index = tuple(np.rint((inverse @ [*place, 1])[:3]).astype(int))
        assert truth.hu[index] > 500


@settings(max_examples=20, deadline=None)
@given(where=grids)
def test_points_of_a_regular_grid_follow_its_affine(where):
    last = len(where.positions) - 1
    point = where.points(last)[3, 5]
    assert np.allclose((where.affine @ [last, 3, 5, 1])[:3], point)


def test_tilt_moves_slices_along_their_columns():
    steps = np.diff(regular((5, 8, 8), (2.0, 1.0, 1.0), tilt_degrees=15).positions, axis=0)
    assert np.allclose(steps, [0, 2 * np.tan(np.deg2rad(15)), 2])


@pytest.mark.parametrize("signed", [True, False])
def test_stored_pixels_rescale_to_the_phantom(signed):
    small = thorax((6, 32, 32), (30.0, 12.0, 12.0))
    for index, item in enumerate(datasets(small, Scan(signed=signed, slopes=(1.0, 0.5)))):
        stored = np.frombuffer(item.PixelData, "<i2" if signed else "<u2").reshape(32, 32)
        values = stored * float(item.RescaleSlope) + float(item.RescaleIntercept)
        assert np.array_equal(values, small.hu[index])


def test_an_enhanced_instance_describes_every_frame():
    small = thorax((6, 32, 32), (30.0, 12.0, 12.0))
    item = enhanced(small)
    assert len(item.PerFrameFunctionalGroupsSequence) == item.NumberOfFrames == 6
    assert len(item.PixelData) == 6 * 32 * 32 * 2


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit 12 bits"):
        datasets(thorax((4, 16, 16), (60.0, 25.0, 25.0)), Scan(bits_stored=12, intercepts=(0.0,)))


@given(value=st.floats(-5000, 5000, allow_nan=False))
def test_decimal_strings_are_short_and_exact_enough(value):
    (text,) = phantom.decimals([value])
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, abs=1e-5)


def test_without_contrast_agent_the_phantom_stays_as_it_was():
    named = {"body", "right_lung", "left_lung", "airway"}
    assert set(CHEST.truth) == named
    enhanced_chest = thorax(noise_hu=0.0, blur_mm=0.0, contrast_hu=300)
    assert named < set(enhanced_chest.truth)
    same = ~enhanced_chest.truth["vessels"]
    assert np.array_equal(enhanced_chest.hu[same], CHEST.hu[same])


def test_contrast_agent_is_where_the_truth_says_and_nowhere_else():
    small = thorax((70, 200, 290), (2.0, 1.25, 1.25), noise_hu=0.0, blur_mm=0.0, contrast_hu=300)
    assert np.array_equal(small.hu == 300, small.truth["vessels"])
    assert not (small.truth["vessels"] & small.truth["airway"]).any()
    names = [*anatomy.LARGE, *(f"tube_{radius}" for radius in anatomy.TUBES_MM)]
    assert all((small.hu[small.truth[name]] == 300).all() for name in names)
    assert ndimage.label(small.truth["aorta"], np.ones((3, 3, 3)))[1] == 1
    wide = small.truth["tube_4.0"].any(axis=(1, 2)).nonzero()[0][10]
    assert small.truth["tube_4.0"][wide].sum() * 1.25**2 == pytest.approx(np.pi * 16, rel=0.15)
