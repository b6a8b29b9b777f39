"""Planar images: stored pixels become values of which the larger is the brighter, or colours.

Not covered: compressed pixel data and real headers (tests/integration/test_planar_real_data.py).
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from inference.errors import InputRefused
from tests import pictures
from tests.pictures import PHOTO, SC, US, colours, filed, gradient, item, picture

GREY = gradient()


def pixels(dataset: Dataset) -> NDArray[Any]:
    """Of the only view of one instance."""
    (view,) = pictures.read([filed(dataset)]).views
    return view.image.pixels


def test_monochrome1_is_turned_within_its_stored_range() -> None:
    turned = picture(GREY, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    assert np.array_equal(pixels(turned), 4095 - GREY.astype(int))
    signed = (GREY.astype(np.int16) - 2000).astype(np.int16)
    found = pixels(picture(signed, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(found, -1 - signed.astype(int))


def test_rescale_is_applied_before_turning() -> None:
    rescaled = {"RescaleSlope": "0.5", "RescaleIntercept": "-10"}
    assert np.array_equal(pixels(picture(GREY, **rescaled)), (GREY * 0.5 - 10).astype(np.float32))
    turned = picture(
        GREY, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11, **rescaled
    )
    assert np.array_equal(pixels(turned), ((4095 - GREY.astype(int)) * 0.5 - 10).astype("f4"))


def test_window_and_voi_lut_are_not_applied() -> None:
    windowed = picture(GREY, WindowCenter="100", WindowWidth="50")
    assert np.array_equal(pixels(windowed), GREY)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_modality_lut_is_looked_up_and_ends_are_held(as_bytes: bool, bits: int) -> None:
    entries = [0, 7, 9, 200]
    table = item(
        LUTDescriptor=[len(entries), 10, bits],
        LUTData=np.array(entries, "<u2").tobytes() if as_bytes else entries,
        ModalityLUTType="US",
    )
    table["LUTData"].VR = "OW" if as_bytes else "US"
    stored = np.array([[0, 10], [12, 3000]], np.uint16)
    made = picture(stored, ModalityLUTSequence=[table])
    assert pixels(made).tolist() == [[0, 0], [9, 200]]
    made.PhotometricInterpretation = "MONOCHROME1"
    assert pixels(made).tolist() == [[200, 200], [191, 0]]


def test_a_short_modality_lut_is_refused() -> None:
    table = item(LUTDescriptor=[100, 0, 16], LUTData=[1, 2, 3], ModalityLUTType="US")
    table["LUTData"].VR = "US"
    with pytest.raises(InputRefused, match="the Modality LUT cannot be read"):
        pictures.read([picture(GREY, ModalityLUTSequence=[table])])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_the_darkest_value(photometric: str) -> None:
    stored = GREY + 100
    stored[:3] = 0
    stored[-1] = 60_000
    padded = picture(
        stored,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=0,
    )
    padded["PixelPaddingValue"].VR = "US"
    found = pixels(padded)
    assert found[:3].max() == found[3:].min() == found.min()
    padded.PixelPaddingValue, padded.PixelPaddingRangeLimit = 60_000, 59_000
    padded["PixelPaddingRangeLimit"].VR = "US"
    found = pixels(padded)
    assert found[-1].max() == found[:-1].min() == found.min()


def test_sixteen_bits_that_do_not_fit_are_float() -> None:
    deep = GREY.astype(np.uint16) * 16
    found = pixels(picture(deep))
    assert found.dtype == np.float32
    assert np.array_equal(found, deep)


@pytest.mark.parametrize("planes_apart", [False, True])
def test_rgb_whatever_its_planar_configuration(planes_apart: bool) -> None:
    true = colours()
    made = picture(true, PHOTO, colour=True, Modality="XC")
    if planes_apart:
        made.PlanarConfiguration = 1
        made.PixelData = np.ascontiguousarray(true.transpose(2, 0, 1)).tobytes()
    found = pixels(made)
    assert found.dtype == np.uint8
    assert np.array_equal(found, true)


def ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PS3.3 C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip((rgb @ matrix.T + [0, 128, 128]).round(), 0, 255).astype(np.uint8)


def test_ybr_full_is_turned_to_rgb() -> None:
    true = colours()
    made = picture(ycbcr(true), SC, colour=True, PhotometricInterpretation="YBR_FULL")
    assert np.abs(pixels(made).astype(int) - true).max() <= 2


def test_ybr_full_422_is_turned_to_rgb() -> None:
    true = np.repeat(colours(6, 4), 2, axis=1)  # equal neighbours: nothing is lost at half width
    luma, blue, red = np.moveaxis(ycbcr(true), -1, 0)
    packed = np.stack([luma[:, ::2], luma[:, 1::2], blue[:, ::2], red[:, ::2]], axis=-1)
    made = picture(true, SC, colour=True, PhotometricInterpretation="YBR_FULL_422")
    made.PixelData = np.ascontiguousarray(packed).tobytes()
    assert np.abs(pixels(made).astype(int) - true).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(bits: int) -> None:
    table = colours(1, 16)[0]
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    made = picture(indices, US, PhotometricInterpretation="PALETTE COLOR", Modality="US")
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        entries = table[:, channel].astype("<u2") * (257 if bits == 16 else 1)
        packed = entries.tobytes() if bits == 16 else entries.astype(np.uint8).tobytes()
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [16, 0, bits])
        setattr(made, f"{colour}PaletteColorLookupTableData", packed)
    assert np.array_equal(pixels(made), table[indices])
