"""A nnU-Net folder from `--add` to findings on the image's grid.

Random weights. Not covered: what is refused (test_nnunet_refusals.py), the values themselves
(test_nnunet_reference.py), every kind of result object (tests of encoding), real weights, GPUs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from inference import phantom, pipeline, regions, volume
from inference.errors import ModelRefused
from inference.findings import Acquisition, Image, PlanarImage, Verdict
from service import model_add
from tests import nnunet_folders
from tests.encoded import PROVENANCE
from tests.nnunet_folders import (
    CASCADE,
    COARSE,
    FINE,
    FLAT,
    REGIONS,
    Study,
    artifact,
    model,
    results,
)
from tests.volumes import NAMED_ORIENTATIONS, turned

pytestmark = pytest.mark.usefixtures("one_thread")


def stack(right: Any = (1, 0, 0), down: Any = (0, 1, 0), *, modality: str = "CT") -> Image:
    """Markers in a small stack, read from data sets."""
    grid = phantom.regular((12, 30, 34), (3.5, 1.3, 1.2), right=right, down=down)
    scan = phantom.Scan(modality=modality)
    return volume.read(phantom.datasets(phantom.markers(grid, base=20), scan)).image


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return nnunet_folders.write(tmp_path, Study())


@pytest.mark.parametrize("which", ["the results", "the data set above them"])
def test_a_folder_that_was_added_segments(top: Path, which: str) -> None:
    path = results(top) if which == "the results" else top
    image = stack()
    findings = model(path).predict(image)
    assert findings.verdict is Verdict.MEASURED
    assert [segment.definition.label for segment in findings.segments] == ["liver", "spleen"]
    for segment in findings.segments:
        assert segment.mask.array.dtype == np.bool_
        assert segment.mask.array.any()
    one, other = (regions.on_grid(found.mask, image.volume) for found in findings.segments)
    assert not (one.whole() & other.whole()).any()
    measured = [one.segment for one in findings.measurements]
    assert measured == ["liver", "spleen"]
    assert findings.limitations[0].startswith("Trained elsewhere")
    assert findings.limitations[1].startswith("Cut by the first or last slice")


@pytest.mark.parametrize("study", [Study(), Study(labels=REGIONS, regions_order=(1, 2, 3))])
def test_labels_and_regions_become_dicom_objects(tmp_path: Path, study: Study) -> None:
    """Data sets in, result objects out; every segment's voxels are those of the findings."""
    loaded = model(nnunet_folders.write(tmp_path, study))
    grid = phantom.regular((12, 30, 34), (3.5, 1.3, 1.2))
    datasets = phantom.datasets(phantom.markers(grid, base=20), phantom.Scan())
    found = pipeline.analyse(datasets, loaded, PROVENANCE, pipeline.Options())
    assert found.reason is None
    kept = {}
    for kind, dataset in found.objects:
        if kind == "segmentation":
            names = [item.SegmentLabel for item in dataset.SegmentSequence]
            segmentation = hd.seg.Segmentation.from_dataset(dataset)
            for number, name in enumerate(names, start=1):
                kept[name] = int(segmentation.get_volume(segment_numbers=[number]).array.sum())
    expected = {
        segment.definition.label: int(segment.mask.array.sum())
        for segment in found.findings.segments
    }
    assert kept == expected
    assert len(kept) >= 2


def test_the_same_image_gives_the_same_labels(top: Path) -> None:
    image = stack()
    once, again = (model(top).labelled(image) for _ in range(2))
    assert np.array_equal(once, again)


def test_the_sidecar_says_what_the_folder_says(top: Path) -> None:
    kind, proposed = model_add.proposal(top)
    assert kind == "nnunet"
    assert proposed["name"] == "Phantom"
    assert proposed["version"] == "nnUNetTrainer, 1 fold"
    assert proposed["input"] == {"modalities": ["CT"], "dimensions": 3}
    assert proposed["options"] == {"configuration": "3d_fullres"}
    assert [label["value"] for label in proposed["labels"]] == [1, 2]
    assert proposed["labels"][1]["type"] == ["78961009", "SCT", "Spleen"]


def test_several_channels_are_series_with_roles(tmp_path: Path) -> None:
    study = Study(channels=("T1", "FLAIR"), scheme="ZScoreNormalization")
    path = nnunet_folders.write(tmp_path, study)
    loaded = model(path)
    assert loaded.description.roles == ("T1", "FLAIR")
    image = stack(modality="MR")
    brighter = image.volume.with_array(image.volume.array[::-1] + 100)
    one = replace(image, roles={"T1": image.volume, "FLAIR": brighter})
    other = replace(image, roles={"T1": brighter, "FLAIR": image.volume})
    assert (loaded.labelled(one) != loaded.labelled(other)).any()


def test_regions_overlap_and_are_unions_of_labels(tmp_path: Path) -> None:
    study = Study(labels=REGIONS, regions_order=(1, 2, 3))
    path = nnunet_folders.write(tmp_path, study)
    loaded, image = model(path), stack()
    labelled = loaded.labelled(image)
    masks = {
        one.definition.label: regions.on_grid(one.mask, image.volume).whole()
        for one in loaded.predict(image).segments
    }
    assert set(masks) == {"whole tumour", "core", "enhancing"}
    assert np.array_equal(masks["whole tumour"], labelled > 0)
    assert np.array_equal(masks["core"], labelled > 1)
    assert np.array_equal(masks["enhancing"], labelled == 3)


def test_a_threshold_of_a_region_counts(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(labels=REGIONS, regions_order=(1, 2, 3)))
    labels = artifact(path).description.labels
    _, proposed = model_add.proposal(path)
    changed = [dict(label) for label in proposed["labels"]]
    changed[2]["threshold"] = 0.9
    image = stack()
    usual, strict = model(path), model(path, {"labels": changed})
    assert strict.description.labels[2].definition == labels[2].definition
    assert (strict.labelled(image) == 3).sum() < (usual.labelled(image) == 3).sum()


def test_the_folds_that_are_wanted_are_run(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(folds=3))
    image = stack()
    assert len(model(path).segmenter.members[0][-1].folds) == 3
    assert len(model(path, {"options": {"folds": [0, 2]}}).segmenter.members[0][-1].folds) == 2
    alone = model(path, {"options": {"folds": [2]}}).labelled(image)
    assert (alone != model(path).labelled(image)).any()


@pytest.mark.parametrize("orientation", NAMED_ORIENTATIONS)
def test_an_image_is_turned_as_the_training_images_were(top: Path, orientation: str) -> None:
    """However a patient's stack is stored, the network sees the same array."""
    loaded = model(top, {"options": {"orientation": "RAS"}})
    reference = stack()
    right, down = NAMED_ORIENTATIONS["axial"]
    assert (right, down) == ((1, 0, 0), (0, 1, 0))
    expected = reference.volume.with_array(loaded.labelled(reference))
    order = stack(*NAMED_ORIENTATIONS[orientation]).volume.get_closest_patient_orientation()
    stored = replace(reference, volume=reference.volume.to_patient_orientation(order))
    found = stored.volume.with_array(loaded.labelled(stored))
    back = found.to_patient_orientation(reference.volume.get_closest_patient_orientation())
    assert back.geometry_equal(reference.volume)
    assert np.array_equal(back.array, expected.array)


def test_without_an_orientation_the_array_is_taken_as_it_comes(top: Path) -> None:
    plain, turning = model(top), model(top, {"options": {"orientation": "RAS"}})
    image = stack()
    assert (plain.labelled(image) != turning.labelled(image)).any()
    flipped = image.volume.to_patient_orientation("HAR")
    as_trained = Image(volume=flipped, acquisition=image.acquisition)
    assert np.array_equal(plain.labelled(as_trained), turning.labelled(as_trained))


@pytest.mark.parametrize("orientation", NAMED_ORIENTATIONS)
def test_unusual_slices_given_as_they_come_are_said(top: Path, orientation: str) -> None:
    image = stack(*NAMED_ORIENTATIONS[orientation])
    said = [one for one in model(top).predict(image).limitations if "sides exchanged" in one]
    assert len(said) == (orientation != "axial")
    turning = model(top, {"options": {"orientation": "RAS"}})
    assert not any("sides exchanged" in one for one in turning.predict(image).limitations)


@pytest.mark.parametrize(
    ("study", "orientation"),
    [
        (Study(), None),
        (Study(reader="NibabelIOWithReorient"), "RAS"),
        (Study(dataset="Dataset291_TotalSegmentator_part1_organs_1559subj"), "RAS"),
    ],
)
def test_the_orientation_of_the_training_is_known(
    tmp_path: Path, study: Study, orientation: str | None
) -> None:
    assert model(nnunet_folders.write(tmp_path, study)).orientation == orientation


def test_an_oblique_stack_keeps_its_grid(top: Path) -> None:
    image = stack(*turned((0.2, -0.15, 0.3)))
    for options in ({}, {"orientation": "LAS"}):
        loaded = model(top, {"options": options})
        labelled, segments = loaded.labelled(image), loaded.predict(image).segments
        assert segments
        for segment in segments:
            region = regions.on_grid(segment.mask, image.volume)
            part = image.volume[region.box]
            assert np.allclose(segment.mask.affine, part.affine, rtol=0, atol=1e-9)
            value = nnunet_folders.ORGANS[segment.definition.label]
            assert np.array_equal(region.whole(), labelled == value)


def test_pictures_are_segmented_in_their_pixels(tmp_path: Path) -> None:
    flat = replace(FLAT, spacing=(1.0, 1.0))
    study = Study(
        nets=(flat,),
        channels=("R", "G", "B"),
        scheme="RGBTo01Normalization",
        reader="NaturalImage2DIO",
    )
    loaded = model(nnunet_folders.write(tmp_path, study))
    assert loaded.requirements.dimensions == 2
    pixels = np.random.default_rng(0).integers(1, 255, (40, 50, 3), dtype=np.uint8)
    acquisition = Acquisition(modality="XC")
    findings = loaded.predict(PlanarImage(pixels=pixels, acquisition=acquisition))
    assert findings.verdict is Verdict.MEASURED
    assert findings.segments
    assert all(segment.mask.shape == (40, 50) for segment in findings.segments)


@pytest.mark.parametrize("spacing", [None, (0.8, 0.8)])
def test_radiographs_need_a_spacing(tmp_path: Path, spacing: tuple[float, float] | None) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=(FLAT,)))
    loaded = model(path, {"input": {"modalities": ["DX"], "dimensions": 2}})
    pixels = nnunet_folders.image((1, 60, 50))[0, 0]
    acquisition = Acquisition(modality="DX")
    findings = loaded.predict(PlanarImage(pixels=pixels, acquisition=acquisition, spacing=spacing))
    assert (findings.verdict is Verdict.MEASURED) == (spacing is not None)


def test_an_empty_image_is_not_analysed(top: Path) -> None:
    image = stack()
    empty = replace(image, volume=image.volume.with_array(np.zeros_like(image.volume.array)))
    findings = model(top).predict(empty)
    assert findings.verdict is Verdict.NOT_ANALYSED
    assert findings.reason == "the image is zero everywhere"


def test_another_modality_is_not_analysed(top: Path) -> None:
    findings = pipeline.found_in(stack(modality="MR"), model(top))
    assert findings.verdict is Verdict.NOT_ANALYSED


def test_a_cascade_runs_from_the_folder_above(tmp_path: Path) -> None:
    path = nnunet_folders.write(
        tmp_path, Study(nets=(COARSE, replace(FINE, trained=False), CASCADE))
    )
    loaded = model(path)
    (member,) = loaded.segmenter.members
    assert [stage.configuration.name for stage in member] == [
        "3d_lowres",
        "3d_cascade_fullres",
    ]
    assert loaded.predict(stack()).verdict is Verdict.MEASURED
    with pytest.raises(ModelRefused, match=r"3d_lowres is not in the folder.*folder above"):
        model(results(path, "3d_cascade_fullres"))


def test_volumes_carry_no_array_of_another_grid(top: Path) -> None:
    """What leaves the model is on the volume that came in, not on the turned one."""
    loaded = model(top, {"options": {"orientation": "RAS"}})
    image = stack()
    segments = loaded.predict(image).segments
    assert segments
    for segment in segments:
        assert isinstance(segment.mask, hd.Volume)
        assert np.array_equal(segment.mask.affine[:3, :3], image.volume.affine[:3, :3])
