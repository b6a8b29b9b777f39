"""A nnU-Net folder from `--add` to findings on the image's grid, and every refusal in one line.

Random weights. Not covered: the values themselves (test_nnunet_reference.py), every kind of result
object (tests of encoding), real weights, GPUs.
"""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch

from inference import phantom, pipeline, regions, volume
from inference.errors import ModelRefused
from inference.findings import Acquisition, Image, PlanarImage, Verdict
from inference.models import nnunet
from inference.models.nnunet import NnUnet
from service import model_add
from service.validation import ConfigurationError
from tests import nnunet_folders
from tests.encoded import PROVENANCE
from tests.nnunet_folders import CASCADE, COARSE, FINE, FLAT, REGIONS, Study, artifact, results
from tests.volumes import NAMED_ORIENTATIONS, turned

pytestmark = pytest.mark.usefixtures("one_thread")


def model(path: Path, changes: dict[str, Any] | None = None) -> NnUnet:
    found = nnunet.load({}, replace(artifact(path, changes), device="cpu"))
    assert isinstance(found, NnUnet)
    return found


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
        for segment in model(top, {"options": options}).predict(image).segments:
            region = regions.on_grid(segment.mask, image.volume)
            part = image.volume[region.box]
            assert np.allclose(segment.mask.affine, part.affine, rtol=0, atol=1e-9)


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
    assert all(np.shape(segment.mask) == (40, 50) for segment in findings.segments)


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


def edited(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    for file in path.rglob(name):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def net(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["configurations"]["3d_fullres"]
    return found


def test_missing_plans_are_named(top: Path) -> None:
    (results(top) / "plans.json").unlink()
    with pytest.raises(ConfigurationError, match=r"plans\.json is missing"):
        model_add.proposal(top)


def test_a_folder_of_something_else_is_not_of_this_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert nnunet.propose(tmp_path) is None
    assert nnunet.propose(tmp_path / "notes.txt") is None


PLANS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown network": (
        lambda plans: net(plans)["architecture"].update(network_class_name="some.Transformer"),
        "the network some.Transformer is not known",
    ),
    "an unknown argument": (
        lambda plans: net(plans)["architecture"]["arch_kwargs"].update(attention=4),
        "attention is not known",
    ),
    "a part that is no layer": (
        lambda plans: net(plans)["architecture"]["arch_kwargs"].update(nonlin="os.system"),
        "os.system is none of LeakyReLU",
    ),
    "an unknown normalisation": (
        lambda plans: net(plans).update(normalization_schemes=["OwnNormalization"]),
        "the normalisation OwnNormalization is not known",
    ),
    "an unknown resampling": (
        lambda plans: net(plans).update(resampling_fn_data="own_resampling"),
        "the resampling own_resampling is not known",
    ),
    "an unknown reader": (
        lambda plans: plans.update(image_reader_writer="OwnIO"),
        "images read by OwnIO are not known",
    ),
    "no patch": (lambda plans: net(plans).pop("patch_size"), "KeyError: 'patch_size'"),
    "another size": (
        lambda plans: net(plans)["architecture"]["arch_kwargs"].update(
            features_per_stage=[4, 8, 16]
        ),
        "do not fit the network of the plans",
    ),
    "axes that are none": (
        lambda plans: plans.update(transpose_forward=[0, 1, 1]),
        "the transposed axes are not",
    ),
    "a spacing of other axes": (
        lambda plans: net(plans).update(spacing=[1.0, 1.0]),
        "patch_size and spacing are not both",
    ),
    "no configurations": (lambda plans: plans.pop("configurations"), "not of nnU-Net v2"),
}


@pytest.mark.parametrize("what", PLANS)
def test_plans_that_cannot_run_are_refused_in_a_line(top: Path, what: str) -> None:
    change, words = PLANS[what]
    edited(top, "plans.json", change)
    with pytest.raises((ModelRefused, ConfigurationError)) as refusal:
        model(top)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("trainer", "known"),
    [
        ("nnUNetTrainer", True),
        ("nnUNetTrainerNoMirroring", True),
        ("nnUNetTrainer_4000epochs_NoMirroring", True),
        ("nnUNetTrainer_DASegOrd0_NoMirroring", True),
        ("nnUNetTrainerDA5", True),
        ("nnUNetTrainerBN", False),
        ("nnUNet_Primus_M_Trainer", False),
        ("nnUNetTrainerOfOurs", False),
    ],
)
def test_a_trainer_that_may_change_inference_is_refused(
    tmp_path: Path, trainer: str, known: bool
) -> None:
    path = nnunet_folders.write(tmp_path, Study(trainer=trainer))
    if known:
        model(path)
        return
    with pytest.raises(ModelRefused, match=f"the trainer {trainer} may change"):
        model(path)
    assert model(path, {"options": {"trainers": [trainer]}})


def test_changed_weights_are_refused(top: Path) -> None:
    added = artifact(top)
    file = next(top.rglob("checkpoint_final.pth"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"checkpoint_final\.pth changed since"):
        nnunet.load({}, added)


class Call:
    """A pickle of it calls something."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.content = function, arguments

    def __reduce__(self) -> Any:
        return self.content


def test_a_checkpoint_that_is_code_is_refused_and_not_run(top: Path, tmp_path: Path) -> None:
    file, trace = next(top.rglob("checkpoint_final.pth")), tmp_path / "trace"
    found = torch.load(file, weights_only=False)
    torch.save(found | {"logging": Call(Path.touch, trace)}, file)
    with pytest.raises(ModelRefused, match="does not load as weights"):
        model(top)
    assert not trace.exists()
    file.write_bytes(pickle.dumps(Call(Path.touch, trace)))
    with pytest.raises(ModelRefused, match="does not load as weights"):
        model(top)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [{"network_weights": 1}, {"state_dict": {}}, [1, 2], {"network_weights": {"a": 1}}]
)
def test_a_checkpoint_of_something_else_is_refused(top: Path, content: Any) -> None:
    torch.save(content, next(top.rglob("checkpoint_final.pth")))
    with pytest.raises(ModelRefused):
        model(top)


def test_a_checkpoint_that_mirrors_an_axis_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=(FLAT,), mirroring=(0, 2)))
    with pytest.raises(ModelRefused, match="mirrors an axis"):
        model(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 0}, "options.fold is not known"),
        ({"folds": [7]}, "options.folds"),
        ({"step": 0}, "options.step"),
        ({"orientation": "RAR"}, "options.orientation"),
        ({"orientation": "up"}, "options.orientation"),
        ({"mirroring": 1}, "options.mirroring"),
        ({"configuration": "3d_lowres"}, "the configuration 3d_lowres is not in the folder"),
        ({"trainers": "mine"}, "options.trainers"),
    ],
)
def test_wrong_options_are_named(top: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        model(top, {"options": options})


def test_a_sidecar_that_does_not_fit_the_network_is_refused(top: Path) -> None:
    _, proposed = model_add.proposal(top)
    label = dict(proposed["labels"][0])
    with pytest.raises(ModelRefused, match="has the value 7; the model's are 1 to 2"):
        model(top, {"labels": [label | {"value": 7}]})
    with pytest.raises(ModelRefused, match="thresholds are for overlapping regions"):
        model(top, {"labels": [label | {"threshold": 0.3}]})
    with pytest.raises(ModelRefused, match="overlapping is for models with regions"):
        model(top, {"output": {"overlapping": True}})
    with pytest.raises(ModelRefused, match="task is detection"):
        model(top, {"task": "detection"})
    two = [{"role": role, "match": {"SeriesDescription": role}} for role in ("T1", "T2")]
    with pytest.raises(ModelRefused, match=r"wants 1 images \(CT\); input.series names 2"):
        model(top, {"input": {"modalities": ["CT"], "series": two}})
    with pytest.raises(ModelRefused, match="wants volumes"):
        model(top, {"input": {"modalities": ["DX"], "dimensions": 2}})


def test_volumes_carry_no_array_of_another_grid(top: Path) -> None:
    """What leaves the model is on the volume that came in, not on the turned one."""
    loaded = model(top, {"options": {"orientation": "RAS"}})
    image = stack()
    for segment in loaded.predict(image).segments:
        assert isinstance(segment.mask, hd.Volume)
        assert np.array_equal(segment.mask.affine[:3, :3], image.volume.affine[:3, :3])
