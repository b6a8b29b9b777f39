"""Properties of the geometry gate over an exact phantom: right to 0.1 voxel, or refused by name.

Not covered here: pixel values (test_volume_values), which images are chosen (test_series), files
of real scanners (integration/test_volume_real_data), distortions that keep the headers consistent.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from inference import volume
from inference.errors import InputRefused
from inference.phantom import Grid, Scan, datasets, enhanced, markers
from tests.volumes import grid, grids, marker_error, moved, orientations


def refused(series: Sequence[Dataset]) -> str | None:
    """The reason of a refusal, None when the series is read."""
    try:
        volume.read(series)
    except InputRefused as refusal:
        return str(refusal)
    return None


quick = settings(max_examples=25, deadline=None)


@quick
@given(where=grids, order=st.randoms(use_true_random=False))
def test_any_orientation_and_order_is_placed_right(where, order):
    truth = markers(where)
    shuffled = datasets(truth)
    order.shuffle(shuffled)
    stack = volume.read(shuffled)
    assert marker_error(stack.image.volume, truth) < 0.02
    assert np.array_equal(stack.image.volume.array, truth.hu)
    assert stack.set_aside == ()


@quick
@given(where=grids)
def test_sources_lie_where_their_slice_is(where):
    stack = volume.read(datasets(markers(where))[::-1])
    for index, source in enumerate(stack.sources):
        place = stack.image.volume.affine @ [index, 0, 0, 1]
        header = np.array(source.dataset.ImagePositionPatient, float)
        assert np.abs(place[:3] - header).max() < 1e-4
        assert "PixelData" not in source.dataset


@quick
@given(
    where=grids,
    position=st.floats(0, 0.02),
    orientation=st.floats(0, 1e-5),
    order=st.randoms(use_true_random=False),
)
def test_jitter_in_the_last_digits_is_one_stack(where, position, orientation, order):
    truth = markers(where)
    shaky = datasets(truth, Scan(position_jitter_mm=position, orientation_jitter=orientation))
    order.shuffle(shaky)
    stack = volume.read(shaky)
    assert marker_error(stack.image.volume, truth) < 0.1
    assert np.array_equal(stack.image.volume.array, truth.hu)


@quick
@given(where=grids, frames=st.randoms(use_true_random=False))
def test_enhanced_multi_frame_is_the_same_stack(where, frames):
    truth = markers(where)
    order = list(range(len(truth.hu)))
    frames.shuffle(order)
    stack = volume.read([enhanced(truth.keeping(order))])
    assert np.array_equal(stack.image.volume.array, truth.hu)
    assert marker_error(stack.image.volume, truth) < 0.02
    assert [source.frame_number for source in stack.sources] == [
        order.index(index) + 1 for index in range(len(order))
    ]
    assert len(stack.headers) == 1


@settings(max_examples=60, deadline=None)
@given(
    where=grids,
    size=st.sampled_from([0.02, 0.1, 0.3, 1.0, 4.0]),
    seed=st.integers(0, 2**31),
)
def test_slices_displaced_at_random_are_placed_right_or_refused(where, size, seed):
    offsets = np.random.default_rng(seed).uniform(-size, size, (len(where.positions), 3))
    truth = moved(where, offsets)
    reason = refused(datasets(truth))
    if reason is None:
        assert marker_error(volume.read(datasets(truth)).image.volume, truth) < 0.1
    else:
        assert re.match(r"unevenly|\d+ slices? (is|are) missing|\d+ places? hold|tilted|sh", reason)


@quick
@given(orientation=orientations, degrees=st.floats(0.6, 30), sign=st.sampled_from([-1, 1]))
def test_a_tilted_gantry_is_refused_with_its_angle(orientation, degrees, sign):
    where = grid(orientation, tilt_degrees=sign * degrees)
    with pytest.raises(InputRefused, match=r"^tilted by ") as refusal:
        volume.read(datasets(markers(where)))
    stated = re.match(r"tilted by ([\d.]+) degrees", str(refusal.value))
    assert stated is not None
    assert float(stated[1]) == pytest.approx(degrees, abs=0.02)


@pytest.mark.parametrize(
    ("degrees", "reason"),
    [
        (2.0, "tilted by 2.00 degrees: the slices are shifted sideways by 1.3 mm from "),
        (15.0, "tilted by 15.00 degrees: the slices are shifted sideways by 10.2 mm from "),
    ],
)
def test_tilt_in_words(degrees, reason):
    with pytest.raises(InputRefused) as refusal:
        volume.read(datasets(markers(grid(tilt_degrees=degrees))))
    assert str(refusal.value) == reason + "image 1 at -19.0 mm to image 20 at 19.0 mm"


def test_a_tilt_below_a_tenth_of_a_pixel_is_no_tilt():
    truth = markers(grid(tilt_degrees=0.2))
    assert marker_error(volume.read(datasets(truth)).image.volume, truth) < 0.1


@quick
@given(where=grids, data=st.data())
def test_missing_slices_are_counted(where, data):
    count = len(where.positions)
    lost = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=3))
    truth = markers(where)
    kept = [index for index in range(count) if index not in lost]
    with pytest.raises(InputRefused, match=rf"^{len(lost)} slices? (is|are) missing: "):
        volume.read(datasets(truth.keeping(kept)))


def test_missing_slice_in_words():
    series = datasets(markers(grid()))
    del series[7]
    with pytest.raises(InputRefused) as refusal:
        volume.read(series)
    assert str(refusal.value) == (
        "1 slice is missing: 4.00 mm between image 7 at -7.0 mm and image 9 at -3.0 mm, "
        "where the others lie 2.00 mm apart"
    )


@quick
@given(where=grids, data=st.data())
def test_copies_are_dropped(where, data):
    truth = markers(where)
    series = datasets(truth)
    doubled = data.draw(st.lists(st.sampled_from(series), min_size=1, max_size=4, unique_by=id))
    copies = [copy.deepcopy(item) for item in doubled]
    for number, item in enumerate(copies):
        item.SOPInstanceUID = f"1.2.3.{number + 1}"
    stack = volume.read(series + copies)
    assert np.array_equal(stack.image.volume.array, truth.hu)
    assert {item.reason for item in stack.set_aside} == {"a copy"}
    assert len(stack.set_aside) == len(copies)


def test_the_same_instance_twice_is_a_copy():
    series = datasets(markers(grid()))
    assert len(volume.read([*series, series[3]]).sources) == len(series)


@quick
@given(where=grids, data=st.data())
def test_different_images_at_one_place_are_refused(where, data):
    series = datasets(markers(where))
    index = data.draw(st.integers(0, len(series) - 1))
    other = copy.deepcopy(series[index])
    other.SOPInstanceUID, other.InstanceNumber = "1.2.3", 999
    other.PixelData = bytes(len(other.PixelData))
    place = re.escape(f"image {index + 1} and image 999 at ")
    with pytest.raises(InputRefused, match=rf"^1 place holds different images: {place}"):
        volume.read([*series, other])


def test_a_second_phase_of_equal_size_is_refused_in_words():
    truth = markers(grid())
    arterial = datasets(truth)
    venous = datasets(
        replace(truth, hu=truth.hu + np.int16(50)),
        Scan(series="venous", acquisition_number=2, first_number=21),
    )
    with pytest.raises(InputRefused) as refusal:
        volume.read(arterial + venous)
    assert str(refusal.value) == (
        "20 places hold different images: image 1 and image 21 at -19.0 mm, "
        "image 2 and image 22 at -17.0 mm, image 3 and image 23 at -15.0 mm, "
        "image 4 and image 24 at -13.0 mm and 16 more; the images differ in AcquisitionNumber "
        "(20 and 20 images) and none of these groups is clearly the one meant"
    )


def test_a_short_second_acquisition_is_set_aside():
    truth = markers(grid())
    tracking = replace(truth.keeping([9] * 5), hu=truth.hu[9:14])
    bolus = datasets(tracking, Scan(series="bolus", acquisition_number=2))
    stack = volume.read(datasets(truth) + bolus)
    assert np.array_equal(stack.image.volume.array, truth.hu)
    assert [item.reason for item in stack.set_aside] == [
        "another AcquisitionNumber than the stack"
    ] * 5


def test_an_acquisition_number_for_every_slice_is_one_stack():
    truth = markers(grid())
    series = datasets(truth)
    for number, item in enumerate(series):
        item.AcquisitionNumber = number + 1
    assert np.array_equal(volume.read(series).image.volume.array, truth.hu)


@quick
@given(where=grids, index=st.integers(1, 10), part=st.floats(0.25, 0.75))
def test_uneven_steps_are_refused(where, index, part):
    offsets = np.zeros((len(where.positions), 3))
    offsets[index] = where.normal * part * np.linalg.norm(where.affine[:3, 0])
    with pytest.raises(InputRefused, match=r"^unevenly spaced slices: "):
        volume.read(datasets(moved(where, offsets)))


def test_uneven_steps_in_words():
    where = grid()
    offsets = np.zeros((len(where.positions), 3))
    offsets[10:, 2] = 1.0
    with pytest.raises(InputRefused) as refusal:
        volume.read(datasets(moved(where, offsets)))
    assert str(refusal.value) == (
        "unevenly spaced slices: 2.00 mm between image 1 at -19.0 mm and image 2 at -17.0 mm, "
        "3.00 mm between image 10 at -1.0 mm and image 11 at 2.0 mm"
    )


def test_one_slice_shifted_sideways_is_refused_by_name():
    where = grid()
    offsets = np.zeros((len(where.positions), 3))
    offsets[4, 0] = 3.4  # two columns
    with pytest.raises(InputRefused) as refusal:
        volume.read(datasets(moved(where, offsets)))
    assert str(refusal.value) == (
        "shifted or turned slices: image 5 at -11.0 mm lies 1.00 voxels off the stack"
    )


@quick
@given(where=grids)
def test_a_localizer_without_a_name_is_set_aside_by_its_orientation(where):
    truth = markers(where)
    across = Grid(
        positions=np.zeros((1, 3)),
        right=truth.grid.down,
        down=(where.normal[0], where.normal[1], where.normal[2]),
        pixel_spacing=where.pixel_spacing,
        rows=where.rows,
        columns=where.columns,
    )
    scout = datasets(markers(across), Scan(series="scout"))
    stack = volume.read(scout + datasets(truth))
    assert np.array_equal(stack.image.volume.array, truth.hu)
    assert [item.reason for item in stack.set_aside] == ["another orientation than the stack"]


@given(wrong=st.floats(0.1, 30))
@settings(max_examples=5, deadline=None)
def test_spacing_between_slices_and_slice_thickness_never_place_a_slice(wrong):
    truth = markers(grid())
    series = datasets(truth, Scan(spacing_between_slices_mm=wrong, thickness_mm=wrong))
    assert volume.read(series).image.volume.spacing[0] == pytest.approx(2.0)


@given(shift=st.floats(-2000, 2000), far=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_a_stack_far_from_the_origin_keeps_its_place(shift, far):
    where = grid()
    offset = np.zeros(3)
    offset[far] = shift
    series = datasets(markers(where))
    for item in series:
        position = np.array(item.ImagePositionPatient, float) + offset
        item.ImagePositionPatient = [f"{value:.6f}" for value in position]
    found = volume.read(series).image.volume.affine
    assert np.abs(found[:3, 3] - where.affine[:3, 3] - offset).max() < 1e-5


def test_one_slice_is_no_volume():
    truth = markers(grid())
    with pytest.raises(InputRefused) as refusal:
        volume.read(datasets(truth.keeping([3])))
    assert str(refusal.value) == "a single slice has no spacing: at least two are needed"


def test_two_slices_are_enough():
    stack = volume.read(datasets(markers(grid()).keeping([3, 5])))
    assert stack.image.volume.spacing[0] == pytest.approx(4.0)


def test_all_slices_at_one_place():
    truth = markers(grid())
    positions = np.repeat(truth.grid.positions[:1], len(truth.hu), axis=0)
    series = datasets(replace(truth, grid=replace(truth.grid, positions=positions)))
    with pytest.raises(InputRefused, match=r"^1 place holds different images: "):
        volume.read(series)
