"""Planar images from their instances: which, in what order, one at a time, with what spacing.

Not covered: their values and colours (test_planar_values.py), compressed pixel data and real
headers (tests/integration/test_planar_real_data.py), what a model makes of them.
"""

import copy
import weakref
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from inference import planar
from inference.errors import InputRefused
from inference.findings import PlanarImage
from tests import pictures
from tests.pictures import (
    CINE,
    CR,
    DX,
    PHOTO,
    SC,
    US,
    Series,
    colours,
    filed,
    gradient,
    item,
    picture,
    region,
)

MG = uid.DigitalMammographyXRayImageStorageForPresentation
RAW_MG = uid.DigitalMammographyXRayImageStorageForProcessing
GREY = gradient()


def reasons(views: Series) -> list[str]:
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
    (view,) = pictures.read([filed(dataset)]).views
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
        pictures.read([odd])
    assert words in reasons(pictures.read([odd, picture(GREY, name="2")]))[0]


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
    views = pictures.read([odd, good])
    assert [view.source.sop_instance_uid for view in views.views] == [good.SOPInstanceUID]
    assert reasons(views)[0].startswith(words)
    with pytest.raises(InputRefused, match="no planar images: 1 x "):
        pictures.read([odd])


def test_colour_of_more_than_eight_bits_is_set_aside() -> None:
    deep = picture(colours().astype(np.uint16), SC, colour=True)
    with pytest.raises(InputRefused, match="colour of 16 bits; 8 are read"):
        pictures.read([deep])


def test_several_patients_or_studies_are_refused() -> None:
    with pytest.raises(InputRefused, match="the instances name 2 different"):
        pictures.read([picture(GREY), picture(GREY, study="another")])
    with pytest.raises(InputRefused, match="no instances"):
        pictures.read([])


def test_images_come_by_instance_number_whatever_their_order() -> None:
    made = [picture(GREY + n, name=str(n)) for n in (11, 2, 1)]
    unnumbered = picture(GREY + 50, name="unnumbered")
    for order in ([*made, unnumbered], [unnumbered, *made[::-1]]):
        found = [int(view.image.pixels[0, 0]) for view in pictures.read(order).views]
        assert found == [1, 2, 11, 50]


def test_frames_are_views_of_one_instance() -> None:
    cine = np.stack([GREY // 16 + n for n in range(3)]).astype(np.uint8)
    views = pictures.read([filed(picture(cine, CINE, frames=3, Modality="US"))])
    assert [view.source.frame_number for view in views.views] == [1, 2, 3]
    assert len({id(view.source.dataset) for view in views.views}) == 1
    for view, frame in zip(views.views, cine, strict=True):
        assert np.array_equal(view.image.pixels, frame)


def test_too_much_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    three = [picture(GREY, name=str(number)) for number in (1, 2, 3)]
    monkeypatch.setattr(planar, "MOST_VIEWS", 2)
    with pytest.raises(InputRefused, match="3 planar images; at most 2 are read"):
        planar.read(three)
    monkeypatch.setattr(planar, "MOST_PIXELS", GREY.size - 1)
    with pytest.raises(InputRefused, match="2 x 192 pixels; at most 191 are read"):
        planar.read(three[:2])


@pytest.mark.parametrize("frames", [None, 3])
def test_one_image_is_in_memory_at_a_time(frames: int | None) -> None:
    pixels = np.stack([GREY.astype(np.uint8)] * 3)
    one_each = [picture(one, name=str(number)) for number, one in enumerate(pixels)]
    before: list[weakref.ref[Any]] = []

    def see(image: PlanarImage) -> int:
        before.append(weakref.ref(image.pixels))
        return sum(other() is not None for other in before)

    made = one_each if frames is None else [picture(pixels, CINE, frames=frames, Modality="US")]
    _, alive = planar.each(planar.read(made), see)
    assert alive == (1, 1, 1)


def test_an_instance_that_cannot_be_decoded_is_set_aside_when_its_turn_comes() -> None:
    made = [picture(GREY, name=str(number)) for number in (1, 2, 3)]
    made[1].file_meta.TransferSyntaxUID = "1.2.3"
    stated = planar.read(made)
    assert len(stated.views) == 3
    seen, spans = planar.each(stated, lambda image: int(np.ptp(image.pixels)))
    assert [view.source.sop_instance_uid for view in seen.views] == [
        made[0].SOPInstanceUID,
        made[2].SOPInstanceUID,
    ]
    assert len(spans) == 2
    assert seen.set_aside[0].sop_instance_uid == made[1].SOPInstanceUID
    assert "unknown transfer syntax" in seen.set_aside[0].reason


def test_images_for_processing_yield_to_those_for_presentation() -> None:
    raw, shown = picture(GREY, RAW_MG), picture(GREY, MG, name="2")
    both = pictures.read([raw, shown])
    assert [view.source.sop_instance_uid for view in both.views] == [shown.SOPInstanceUID]
    assert reasons(both) == ["for processing, beside images for presentation"]
    assert pictures.read([raw]).notes == ("images for processing, not for presentation",)


def test_reading_changes_nothing() -> None:
    dataset = picture(GREY, PhotometricInterpretation="MONOCHROME1")
    before = copy.deepcopy(dataset)
    pictures.read([dataset])
    assert dataset == before


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
    (view,) = pictures.read([filed(picture(GREY, sop_class, **stated))]).views
    assert view.image.spacing == (None if spacing is None else pytest.approx(spacing))
    assert view.image.at_detector is at_detector


def test_ultrasound_regions_that_disagree_give_no_spacing() -> None:
    regions = [region(0.03, 0.03), region(0.05, 0.05)]
    views = pictures.read([picture(GREY, US, SequenceOfUltrasoundRegions=regions)])
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
    assert pictures.read(made).notes == (
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
    (found,) = pictures.read([filed(picture(GREY, MG, **stated))]).views
    assert (found.image.view, found.image.laterality) == (view, laterality)
