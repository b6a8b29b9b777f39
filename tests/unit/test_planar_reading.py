"""Planar images from their instances: which, in what order, with what spacing, values and colours.

Not covered: compressed pixel data and real headers (tests/integration/test_planar_real_data.py),
what a model makes of them.
"""

import copy
import io
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from inference import planar
from inference.errors import InputRefused
from inference.planar import Views
from tests.pictures import CINE, CR, DX, PHOTO, SC, gradient, item, picture, region

MG = uid.DigitalMammographyXRayImageStorageForPresentation
RAW_MG = uid.DigitalMammographyXRayImageStorageForProcessing
US = uid.UltrasoundImageStorage
GREY = gradient()


def filed(dataset: Dataset) -> Dataset:
    """The data set as it comes from a file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file)


def pixels(dataset: Dataset) -> NDArray[Any]:
    """Of the only view of one instance."""
    (view,) = planar.read([filed(dataset)]).views
    return view.image.pixels


def colours(rows: int = 6, columns: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def reasons(views: Views) -> list[str]:
    return [one.reason for one in views.set_aside]


@pytest.mark.parametrize(
    "sop_class",
    [
        CR,
        DX,
        MG,
        RAW_MG,
        US,
        SC,
        PHOTO,
        uid.VLEndoscopicImageStorage,
        uid.VLMicroscopicImageStorage,
        uid.DermoscopicPhotographyImageStorage,
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ],
)
def test_planar_images_of_every_kind_are_read(sop_class: str) -> None:
    dataset = picture(GREY, sop_class)
    (view,) = planar.read([filed(dataset)]).views
    assert np.array_equal(view.image.pixels, GREY)
    assert view.image.pixels.dtype == np.int16
    assert view.image.acquisition.modality == "CR"
    assert view.source.sop_instance_uid == dataset.SOPInstanceUID
    assert view.source.frame_number is None
    assert "PixelData" not in view.source.dataset


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        (uid.CTImageStorage, "CT Image Storage: not a planar image"),
        (uid.VideoEndoscopicImageStorage, "Video Endoscopic Image Storage: not a planar image"),
        (uid.VLWholeSlideMicroscopyImageStorage, "VL Whole Slide Microscopy"),
        (uid.BreastTomosynthesisImageStorage, "Breast Tomosynthesis"),
        (uid.XRayAngiographicImageStorage, "X-Ray Angiographic"),
        (uid.SegmentationStorage, "Segmentation Storage"),
        ("", "an object without SOP class"),
    ],
)
def test_anything_else_is_named(sop_class: str, words: str) -> None:
    odd = picture(GREY)
    odd.SOPClassUID = sop_class
    with pytest.raises(InputRefused, match=f"^no planar images: 1 x {words}"):
        planar.read([odd])
    assert words in reasons(planar.read([odd, picture(GREY, name="2")]))[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"Rows": 0}, "0 rows and 16 columns"),
        ({"NumberOfFrames": 2}, "2 frames in an object of Computed Radiography"),
        ({"PhotometricInterpretation": "HSV"}, "HSV of 1 samples per pixel is not read"),
        (
            {"PhotometricInterpretation": "DOE_JANE"},
            "an unknown colour space of 1 samples per pixel is not read",
        ),
        ({"PhotometricInterpretation": "RGB"}, "RGB of 1 samples per pixel is not read"),
        ({"BitsAllocated": 1}, "image 1: 1 bits allocated; 8, 16 and 32 are read"),
        ({"Rows": 1000}, "image 1: 1 x 1000 x 16 pixels of 16 bits cannot come from 384 bytes"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "Rescale Slope is 0"),
    ],
)
def test_a_damaged_image_is_set_aside_and_the_others_are_read(change, words: str) -> None:
    odd, good = picture(GREY), picture(GREY, name="2")
    for keyword, value in change.items():
        if value is None:
            delattr(odd, keyword)
        else:
            setattr(odd, keyword, value)
    views = planar.read([odd, good])
    assert [view.source.sop_instance_uid for view in views.views] == [good.SOPInstanceUID]
    assert reasons(views)[0].startswith(words)
    with pytest.raises(InputRefused, match="no planar images: 1 x "):
        planar.read([odd])


def test_colour_of_more_than_eight_bits_is_set_aside() -> None:
    deep = picture(colours().astype(np.uint16), SC, colour=True)
    with pytest.raises(InputRefused, match="colour of 16 bits; 8 are read"):
        planar.read([deep])


def test_several_patients_or_studies_are_refused() -> None:
    with pytest.raises(InputRefused, match="the instances name 2 different"):
        planar.read([picture(GREY), picture(GREY, study="another")])
    with pytest.raises(InputRefused, match="no instances"):
        planar.read([])


def test_images_come_by_instance_number_whatever_their_order() -> None:
    made = [picture(GREY + n, name=str(n)) for n in (11, 2, 1)]
    unnumbered = picture(GREY + 50, name="unnumbered")
    for order in ([*made, unnumbered], [unnumbered, *made[::-1]]):
        found = [int(view.image.pixels[0, 0]) for view in planar.read(order).views]
        assert found == [1, 2, 11, 50]


def test_frames_are_views_of_one_instance() -> None:
    cine = np.stack([GREY // 16 + n for n in range(3)]).astype(np.uint8)
    views = planar.read([filed(picture(cine, CINE, frames=3, Modality="US"))])
    assert [view.source.frame_number for view in views.views] == [1, 2, 3]
    assert len(views.headers) == 1
    for view, frame in zip(views.views, cine, strict=True):
        assert np.array_equal(view.image.pixels, frame)


def test_too_much_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planar, "MOST_PIXELS", GREY.size * 2)
    planar.read([picture(GREY), picture(GREY, name="2")])
    three = [picture(GREY, name=str(number)) for number in (1, 2, 3)]
    with pytest.raises(InputRefused, match="3 planar images of 576 pixels; at most 384 are read"):
        planar.read(three)
    monkeypatch.setattr(planar, "MOST_VIEWS", 2)
    with pytest.raises(InputRefused, match="3 planar images; at most 2 are read at once"):
        planar.read(three)


def test_images_for_processing_yield_to_those_for_presentation() -> None:
    raw, shown = picture(GREY, RAW_MG), picture(GREY, MG, name="2")
    both = planar.read([raw, shown])
    assert [view.source.sop_instance_uid for view in both.views] == [shown.SOPInstanceUID]
    assert reasons(both) == ["for processing, beside images for presentation"]
    assert planar.read([raw]).notes == ("images for processing, not for presentation",)


def test_reading_changes_nothing() -> None:
    dataset = picture(GREY, PhotometricInterpretation="MONOCHROME1")
    before = copy.deepcopy(dataset)
    planar.read([dataset])
    assert dataset == before


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
        planar.read([picture(GREY, ModalityLUTSequence=[table])])


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


PER_MM = ["0.2", "0.4"]
DETECTOR = ["0.1", "0.1"]


@pytest.mark.parametrize(
    ("sop_class", "stated", "spacing", "at_detector"),
    [
        (CR, {}, None, False),
        (CR, {"ImagerPixelSpacing": DETECTOR}, (0.1, 0.1), True),
        (CR, {"PixelSpacing": ["0.000", "0.000"]}, None, False),
        (CR, {"PixelSpacing": DETECTOR}, (0.1, 0.1), True),
        (DX, {"PixelSpacing": DETECTOR, "ImagerPixelSpacing": DETECTOR}, (0.1, 0.1), True),
        (DX, {"PixelSpacing": PER_MM, "ImagerPixelSpacing": DETECTOR}, (0.2, 0.4), False),
        (
            DX,
            {"PixelSpacing": PER_MM, "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.4),
            False,
        ),
        (
            DX,
            {
                "PixelSpacing": DETECTOR,
                "ImagerPixelSpacing": DETECTOR,
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            (0.1, 0.1),
            False,
        ),
        (
            MG,
            {"ImagerPixelSpacing": DETECTOR, "EstimatedRadiographicMagnificationFactor": "1.25"},
            (0.08, 0.08),
            False,
        ),
        (
            MG,
            {"ImagerPixelSpacing": DETECTOR, "EstimatedRadiographicMagnificationFactor": "0.5"},
            (0.1, 0.1),
            True,
        ),
        (SC, {"PixelSpacing": PER_MM}, (0.2, 0.4), False),
        (SC, {"NominalScannedPixelSpacing": DETECTOR}, (0.1, 0.1), True),
        (PHOTO, {}, None, False),
        (US, {"SequenceOfUltrasoundRegions": [region(0.03, 0.04)]}, (0.3, 0.4), False),
        (US, {"SequenceOfUltrasoundRegions": [region(-0.03, 0.04)]}, (0.3, 0.4), False),
        (US, {"SequenceOfUltrasoundRegions": [region(0.03, 0.04)] * 2}, (0.3, 0.4), False),
        (US, {"SequenceOfUltrasoundRegions": [region(0.03, 0.04, units=4)]}, None, False),
        (
            US,
            {"SequenceOfUltrasoundRegions": [region(0.03, 0.04), region(9, 9, kind=3)]},
            (0.3, 0.4),
            False,
        ),
        (US, {"PixelSpacing": PER_MM}, (0.2, 0.4), False),
    ],
)
def test_spacing(sop_class: str, stated, spacing, at_detector: bool) -> None:
    (view,) = planar.read([filed(picture(GREY, sop_class, **stated))]).views
    assert view.image.spacing == (None if spacing is None else pytest.approx(spacing))
    assert view.image.at_detector is at_detector


def test_ultrasound_regions_that_disagree_give_no_spacing() -> None:
    regions = [region(0.03, 0.03), region(0.05, 0.05)]
    views = planar.read([picture(GREY, US, SequenceOfUltrasoundRegions=regions)])
    assert views.views[0].image.spacing is None
    assert views.notes == ("its ultrasound regions have different scales: no spacing is taken",)


def test_what_a_reader_must_know_is_noted_once() -> None:
    made = [
        picture(
            GREY,
            name=str(number),
            ImagerPixelSpacing=DETECTOR,
            BurnedInAnnotation="YES",
            LossyImageCompression="01",
        )
        for number in (1, 2)
    ]
    assert planar.read(made).notes == (
        "text may be burned into the pixels (Burned In Annotation is YES)",
        "pixel spacing holds at the detector: in the patient lengths are smaller",
        "lossy compression (0028,2110) was applied before the images came",
    )


@pytest.mark.parametrize(
    ("stated", "view", "laterality"),
    [
        ({"ViewPosition": "PA", "Laterality": "L"}, "PA", "L"),
        ({"ImageLaterality": "R", "Laterality": "L"}, None, "R"),
        ({"ImageLaterality": "U"}, None, None),
        (
            {
                "ViewCodeSequence": [
                    item(CodeValue="399368009", CodeMeaning="medio-lateral oblique")
                ]
            },
            "MLO",
            None,
        ),
        ({"ViewCodeSequence": [item(CodeValue="R-10242", CodeMeaning="cc")]}, "CC", None),
        ({"ViewCodeSequence": [item(CodeValue="X", CodeMeaning="tangential")]}, "tangential", None),
    ],
)
def test_view_and_side(stated, view: str | None, laterality: str | None) -> None:
    (found,) = planar.read([filed(picture(GREY, MG, **stated))]).views
    assert (found.image.view, found.image.laterality) == (view, laterality)
