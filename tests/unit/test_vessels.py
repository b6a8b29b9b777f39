"""The vessel model on phantoms with known tubes: what it finds, what it refuses, on which grid.

Not covered here: real anatomy (tests/integration/test_vessels_real.py), time and memory
(benchmarks/built_in.py), enhancing organs, calcification, undiluted contrast agent.
"""

from dataclasses import replace
from functools import cache

import highdicom as hd
import numpy as np
import pytest
from pydicom.sr.codedict import codes
from scipy import ndimage
from skimage.filters import sato

from inference.encoding import Provenance
from inference.findings import Acquisition, Findings, Image, Verdict
from inference.models import vessels
from inference.phantom import Phantom, datasets, thorax
from inference.pipeline import Options, analyse, found_in
from inference.vessels.isotropic import isotropic, resampled, restored
from inference.vessels.segmentation import segment
from inference.vessels.tubes import line_filter

SPACING = (2.0, 1.25, 1.25)
SHAPE = (70, 200, 290)
STATED = Acquisition(modality="CT", slice_thickness_mm=2.0, contrast_agent=True)
UNSTATED = replace(STATED, contrast_agent=False)
SMALL = {"shape": (30, 100, 140), "spacing": (2.5, 2.5, 2.5)}


@cache
def chest() -> Phantom:
    return thorax(SHAPE, SPACING, seed=3, contrast_hu=300)


def image(phantom: Phantom, acquisition: Acquisition = STATED) -> Image:
    return Image(volume=hd.Volume(phantom.hu, phantom.affine, "PATIENT"), acquisition=acquisition)


def predict(phantom: Phantom, acquisition: Acquisition = STATED) -> Findings:
    return found_in(image(phantom, acquisition), vessels.load({}))


@cache
def measured() -> Findings:
    return predict(chest())


def mask(findings: Findings) -> np.ndarray:
    (segment_found,) = findings.segments
    return segment_found.mask.array


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_the_segment_is_the_phantoms_blood() -> None:
    assert measured().verdict is Verdict.MEASURED
    assert dice(mask(measured()), chest().truth["vessels"]) > 0.96


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("aorta", 0.88),
        ("superior_vena_cava", 0.88),
        ("tube_4.0", 0.94),
        ("tube_3.0", 0.94),
        ("tube_2.0", 0.94),
        ("tube_1.5", 0.85),
    ],
)
def test_how_much_of_a_tube_of_each_radius_is_found(name: str, least: float) -> None:
    truth = chest().truth[name]
    assert (mask(measured()) & truth).sum() / truth.sum() > least


def test_a_tube_of_one_millimetre_is_lost_between_two_millimetre_slices() -> None:
    assert not (mask(measured()) & chest().truth["tube_1.0"]).any()


def test_most_of_the_blood_in_the_lungs_is_found() -> None:
    lungs = chest().truth["right_lung"] | chest().truth["left_lung"]
    blood = chest().truth["vessels"] & lungs
    assert (mask(measured()) & blood).sum() / blood.sum() > 0.75


def test_bone_airways_and_what_lies_far_from_vessels_is_left_out() -> None:
    away = ndimage.distance_transform_edt(~chest().truth["vessels"], sampling=SPACING)
    found = mask(measured())
    assert (found & (away > 2.5)).sum() < 0.002 * found.sum()
    assert not (found & chest().truth["airway"]).any()


def test_its_numbers_are_those_of_the_phantom() -> None:
    truth = chest().truth["vessels"]
    numbers = {m.name: m for m in measured().measurements}
    assert numbers[codes.SCT.Volume].value == pytest.approx(
        truth.sum() * np.prod(SPACING) / 1000, rel=0.06
    )
    assert numbers[codes.DCM.AttenuationCoefficient].value == pytest.approx(
        chest().hu[truth].mean(),
        abs=12,  # the truth holds more of the blurred border
    )
    assert {m.segment for m in measured().measurements} == {"Vessels"}


def test_the_mask_lies_on_the_grid_of_the_image_and_has_a_public_code() -> None:
    (found,) = measured().segments
    assert found.mask.geometry_equal(image(chest()).volume)
    assert found.mask.array.dtype == np.bool_
    assert (found.definition.type.value, found.definition.type.scheme_designator) == (
        "59820001",
        "SCT",
    )


def test_a_flipped_image_gives_the_flipped_mask() -> None:
    axes = (0, 2)
    volume = image(chest()).volume.flip_spatial(list(axes))
    findings = vessels.load({}).predict(Image(volume=volume, acquisition=STATED))
    assert findings.segments[0].mask.geometry_equal(volume)
    assert np.array_equal(mask(findings), np.flip(mask(measured()), axes))
    assert [m.value for m in findings.measurements] == pytest.approx(
        [m.value for m in measured().measurements]
    )


def test_other_spacing_finds_the_same_volume() -> None:
    phantom = thorax((47, 250, 363), (3.0, 1.0, 1.0), seed=3, contrast_hu=300)
    findings = predict(phantom)
    assert dice(mask(findings), phantom.truth["vessels"]) > 0.95
    assert findings.measurements[0].value == pytest.approx(
        measured().measurements[0].value, rel=0.05
    )


def test_the_same_image_gives_the_same_mask_however_it_is_cut_into_slabs() -> None:
    small = thorax(**SMALL, seed=3, contrast_hu=300)
    whole, again, cut = (
        segment(small.hu, SMALL["spacing"], slab=slab).mask for slab in (1000, 1000, 20)
    )
    assert whole is not None
    assert whole.any()
    assert np.array_equal(whole, again)
    assert np.array_equal(whole, cut)


@pytest.mark.parametrize("slab", [5, 16, 64])
def test_the_line_filter_is_scikit_images_sato_bit_for_bit(slab: int) -> None:
    generator = np.random.default_rng(0)
    values = (generator.standard_normal((40, 30, 34)) * 100).astype(np.int16)
    where = generator.random(values.shape) < 0.1
    where[12:20] = False
    sigmas = (1.25, 2.0)
    expected = sato(values.astype(np.float32), sigmas=sigmas, black_ridges=False, mode="reflect")
    assert np.array_equal(line_filter(values, where, sigmas, slab=slab), expected[where])


def test_nothing_asked_is_nothing_answered() -> None:
    assert line_filter(np.zeros((4, 4, 4), np.int16), np.zeros((4, 4, 4), bool), (1.5,)).size == 0


@pytest.mark.parametrize("spacing", [(2.5, 0.9, 0.9), (1.0, 1.0, 1.0), (0.5, 0.4, 0.4)])
def test_a_box_survives_the_cubic_grid(spacing: tuple[float, float, float]) -> None:
    box = np.zeros((30, 40, 50), np.bool_)
    box[8:22, 10:30, 12:36] = True
    grid = isotropic((30, 40, 50), spacing, cell_mm=1.0)
    assert grid.spacing == pytest.approx((1.0, 1.0, 1.0), rel=0.05)
    back = restored(resampled(box.astype(np.int16) * 100, grid) >= 50, grid)
    assert dice(back, box) > 0.93


def test_the_cubic_grid_of_a_flipped_image_is_flipped() -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (9, 11, 13)).astype(np.int16)
    grid = isotropic((9, 11, 13), (2.5, 0.8, 0.8), cell_mm=1.0)
    for axis in range(3):
        turned = resampled(np.flip(values, axis), grid)
        assert np.abs(turned - np.flip(resampled(values, grid), axis)).max() <= 1


def test_without_contrast_it_is_not_analysed_and_why() -> None:
    plain = thorax(SHAPE, SPACING, seed=3)
    for acquisition, says in ((UNSTATED, "the header names none"), (STATED, "names a contrast")):
        findings = predict(plain, acquisition)
        assert findings.verdict is Verdict.NOT_ANALYSED
        assert findings.segments == ()
        assert says in str(findings.reason)
        assert "no long, evenly bright vessel" in str(findings.reason)


def test_what_decided_is_said_where_the_header_is_silent() -> None:
    findings = predict(thorax(**SMALL, seed=3, contrast_hu=300), UNSTATED)
    assert findings.verdict is Verdict.MEASURED
    assert findings.limitations[0].startswith("The header names no contrast agent; the image shows")
    assert "300 HU" in findings.limitations[0]
    assert measured().limitations[0].startswith("The image shows contrast agent")


@pytest.mark.parametrize(
    ("kept", "acquisition", "spacing", "reason"),
    [
        (40, replace(STATED, modality="MR"), (2.5, 2.5, 2.5), "not a CT image but MR"),
        (19, STATED, (3.0, 2.5, 2.5), "19 slices; at least 20 are needed"),
        (20, STATED, (3.5, 2.5, 2.5), "slices lie 3.5 mm apart; at most 3.0 mm are allowed"),
        (22, STATED, (2.5, 2.5, 2.5), "the stack covers 55 mm; 60 mm are needed"),
    ],
)
def test_what_it_cannot_analyse_is_refused(
    kept: int, acquisition: Acquisition, spacing: tuple[float, float, float], reason: str
) -> None:
    findings = predict(thorax((kept, 20, 20), spacing, contrast_hu=300), acquisition)
    assert (findings.verdict, findings.reason) == (Verdict.NOT_ANALYSED, reason)


def test_coronal_slices_are_refused() -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])[[1, 0, 2, 3]]
    volume = hd.Volume(np.zeros((60, 30, 30), np.int16), affine, "PATIENT")
    findings = found_in(Image(volume=volume, acquisition=STATED), vessels.load({}))
    assert findings.reason == "the slices are not axial"


def test_air_and_water_have_no_vessels() -> None:
    for value in (-1000, 0):
        hu = np.full((30, 40, 40), value, np.int16)
        phantom = replace(thorax((30, 40, 40), (2.5, 5.0, 5.0)), hu=hu)
        assert predict(phantom).verdict is Verdict.NOT_ANALYSED


def test_thick_slices_that_overlap_give_a_mask_without_numbers() -> None:
    findings = predict(thorax(**SMALL, contrast_hu=300), replace(STATED, slice_thickness_mm=5.0))
    assert findings.verdict is Verdict.WITHHELD
    assert findings.reason == "slices of 5.0 mm blur small vessels"
    assert len(findings.segments) == 1
    assert findings.measurements == ()


def test_the_ends_of_the_stack_are_named() -> None:
    assert vessels.ENDS in measured().limitations
    assert vessels.SEVERAL in measured().limitations


def test_it_has_no_settings() -> None:
    with pytest.raises(ValueError, match="no settings"):
        vessels.load({"scale": 3})


def test_from_a_series_to_its_dicom_results() -> None:
    series = datasets(thorax(**SMALL, seed=3, contrast_hu=300))
    provenance = Provenance(
        model_name="vessels", model_version="1.0.0", configuration="c" * 64, fingerprint="f" * 64
    )
    analysis = analyse(series, vessels.load({}), provenance, Options())
    results = dict(analysis.objects)
    assert set(results) == {"segmentation", "measurement_report"}
    seg = hd.seg.Segmentation.from_dataset(results["segmentation"])
    assert seg.segmented_property_types == [codes.SCT.BloodVessel]
    assert seg.SegmentationType == "BINARY"
    volume = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
    (found,) = analysis.findings.segments
    matched = volume.match_geometry(found.mask.get_geometry())
    assert np.array_equal(matched.array > 0, found.mask.array)
