"""Bundles that detect: boxes at their exact place, against the known balls and MONAI's own run.

A small RetinaNet whose weights are set by hand finds three bright balls. Not covered: trained
weights and how good they are, GPUs, the way to the PACS (tests/acceptance/test_annotations.py).
"""

import json
import warnings
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.apps.detection.networks import retinanet_network
from monai.networks.blocks import backbone_fpn_utils
from numpy.typing import NDArray

from inference import phantom, volume
from inference.bundles import feature_pyramids
from inference.errors import ModelError, ModelRefused
from inference.findings import Acquisition, Detection, Findings, Image, PlanarImage, Verdict
from inference.models import monai_bundle
from inference.models.monai_bundle import DetectionModel
from tests import bundles, detecting
from tests.volumes import NAMED_ORIENTATIONS, turned

pytestmark = pytest.mark.usefixtures("one_thread")

ORIENTATIONS = {
    **{name: NAMED_ORIENTATIONS[name] for name in ("axial", "axial, mirrored", "sagittal")},
    "oblique": turned((0.2, -0.15, 0.3)),
}
NEAR_MM = detecting.SPACING_MM * detecting.STRIDE / 2 + 0.5  # along each axis; half a voxel's more
SIDES_MM = np.array(detecting.ANCHOR) * detecting.SPACING_MM


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detecting.make(tmp_path_factory.mktemp("models") / "bright")


def seen(orientation: str) -> Image:
    right, down = ORIENTATIONS[orientation]
    grid = phantom.regular((20, 36, 32), (2.6, 1.3, 1.5), right=right, down=down)
    return volume.read(phantom.datasets(phantom.markers(grid))).image


@cache
def loaded(bundle: Path) -> DetectionModel:
    model = monai_bundle.load({}, bundles.artifact(bundle))
    assert isinstance(model, DetectionModel)
    return model


def found(bundle: Path, image: Image | PlanarImage, **changes: Any) -> Findings:
    """What the bundle finds, `changes` made to its sidecar."""
    artifact = bundles.artifact(bundle, changes)
    model = replace(
        loaded(bundle), description=artifact.description, requirements=artifact.requirements
    )
    findings = model.predict(image)
    assert findings.verdict is Verdict.MEASURED, findings.reason
    return findings


def nearest(detections: tuple[Detection, ...], truth: tuple[float, ...]) -> Detection:
    return min(
        detections, key=lambda one: float(np.linalg.norm(np.subtract(one.box.centre, truth)))
    )


@pytest.mark.parametrize("orientation", list(ORIENTATIONS))
def test_each_ball_has_one_box_around_it_along_the_axes_of_the_source(
    bundle: Path, orientation: str
) -> None:
    image = seen(orientation)
    detections = found(bundle, image).detections
    assert len(detections) == len(phantom.MARKERS)
    axes = np.asarray(image.volume.affine)[:3, :3] / np.asarray(image.volume.spacing)
    for marker in phantom.MARKERS:
        one = nearest(detections, marker)
        assert one.definition.label == "ball"
        assert one.probability > 0.8
        off = axes.T @ np.subtract(one.box.centre, marker)
        assert np.abs(off).max() <= NEAR_MM
        edges = np.asarray(one.box.edges)
        np.testing.assert_allclose(np.linalg.norm(edges, axis=1), SIDES_MM, rtol=1e-4)
        along = np.abs(edges @ axes) / SIDES_MM[:, None]
        np.testing.assert_allclose(np.sort(along, axis=1)[:, -1], 1, atol=1e-4)
    assert len({nearest(detections, marker).box.centre for marker in phantom.MARKERS}) == 3


def by_monai(bundle: Path, image: Image, folder: Path, *, windows: bool = False) -> dict[str, Any]:
    """Boxes (centre and sides, LPS), classes and scores of the bundle's own parts, from a file."""
    from monai.bundle import ConfigParser

    affine = np.array(image.volume.affine)[:, [2, 1, 0, 3]]
    affine[:2] *= -1
    file = folder / "image.nii"
    nibabel.save(nibabel.Nifti2Image(image.volume.array.transpose(2, 1, 0), affine), file)
    with warnings.catch_warnings(action="ignore"), torch.inference_mode():
        parser = ConfigParser(json.loads(bundles.configuration_of(bundle).read_text()))
        with feature_pyramids.buildable():
            network = parser.get_parsed_content("network")
            detector = parser.get_parsed_content("detector")
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        parser.get_parsed_content("detector_ops")
        sample = parser.get_parsed_content("preprocessing")({"image": str(file)})
        plain = sample["image"].as_tensor()
        (said,) = detector.eval()([plain], use_inferer=windows)
        done = parser.get_parsed_content("postprocessing")({**said, "image": sample["image"]})
    return {key: np.asarray(done[key]) for key in ("box", "label", "label_scores")}


def cornered(detections: tuple[Detection, ...]) -> NDArray[np.float64]:
    """Boxes along the patient's axes as centre and sides."""
    sides = [np.abs(np.asarray(one.box.edges)).sum(axis=0) for one in detections]
    return np.hstack([[one.box.centre for one in detections], sides])


def everything(bundle: Path) -> dict[str, Any]:
    """The sidecar's labels without thresholds: the bundle's own rule alone."""
    labels = bundles.artifact(bundle).description.labels
    return {
        "labels": [
            {"value": one.value, "name": one.definition.label, "type": ["X", "99TEST", "X"]}
            for one in labels
        ]
    }


def test_boxes_scores_and_classes_are_those_of_monai(bundle: Path, tmp_path: Path) -> None:
    image = seen("axial")
    theirs = by_monai(bundle, image, tmp_path)
    ours = found(bundle, image, **everything(bundle)).detections
    assert len(ours) == len(theirs["box"]) > len(phantom.MARKERS)
    np.testing.assert_allclose(cornered(ours), theirs["box"], atol=1e-3)
    scores = [one.probability for one in ours]
    np.testing.assert_array_equal(scores, theirs["label_scores"])
    assert scores == sorted(scores, reverse=True)
    assert set(theirs["label"].tolist()) == {detecting.BRIGHT}


def test_centres_are_those_of_monai_on_an_oblique_stack_where_its_sides_are_not(
    bundle: Path, tmp_path: Path
) -> None:
    image = seen("oblique")
    theirs = by_monai(bundle, image, tmp_path)["box"]
    ours = found(bundle, image, **everything(bundle)).detections
    np.testing.assert_allclose([one.box.centre for one in ours], theirs[:, :3], atol=1e-3)
    volumes = [abs(np.linalg.det(np.asarray(one.box.edges))) for one in ours[:3]]
    np.testing.assert_allclose(volumes, SIDES_MM.prod(), rtol=1e-4)
    assert np.abs(theirs[:3, 3:].prod(axis=1) / SIDES_MM.prod() - 1).min() > 0.1


def test_an_image_larger_than_the_window_is_seen_through_windows(tmp_path: Path) -> None:
    bundle = detecting.make(tmp_path / "windowed", window=24)
    image = seen("axial")
    theirs = by_monai(bundle, image, tmp_path, windows=True)
    ours = found(bundle, image, **everything(bundle)).detections
    np.testing.assert_allclose(cornered(ours), theirs["box"], atol=1e-3)
    np.testing.assert_array_equal([one.probability for one in ours], theirs["label_scores"])
    loaded(bundle).detector.detector.inferer = None
    whole = found(bundle, image, **everything(bundle)).detections
    assert [one.probability for one in whole] != [one.probability for one in ours]


def test_the_same_image_gives_the_same_boxes(bundle: Path) -> None:
    assert found(bundle, seen("axial")) == found(bundle, seen("axial"))


def test_a_threshold_of_the_sidecar_leaves_less_and_says_what_was_not_found(bundle: Path) -> None:
    image, every = seen("axial"), everything(bundle)["labels"]
    tight = found(bundle, image, labels=[one | {"threshold": 0.95} for one in every])
    assert 0 < len(tight.detections) < len(phantom.MARKERS)
    assert all(one.probability >= 0.95 for one in tight.detections)
    assert "Not found: dark." in tight.limitations
    none = found(bundle, image, labels=[one | {"threshold": 1.0} for one in every])
    assert none.detections == ()
    assert "Not found: dark, ball." in none.limitations


def test_a_planar_image_has_its_boxes_in_pixels(tmp_path: Path) -> None:
    bundle = detecting.make(tmp_path / "flat", 2)
    rows, columns = np.mgrid[:64, :96]
    pixels = np.zeros((64, 96), np.float32)
    places = ((20.0, 16.0), (70.0, 40.0))  # column, row
    for column, row in places:
        pixels += 2000 * np.exp(-((rows - row) ** 2 / 4.5 + (columns - column) ** 2 / 18))
    image = PlanarImage(pixels=pixels, acquisition=Acquisition(modality="DX"), spacing=(1.0, 0.5))
    labels = [one | {"threshold": 0.2} for one in everything(bundle)["labels"]]
    detections = found(bundle, image, input={"modalities": ["DX"]}, labels=labels).detections
    assert len(detections) == len(places)
    for place in places:
        one = nearest(detections, place)
        off = np.abs(np.subtract(one.box.centre, place)) * (0.5, 1.0)  # mm
        assert off.max() <= NEAR_MM
        width, height = SIDES_MM[:2] / (0.5, 1.0)
        np.testing.assert_allclose(np.abs(one.box.edges), [[width, 0], [0, height]], atol=1e-3)


# What is proposed and what is refused


def test_the_proposal_knows_a_detector_and_wants_no_uncertain_box(bundle: Path) -> None:
    description = bundles.artifact(bundle).description
    assert (description.task, description.dimensions) == ("detection", 3)
    assert [one.definition.label for one in description.labels] == ["dark", "ball"]
    assert {one.threshold for one in description.labels} == {0.5}


def rewritten(folder: Path, change: Any) -> Path:
    bundle = detecting.make(folder)
    tree = detecting.configuration()
    change(tree)
    (bundle / "configs" / "inference.json").write_text(json.dumps(tree))
    return bundle


def test_a_transform_that_moves_boxes_elsewhere_is_refused(tmp_path: Path) -> None:
    zoom = {"_target_": "FlipBoxd", "image_keys": "image", "box_keys": "box"}
    bundle = rewritten(
        tmp_path / "flips", lambda tree: tree["postprocessing"]["transforms"].insert(1, zoom)
    )
    with pytest.raises(ModelRefused, match="FlipBoxd, which moves boxes elsewhere"):
        monai_bundle.load({}, bundles.artifact(bundle))


def test_arguments_that_monai_no_longer_takes_are_left_out(tmp_path: Path) -> None:
    def older(tree: dict[str, Any]) -> None:
        for transform in tree["preprocessing"]["transforms"][1:4]:
            transform["meta_key_postfix"] = "meta_dict"

    bundle = rewritten(tmp_path / "older", older)
    assert isinstance(monai_bundle.load({}, bundles.artifact(bundle)), DetectionModel)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    bundle = rewritten(tmp_path / "other", lambda tree: tree["network_def"].update(num_classes=3))
    with pytest.raises(ModelRefused, match="does not fit the network"):
        monai_bundle.load({}, bundles.artifact(bundle))


def test_boxes_without_a_score_are_a_fault_of_the_model(tmp_path: Path) -> None:
    def half(tree: dict[str, Any]) -> None:
        transforms = tree["postprocessing"]["transforms"]
        transforms.append(
            {"_target_": "Lambdad", "keys": "label_scores", "func": "$lambda x: x[:1]"}
        )

    bundle = rewritten(tmp_path / "half", half)
    with pytest.raises(ModelError, match="without a class or a score"):
        found(bundle, seen("axial"), **everything(bundle))


def test_scores_that_are_no_numbers_are_a_fault_and_not_an_image_without_balls(
    tmp_path: Path,
) -> None:
    bundle = detecting.make(tmp_path / "spoilt")
    file = bundle / "models" / "model.pt"
    weights = torch.load(file, weights_only=True)
    weights["classification_head.cls_logits.bias"][:] = float("nan")
    torch.save(weights, file)
    with pytest.raises(ModelError, match="finite"):
        found(bundle, seen("axial"))


# Without torchvision


def test_monai_has_what_it_lacks_only_while_something_is_built() -> None:
    before = (
        backbone_fpn_utils.torchvision_models,
        retinanet_network._validate_trainable_layers,
    )
    with feature_pyramids.buildable():
        assert retinanet_network._validate_trainable_layers(False, None, 5, 3) == 5
        assert retinanet_network._validate_trainable_layers(True, None, 5, 3) == 3
    assert backbone_fpn_utils.torchvision_models is before[0]
    assert retinanet_network._validate_trainable_layers is before[1]


def test_a_pyramid_has_the_stages_up_to_the_last_that_is_returned_under_their_own_names() -> None:
    from monai.networks.nets import resnet50

    with feature_pyramids.buildable():
        made = retinanet_network.resnet_fpn_feature_extractor(
            resnet50(spatial_dims=3, n_input_channels=1), 3, False, [1, 2], None
        )
    names = {name.split(".")[1] for name in made.state_dict() if name.startswith("body.")}
    assert names == {"conv1", "bn1", "layer1", "layer2"}
    with torch.inference_mode():
        sizes = [value.shape[2] for value in made.eval()(torch.zeros(1, 1, 32, 32, 32)).values()]
    assert all(fine == 2 * coarse for fine, coarse in pairwise(sizes))
    assert len(sizes) == 3
