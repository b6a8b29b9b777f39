"""lung_ct on phantoms: what it finds, when it withholds, when it refuses.

Not covered here: real anatomy (tests/integration/test_lung_ct_real.py), time and memory
(benchmarks/built_in.py), how findings are encoded.
"""

from dataclasses import replace
from functools import cache

import highdicom as hd
import numpy as np
import pytest

from inference.blocks import blocks, pool
from inference.findings import Acquisition, Findings, Image, Verdict
from inference.lungs.coverage import Coverage, coverage
from inference.lungs.densitometry import Sharpness, judge, sharpness
from inference.lungs.segmentation import segment
from inference.lungs.separation import LEFT, RIGHT, sides
from inference.models import body_outline, lung_ct
from inference.phantom import Phantom, thorax
from inference.pipeline import found_in

SOFT = Acquisition(modality="CT", slice_thickness_mm=3.0, convolution_kernel="STANDARD")


@cache
def chest() -> Phantom:
    return thorax(bullae=4)


def image(phantom: Phantom, acquisition: Acquisition = SOFT) -> Image:
    volume = hd.Volume(phantom.hu, phantom.affine, "PATIENT")
    return Image(volume=volume, acquisition=acquisition)


@cache
def measured() -> Findings:
    return lung_ct.load({}).predict(image(chest()))


def predict(phantom: Phantom, acquisition: Acquisition = SOFT) -> Findings:
    return lung_ct.load({}).predict(image(phantom, acquisition))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def values(findings: Findings, name: str) -> dict[str | None, float]:
    return {m.segment: m.value for m in findings.measurements if m.name.value == name}


@pytest.mark.parametrize(
    ("label", "truth", "least"),
    [
        ("Right lung", "right_lung", 0.99),
        ("Left lung", "left_lung", 0.99),
        ("Trachea and main bronchi", "airway", 0.8),  # the phantom's tree goes on to the lobes
    ],
)
def test_the_segments_are_the_phantoms(label: str, truth: str, least: float) -> None:
    masks = {s.definition.label: s.mask.array for s in measured().segments}
    assert dice(masks[label], chest().truth[truth]) > least


def test_what_is_measured_is_true_of_the_phantom() -> None:
    findings = measured()
    assert findings.verdict is Verdict.MEASURED
    lungs = {"Right lung": "right_lung", "Left lung": "left_lung"}
    for label, truth in lungs.items():
        mask = chest().truth[truth]
        hu = chest().hu[mask]
        assert values(findings, "118565006")[label] == pytest.approx(
            mask.sum() * 3.0 * 2.2 * 2.2 / 1000, rel=0.01
        )
        assert values(findings, "112031")[label] == pytest.approx(hu.mean(), abs=10)
        share = 100 * (hu < -950).mean()
        assert values(findings, "LAA950")[label] == pytest.approx(share, abs=0.3)  # lobar bronchi
        assert values(findings, "PERC15")[label] == pytest.approx(np.percentile(hu, 15), abs=2)


def test_both_lungs_together_belong_to_no_segment() -> None:
    single = values(measured(), "118565006")
    both = values(measured(), "LUNGSVOL")
    assert both == {None: pytest.approx(single["Right lung"] + single["Left lung"])}
    assert set(values(measured(), "LUNGSLAA950")) == {None}


def test_masks_do_not_overlap_and_lie_on_the_grid_of_the_image() -> None:
    masks = [s.mask for s in measured().segments]
    assert np.stack([m.array for m in masks]).sum(axis=0).max() == 1
    assert all(m.geometry_equal(image(chest()).volume) for m in masks)


def test_the_same_image_gives_the_same_findings() -> None:
    again = predict(chest())
    assert again.measurements == measured().measurements
    for one, other in zip(again.segments, measured().segments, strict=True):
        assert np.array_equal(one.mask.array, other.mask.array)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 2)])
def test_sides_follow_the_patient_not_the_array(axes: tuple[int, ...]) -> None:
    volume = image(chest()).volume.flip_spatial(list(axes))
    findings = lung_ct.load({}).predict(Image(volume=volume, acquisition=SOFT))
    assert values(findings, "118565006") == pytest.approx(values(measured(), "118565006"))
    assert all(s.mask.geometry_equal(volume) for s in findings.segments)


def test_lungs_that_touch_are_parted() -> None:
    hu = chest().hu.copy()
    front = slice(46, 52)  # the lungs meet before the mediastinum, as behind a narrow sternum
    hu[60:75, front, 75:101] = -850
    findings = predict(replace(chest(), hu=hu))
    assert values(findings, "118565006") == pytest.approx(values(measured(), "118565006"), rel=0.06)


def test_a_bridge_between_two_lungs_is_cut_at_its_waist() -> None:
    air = np.zeros((20, 30, 60), np.bool_)
    air[2:18, 3:27, 2:26] = air[2:18, 3:27, 34:58] = True
    air[9:11, 14:16, 26:34] = True
    found = sides(np.full(air.shape, -850, np.float32), air, 29.5, (4.0, 4.0, 4.0))
    labels = found.labels
    assert found.astride
    assert set(np.unique(labels[:, :, :26])) == {0, RIGHT}
    assert set(np.unique(labels[:, :, 34:])) == {0, LEFT}


def test_one_lung_astride_the_midline_stays_one() -> None:
    air = np.zeros((20, 30, 60), np.bool_)
    air[2:18, 3:27, 14:40] = True  # what is left after a pneumonectomy moves over
    labels = sides(np.full(air.shape, -850, np.float32), air, 29.5, (4.0, 4.0, 4.0)).labels
    assert set(np.unique(labels)) == {0, RIGHT}


def test_a_lung_that_moved_over_after_the_other_was_removed_is_told() -> None:
    hu = chest().hu.copy()
    hu[chest().truth["left_lung"]] = 40
    hu[40:75, 40:70, 80:115] = -850  # before the mediastinum, to the left side
    findings = predict(replace(chest(), hu=hu))
    assert findings.verdict is Verdict.WITHHELD or any(
        "right and left may be wrong" in text for text in findings.limitations
    )


def test_one_lung_is_withheld_from_the_sums() -> None:
    hu = chest().hu.copy()
    hu[chest().truth["left_lung"]] = 20  # a white lung
    findings = predict(replace(chest(), hu=hu))
    assert findings.verdict is Verdict.WITHHELD
    assert findings.reason == "no left lung was found"
    assert findings.segments[0].definition.label == "Right lung"
    assert not values(findings, "LUNGSVOL")
    assert "Volume of both lungs" in findings.withheld[0].names


def test_a_cut_lung_has_no_volume_and_the_reason_says_where() -> None:
    findings = predict(chest().keeping(range(45, 100)))
    assert findings.verdict is Verdict.WITHHELD
    assert "the right lung is cut by the lowest slice at" in str(findings.reason)
    assert set(values(findings, "118565006")) == {"Trachea and main bronchi"}
    assert len(findings.segments) == len(lung_ct.SEGMENTS)
    assert "Volume of the left lung" in findings.withheld[1].names


def test_an_airway_that_the_stack_cuts_is_told() -> None:
    middle = int(np.median(np.flatnonzero(chest().truth["airway"].any(axis=(1, 2)))))
    findings = predict(chest().keeping(range(middle, 100)))
    assert lung_ct.BRONCHI_CUT in findings.limitations
    assert lung_ct.BRONCHI_CUT not in measured().limitations


def test_a_lung_that_only_touches_the_end_is_measured_with_the_limitation() -> None:
    lowest = int(np.flatnonzero(chest().truth["right_lung"].any(axis=(1, 2)))[0])
    findings = predict(chest().keeping(range(lowest + 4, 100)))
    assert findings.verdict is Verdict.MEASURED
    assert any("reaches the lowest slice" in text for text in findings.limitations)


def test_a_cut_is_seen_behind_empty_slices() -> None:
    hu = chest().hu.copy()
    hu[:45] = hu[90:] = -1024
    findings = predict(replace(chest(), hu=hu))
    assert findings.verdict is Verdict.WITHHELD
    assert "the right lung is cut by the lowest slice" in str(findings.reason)


def narrow(rows: slice, columns: slice) -> Image:
    """The chest in a small field of view."""
    volume = image(chest()).volume[:, rows, columns]
    return Image(volume=volume, acquisition=SOFT)


def in_a_circle(radius_mm: float) -> Image:
    """The chest in a small circle of reconstruction, padding around it."""
    volume = image(chest()).volume
    row, column = (np.arange(size) - (size - 1) / 2 for size in volume.spatial_shape[1:])
    away = np.hypot(row[:, None], column) * 2.2 > radius_mm
    return Image(volume=volume.with_array(np.where(away, -1024, volume.array)), acquisition=SOFT)


@pytest.mark.parametrize(
    ("acquisition", "words"),
    [
        (replace(SOFT, slice_thickness_mm=5.0), "5.0 mm are too thick"),
        (replace(SOFT, convolution_kernel="BONEPLUS"), "BONEPLUS is too sharp"),
    ],
)
def test_emphysema_indices_are_withheld(acquisition: Acquisition, words: str) -> None:
    findings = predict(chest(), acquisition)
    assert findings.verdict is Verdict.WITHHELD
    assert words in str(findings.reason)
    assert findings.withheld[0].names == ("LAA-950", "Perc15")
    assert not values(findings, "LAA950")
    assert "Right lung" in values(findings, "118565006")


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("STANDARD", Sharpness.SMOOTH),
        ("B31f", Sharpness.SMOOTH),
        ("['Br40d', '3']", Sharpness.SMOOTH),
        ("I30f\\3", Sharpness.SMOOTH),
        ("FC08", Sharpness.SMOOTH),
        ("LUNG", Sharpness.LUNG),
        ("B60f", Sharpness.LUNG),
        ("Bl57d", Sharpness.LUNG),
        ("FC52", Sharpness.LUNG),
        ("L", Sharpness.LUNG),
        ("BONE", Sharpness.ULTRA),
        ("B70s", Sharpness.ULTRA),
        ("Br76", Sharpness.ULTRA),
        ("EDGE", Sharpness.ULTRA),
        ("FC86", Sharpness.ULTRA),
        ("FC30-H", Sharpness.ULTRA),
        ("B_SHARP_C", Sharpness.ULTRA),
        ("B31f and B70f", Sharpness.ULTRA),
        ("B31f and LUNG", Sharpness.LUNG),
        ("", Sharpness.UNKNOWN),
        ("BREAST", Sharpness.UNKNOWN),
        (None, Sharpness.UNKNOWN),
    ],
)
def test_kernels_of_the_vendors(kernel: str | None, kind: Sharpness) -> None:
    assert sharpness(kernel) is kind


@pytest.mark.parametrize("kernel", ["LUNG", None])
def test_a_lung_or_unknown_kernel_is_a_limitation(kernel: str | None) -> None:
    decided = judge(replace(SOFT, convolution_kernel=kernel), 1.0)
    assert decided.refusal is None
    assert len(decided.limitations) == 1


def test_thickness_counts_not_spacing_and_spacing_where_it_is_not_stated() -> None:
    assert judge(replace(SOFT, slice_thickness_mm=1.0), 5.0).refusal is None
    assert judge(replace(SOFT, slice_thickness_mm=None), 5.0).refusal is not None


def test_indices_of_a_noisy_image_are_withheld() -> None:
    findings = predict(thorax(noise_hu=100))
    assert findings.verdict is Verdict.WITHHELD
    assert "HU in the trachea is too much for densitometry" in str(findings.reason)
    assert not values(findings, "LAA950")


def test_contrast_is_seen_or_told() -> None:
    findings = predict(chest(), replace(SOFT, contrast_agent=True))
    assert any("Contrast agent" in text for text in findings.limitations)
    assert not any("Contrast agent" in text for text in measured().limitations)


def coronal() -> Image:
    upright = image(chest()).volume
    return Image(volume=upright.permute_spatial_axes([1, 0, 2]), acquisition=SOFT)


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (image(chest(), replace(SOFT, modality="MR")), "not a CT image but MR"),
        (coronal(), "the slices are not axial"),
        (image(chest().keeping(range(12))), "12 slices; at least 20 are needed"),
        (image(replace(chest(), hu=np.full_like(chest().hu, 30))), "no lungs were found"),
        (image(replace(chest(), hu=np.full_like(chest().hu, -1000))), "no lungs were found"),
        (image(chest().keeping(range(30))), "only a part of the lungs lies in the stack"),
        (narrow(slice(38, 138), slice(38, 138)), "the field of view cuts the lungs at their sides"),
        (in_a_circle(110), "the field of view cuts the lungs at their sides"),
    ],
)
def test_not_analysed_and_why(refused: Image, words: str) -> None:
    findings = found_in(refused, lung_ct.load({}))
    assert findings.verdict is Verdict.NOT_ANALYSED
    assert words in str(findings.reason)
    assert findings.segments == ()
    assert findings.measurements == ()


def test_lungs_of_a_giant_are_a_wrong_spacing() -> None:
    volume = image(chest()).volume
    affine = np.diag([1.0, 5 / 2.2, 5 / 2.2, 1.0]) @ volume.affine  # about the patient's axis
    findings = lung_ct.load({}).predict(
        Image(volume=hd.Volume(volume.array, affine, "PATIENT"), acquisition=SOFT)
    )
    assert findings.verdict is Verdict.NOT_ANALYSED
    assert "Pixel Spacing or the slices' positions are wrong" in str(findings.reason)


def test_air_outside_and_a_table_are_no_lung() -> None:
    spacing = (3.0, 2.2, 2.2)
    labels = segment(chest().hu, spacing).labels
    assert not labels[~chest().truth["body"]].any()


def test_coverage_is_the_share_of_the_largest_cross_section() -> None:
    labels = np.zeros((3, 10, 10), np.uint8)
    labels[0, :2, :5], labels[1], labels[2, :5] = RIGHT, RIGHT, RIGHT
    assert coverage(labels, RIGHT) == Coverage(lowest=0.1, highest=0.5)
    assert coverage(labels, RIGHT).where == "highest"


def test_pooling_keeps_the_mean_and_the_place() -> None:
    values = np.arange(5 * 7 * 9, dtype=np.int16).reshape(5, 7, 9)
    grid = blocks((5, 7, 9), (1.0, 0.7, 0.7), cell_mm=2.0)
    coarse = pool(values, grid, limits=(-1000, 1000))
    assert grid.factors == (2, 3, 3)
    assert coarse[0, 0, 0] == values[:2, :3, :3].mean()
    assert coarse[2, 2, 2] == values[4:, 6:, 6:].mean()
    assert np.array_equal(grid.plane(coarse[0])[6], np.repeat(coarse[0, 2], 3))


@pytest.mark.parametrize("module", [lung_ct, body_outline])
def test_settings_are_refused_by_name(module: object) -> None:
    with pytest.raises(ValueError, match="threshold"):
        module.load({"threshold": 1})  # type: ignore[attr-defined]


def test_another_model_is_one_file() -> None:
    findings = body_outline.load({}).predict(image(chest()))
    assert findings.verdict is Verdict.MEASURED
    assert dice(findings.segments[0].mask.array, chest().truth["body"]) > 0.99


def test_no_body_is_not_analysed() -> None:
    air = replace(chest(), hu=np.full_like(chest().hu, -1000))
    findings = body_outline.load({}).predict(image(air))
    assert findings.reason == "no body found in the image"
