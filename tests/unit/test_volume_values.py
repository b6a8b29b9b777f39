"""What the voxels mean: rescale, signedness, padding, compression, and what is refused.

Not covered here: geometry (test_volume_geometry), JPEG Lossless and the files of real scanners
(integration/test_volume_real_data), values of PET (SUV is not computed anywhere yet).
"""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from inference import volume
from inference.errors import DecodeError, InputRefused
from inference.phantom import Phantom, Scan, datasets, enhanced, markers, thorax
from tests.volumes import grid

TRUTH = markers(grid()).keeping([8, 9, 10, 11])


CHEST = thorax((4, 64, 64), (8.0, 6.0, 6.0))  # JPEG 2000 encoders want 32 pixels and more


def with_values(hu) -> Phantom:
    """TRUTH with other values."""
    return replace(TRUTH, hu=np.broadcast_to(np.asarray(hu), TRUTH.hu.shape).astype(np.int16))


@settings(max_examples=40, deadline=None)
@given(
    slopes=st.lists(st.sampled_from([1.0, 2.0, 0.5, 0.25]), min_size=1, max_size=4),
    intercepts=st.lists(st.sampled_from([0.0, -1024.0, -2048.0]), min_size=1, max_size=4),
    signed=st.booleans(),
    multi_frame=st.booleans(),
)
def test_each_slice_has_its_own_rescale(slopes, intercepts, signed, multi_frame):
    scan = Scan(slopes=tuple(slopes), intercepts=tuple(intercepts), signed=signed)
    written = [enhanced(TRUTH, scan)] if multi_frame else datasets(TRUTH, scan)
    found = volume.read(written).image.volume.array
    used = np.array(slopes)[np.arange(4) % len(slopes)]
    assert np.abs(found - TRUTH.hu).max() <= used.max() / 2
    whole = all(value.is_integer() for value in used)
    assert found.dtype == (np.int16 if whole else np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), signed=st.booleans(), bits=st.sampled_from([12, 13, 16]))
def test_all_hounsfield_values_survive_signed_and_unsigned(seed, signed, bits):
    generator = np.random.default_rng(seed)
    truth = with_values(generator.integers(-1024, 1000, TRUTH.hu.shape))
    found = volume.read(datasets(truth, Scan(signed=signed, bits_stored=bits)))
    assert np.array_equal(found.image.volume.array, truth.hu)
    assert found.image.padding is None


def test_unused_high_bits_are_not_values():
    written = datasets(TRUTH, Scan(bits_stored=12))
    for item in written:
        stored = np.frombuffer(item.PixelData, "<u2") | 0xF000
        item.PixelData = stored.astype("<u2").tobytes()
    assert np.array_equal(volume.read(written).image.volume.array, TRUTH.hu)


def test_values_beyond_int16_become_float32():
    written = datasets(TRUTH, Scan(modality="MR"))
    for item in written:
        item.SOPClassUID = MRImageStorage
        item.RescaleSlope = "100"
    found = volume.read(written).image.volume.array
    assert found.dtype == np.float32
    assert found.max() > np.iinfo(np.int16).max


def test_pet_slopes_are_kept_exactly_enough():
    written = datasets(TRUTH, Scan(modality="PT"))
    for number, item in enumerate(written):
        item.SOPClassUID = PositronEmissionTomographyImageStorage
        item.RescaleSlope, item.RescaleIntercept = f"0.00{number + 1}7", "0"
    found = volume.read(written).image.volume.array
    stored = TRUTH.hu.astype(np.float64) + 1024
    slopes = np.array([0.0017, 0.0027, 0.0037, 0.0047])[:, None, None]
    assert np.allclose(found, stored * slopes, rtol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_photometric_interpretation_never_changes_a_value(photometric, modality):
    written = datasets(TRUTH, Scan(photometric=photometric, modality=modality))
    if modality == "MR":
        for item in written:
            item.SOPClassUID = MRImageStorage
    assert np.array_equal(volume.read(written).image.volume.array, TRUTH.hu)


def test_a_signed_padding_value_written_as_unsigned_is_signed():
    values = np.zeros((27, 24))
    values[0, :3] = [-1100, -1101, -1102]
    written = datasets(with_values(values), Scan(signed=True))
    for item in written:
        item.add_new("PixelPaddingValue", "US", -77 & 0xFFFF)
    stack = volume.read(written)
    assert stack.image.padding is not None
    assert stack.image.padding.array[0, 0, :3].tolist() == [False, True, False]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("as_us", [True, False])
def test_padding_is_air_and_marked(signed, as_us):
    padding = -2000 if signed else 40_000
    scan = Scan(signed=signed, padding_value=padding, intercepts=(-1024.0,))
    written = datasets(TRUTH, scan)
    for item in written:
        stored = np.frombuffer(item.PixelData, "<i2" if signed else "<u2").copy()
        stored.reshape(27, 24)[:5] = padding
        item.PixelData = stored.tobytes()
        if as_us:  # many scanners write a signed padding value as unsigned
            item.add_new("PixelPaddingValue", "US", padding & 0xFFFF)
    stack = volume.read(written)
    wanted = np.zeros(TRUTH.hu.shape, np.bool_)
    wanted[:, :5] = True
    assert stack.image.padding is not None
    assert np.array_equal(stack.image.padding.array, wanted)
    assert np.array_equal(stack.image.volume.array, np.where(wanted, -1024, TRUTH.hu))


def test_a_padding_range_is_closed_on_both_sides():
    scan = Scan(intercepts=(-1200.0,), padding_value=3, padding_range_limit=1)
    values = np.zeros((27, 24))
    values[0, :5] = [-1200, -1199, -1198, -1197, -1196]
    stack = volume.read(datasets(with_values(values), scan))
    assert stack.image.padding is not None
    assert stack.image.padding.array[0, 0, :5].tolist() == [False, True, True, True, False]
    assert stack.image.volume.array[0, 0, :5].tolist() == [-1200, -1024, -1024, -1024, -1196]


def test_undeclared_padding_of_ct_is_found_by_its_value():
    values = np.zeros((27, 24))
    values[0, :3] = [-3024, -2000, -1999]
    stack = volume.read(datasets(with_values(values), Scan(intercepts=(-4000.0,))))
    assert stack.image.padding is not None
    assert stack.image.padding.array[0, 0, :3].tolist() == [True, True, False]
    assert stack.image.volume.array[0, 0, :3].tolist() == [-1024, -1024, -1999]


def test_a_padding_value_that_would_be_tissue_is_not_believed():
    stack = volume.read(datasets(TRUTH, Scan(signed=True, intercepts=(0.0,), padding_value=0)))
    assert stack.image.padding is None
    assert np.array_equal(stack.image.volume.array, TRUTH.hu)
    assert stack.notes == ("Pixel Padding Value would be tissue and was not believed",)


def test_padding_of_mr_is_zero():
    written = datasets(with_values(np.full((27, 24), 7)), Scan(modality="MR", padding_value=1031))
    for item in written:
        item.SOPClassUID = MRImageStorage
    stack = volume.read(written)
    assert stack.image.padding is not None
    assert stack.image.padding.array.all()
    assert not stack.image.volume.array.any()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("signed", [True, False])
def test_lossless_compression_changes_no_value(syntax, signed):
    written = datasets(CHEST, Scan(signed=signed))
    for item in written:
        item.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(volume.read(written).image.volume.array, CHEST.hu)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_multi_frame(syntax):
    written = enhanced(CHEST)
    written.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(volume.read([written]).image.volume.array, CHEST.hu)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_ct_without_rescale_is_refused(keyword):
    written = datasets(TRUTH)
    delattr(written[2], keyword)
    with pytest.raises(InputRefused) as refusal:
        volume.read(written)
    assert str(refusal.value) == "image 3: CT without Rescale Slope and Intercept has no HU"


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("RescaleSlope", "0", "image 3: Rescale Slope is 0"),
        ("RescaleType", "MGML", "image 3: Rescale Type is MGML, not HU"),
        ("BitsAllocated", 12, "image 3: 12 bits allocated; 8, 16 and 32 are read"),
        ("PixelData", b"12", "image 3: 1 x 27 x 24 pixels of 16 bits cannot come from 2 bytes "),
        ("PixelData", b"", "image 3: 1 x 27 x 24 pixels of 16 bits cannot come from 0 bytes "),
    ],
)
def test_values_without_meaning_are_refused(keyword, value, reason):
    written = datasets(TRUTH)
    setattr(written[2], keyword, value)
    with pytest.raises(InputRefused) as refusal:
        volume.read(written)
    assert str(refusal.value).startswith(reason)


def test_absurd_sizes_are_refused_before_allocation():
    written = datasets(TRUTH)
    for item in written:
        item.Rows = item.Columns = 65_535
    with pytest.raises(InputRefused) as refusal:
        volume.read(written)
    assert str(refusal.value) == "17179344900 voxels; at most 2147483648 are read"
    for item in written:
        item.Rows = item.Columns = 20_000
    with pytest.raises(DecodeError, match=r"20000 x 20000 pixels of 16 bits cannot come from 1296"):
        volume.read(written)


def test_absurd_sizes_of_compressed_images_are_refused_before_allocation():
    written = datasets(TRUTH)
    for item in written:
        item.compress(RLELossless, generate_instance_uid=False)
        item.Rows = item.Columns = 20_000
    with pytest.raises(DecodeError, match=r"cannot come from \d+ bytes"):
        volume.read(written)


def test_what_nothing_decodes_names_the_transfer_syntax():
    written = datasets(TRUTH)
    for item in written:
        item.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.94")
    with pytest.raises(DecodeError) as refusal:
        volume.read(written)
    assert str(refusal.value) == (
        "pixel data cannot be decoded (JPIP Referenced, 1.2.840.10008.1.2.4.94)"
    )


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_damaged_compressed_pixels_are_refused(syntax):
    written = datasets(CHEST)
    for item in written:
        item.compress(syntax, generate_instance_uid=False)
        item.PixelData = item.PixelData[:60] + bytes(len(item.PixelData) - 60)
    with pytest.raises(DecodeError, match=r"^pixel data cannot be decoded \("):
        volume.read(written)


def test_no_transfer_syntax_is_refused():
    written = [copy.deepcopy(item) for item in datasets(TRUTH)]
    del written[1].file_meta
    with pytest.raises(DecodeError, match=r"^no Transfer Syntax UID is stated$"):
        volume.read(written)


def test_the_acquisition_is_what_the_headers_say():
    written = datasets(TRUTH, Scan(kernel="B60f", thickness_mm=1.25))
    for item in written:
        item.ContrastBolusAgent = "OMNIPAQUE"
    found = volume.read(written).image.acquisition
    assert (found.modality, found.convolution_kernel) == ("CT", "B60f")
    assert found.slice_thickness_mm == 1.25
    assert found.manufacturer == "Phantom Works"
    assert found.contrast_agent is True


def test_of_slices_that_differ_the_thickest_and_every_kernel_count():
    written = datasets(TRUTH, Scan(kernel="B31f", thickness_mm=1.0))
    written[-1].SliceThickness = "5"
    written[-1].ConvolutionKernel = "B70f"
    found = volume.read(written).image.acquisition
    assert found.slice_thickness_mm == 5.0
    assert found.convolution_kernel == "B31f and B70f"


@pytest.mark.parametrize("thickness", [0.0, -5.0])
def test_a_slice_thickness_that_none_can_have_is_not_stated(thickness):
    written = datasets(TRUTH, Scan(thickness_mm=thickness))
    assert volume.read(written).image.acquisition.slice_thickness_mm is None


@pytest.mark.parametrize("text", [None, "", "NONE", "none "])
def test_no_contrast_agent(text):
    written = datasets(TRUTH)
    if text is not None:
        for item in written:
            item.ContrastBolusAgent = text
    assert volume.read(written).image.acquisition.contrast_agent is False


def test_a_thorax_is_read_as_it_was_made():
    truth = thorax((40, 64, 64), (7.5, 6.0, 6.0), padding_hu=-3024)
    scan = Scan(signed=True, padding_value=-2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = volume.read(datasets(truth, scan))
    padding = truth.hu == -3024
    assert stack.image.padding is not None
    assert np.array_equal(stack.image.padding.array, padding)
    assert np.array_equal(stack.image.volume.array, np.where(padding, -1024, truth.hu))
    assert np.allclose(stack.image.volume.affine, truth.affine)
