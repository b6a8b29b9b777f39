"""A Mask R-CNN finds discs at their known places, and what torchvision's own call finds.

Its weights are set by hand (tests/disc_finder.py). Not covered: trained weights and how good they
are, the way to the PACS (tests/acceptance/test_mask_rcnn.py), GPUs.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, PlanarImage
from inference.models import mask_rcnn
from inference.models.mask_rcnn import MaskRcnn
from tests import disc_finder
from tests.array_models import artifact, label, planar
from tests.disc_finder import BRIGHT, EDGE, GREY, NETWORK, Disc

pytestmark = [disc_finder.usable, pytest.mark.usefixtures("one_thread")]

LABELS = [label(BRIGHT, "Bright", threshold=0.5), label(GREY, "Grey", threshold=0.5)]
NAMES = {"Bright": BRIGHT, "Grey": GREY}
DISCS = (
    Disc(BRIGHT, 60, 70, 32),
    Disc(GREY, 180, 60, 32),
    Disc(BRIGHT, 70, 190, 20),
    Disc(GREY, 180, 190, 20),
)
TOUCHING = (Disc(BRIGHT, 80, 100, 32), Disc(BRIGHT, 138, 100, 32))
NEAR = 6  # pixels: one and a half between places that are looked at
LEAST_DICE = 0.9


@pytest.fixture(scope="module", params=["", "_v2"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return disc_finder.saved(folder / f"discs{request.param}.pt", v2=bool(request.param))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disc_finder.saved(tmp_path_factory.mktemp("models") / "discs.pt")


def loaded(file: Path, labels: list[dict[str, Any]] = LABELS, **network: Any) -> MaskRcnn:
    found = artifact(
        file,
        labels,
        task="detection",
        dimensions=2,
        modalities=["DX"],
        options={"network": NETWORK | network},
    )
    model = mask_rcnn.load({}, found)
    assert isinstance(model, MaskRcnn)
    return model


@cache
def as_added(file: Path) -> MaskRcnn:
    return loaded(file)


def radiograph(discs: tuple[Disc, ...], shape: tuple[int, int] = (EDGE, EDGE)) -> PlanarImage:
    return planar(disc_finder.drawn(discs, shape) * 4000)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def masks(found: Findings) -> dict[str, NDArray[np.bool_]]:
    return {one.definition.label: one.mask.whole() for one in found.segments}


def assert_found(found: Findings, discs: tuple[Disc, ...], shape: tuple[int, int]) -> None:
    """Each disc once, with its class, its box and its mask; nothing else."""
    assert len(found.detections) == len(found.segments) == len(discs)
    by_name = masks(found)
    for disc in discs:
        place = (disc.column, disc.row)
        one = min(
            found.detections,
            key=lambda box: float(np.linalg.norm(np.subtract(box.box.centre, place))),
        )
        assert NAMES[one.definition.label] == disc.kind
        assert one.probability > 0.9
        assert np.abs(np.subtract(one.box.centre, place)).max() <= NEAR
        np.testing.assert_allclose(
            one.box.edges, [(2 * disc.radius, 0), (0, 2 * disc.radius)], atol=0.5
        )
        assert one.segment is not None
        assert dice(by_name[one.segment], disc.mask(shape)) > LEAST_DICE


def test_every_disc_is_found_with_its_class_box_and_mask(file: Path) -> None:
    found = as_added(file).predict(radiograph(DISCS))
    assert_found(found, DISCS, (EDGE, EDGE))
    assert sorted(masks(found)) == ["Bright 1", "Bright 2", "Grey 1", "Grey 2"]
    assert found.limitations == ("Only a test.",)


@pytest.mark.parametrize("shape", [(280, 300)])
def test_scores_boxes_and_masks_are_those_of_torchvision_s_own_call(
    file: Path, shape: tuple[int, int]
) -> None:
    model, image = as_added(file), radiograph(DISCS[:2], shape)
    values = torch.from_numpy(image.pixels / np.float32(4000)).repeat(3, 1, 1)
    with torch.inference_mode():
        (theirs,) = disc_finder.network(v2="v2" in file.name)([values])
    kept = [index for index, score in enumerate(theirs["scores"].tolist()) if score >= 0.5]
    ours = model.predict(image)
    assert len(ours.detections) == len(kept) > 0
    assert [one.probability for one in ours.detections] == theirs["scores"][kept].tolist()
    assert [NAMES[one.definition.label] for one in ours.detections] == theirs["labels"][
        kept
    ].tolist()
    corners = [
        np.add(one.box.centre, 0.5) + sign * np.diag(one.box.edges) / 2
        for one in ours.detections
        for sign in (-1, 1)
    ]
    np.testing.assert_allclose(np.reshape(corners, (-1, 4)), theirs["boxes"][kept], atol=1e-4)
    by_name = masks(ours)
    for index, one in zip(kept, ours.detections, strict=True):
        assert one.segment is not None
        expected = (theirs["masks"][index, 0] > 0.5).numpy()
        assert np.array_equal(by_name[one.segment], expected)


def test_masks_of_neighbours_may_overlap(plain: Path) -> None:
    found = as_added(plain).predict(radiograph(TOUCHING))
    assert_found(found, TOUCHING, (EDGE, EDGE))
    one, other = masks(found).values()
    assert (one & other).any()


def test_the_same_image_gives_the_same_findings(plain: Path) -> None:
    image = radiograph(DISCS)
    first, second = as_added(plain).predict(image), loaded(plain).predict(image)
    assert first.detections == second.detections
    assert all(np.array_equal(masks(first)[name], mask) for name, mask in masks(second).items())


def test_labels_thresholds_and_what_is_not_there(plain: Path) -> None:
    one = loaded(plain, [label(BRIGHT, "Bright", threshold=0.9999)])
    found = one.predict(radiograph(DISCS))
    assert [x.definition.label for x in found.detections] == ["Bright"]
    assert list(masks(found)) == ["Bright"]
    nothing = as_added(plain).predict(radiograph(()))
    assert (nothing.detections, nothing.segments) == ((), ())
    assert "Not found: Bright, Grey." in nothing.limitations


def test_a_photograph_is_seen_in_its_colours(plain: Path) -> None:
    grey = disc_finder.drawn(DISCS)
    colours = np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=-1)
    assert_found(as_added(plain).predict(planar(colours, "XC")), DISCS, grey.shape)


def test_frozen_normalisation_is_the_same_network(plain: Path, tmp_path: Path) -> None:
    state = torch.load(plain, weights_only=True)
    frozen = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save({"model": frozen}, tmp_path / "frozen.pt")
    image = radiograph(DISCS)
    found = loaded(tmp_path / "frozen.pt").predict(image)
    assert found.detections == as_added(plain).predict(image).detections
    exact = loaded(tmp_path / "frozen.pt", norm_eps=0.0).predict(image)
    assert 0 < abs(exact.detections[-1].probability - found.detections[-1].probability) < 0.01


@pytest.mark.parametrize("make", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_defaults_are_torchvision_s(tmp_path: Path, make: str) -> None:
    detection = importlib.import_module("torchvision.models.detection")
    theirs = getattr(detection, make)(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), tmp_path / "coco.pt")
    proposed = mask_rcnn.propose(tmp_path / "coco.pt")
    assert proposed is not None
    labels = [dict(one) for one in proposed["labels"]]
    assert len(labels) == 90
    for options in ({}, proposed["options"]):
        found = artifact(
            tmp_path / "coco.pt", labels, options=options, task="detection", dimensions=2
        )
        model = mask_rcnn.load({}, found)
        assert isinstance(model, MaskRcnn)
        assert settings(model.network) == settings(theirs)


def settings(network: Any) -> dict[str, Any]:
    """What decides how a network runs beside its parameters."""
    rpn, heads, transform = network.rpn, network.roi_heads, network.transform
    norms = {one.eps for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)}
    return {
        "transform": [
            transform.min_size,
            transform.max_size,
            list(transform.image_mean),
            list(transform.image_std),
        ],
        "anchors": [rpn.anchor_generator.sizes, rpn.anchor_generator.aspect_ratios],
        "proposals": [
            rpn._pre_nms_top_n["testing"],
            rpn._post_nms_top_n["testing"],
            rpn.nms_thresh,
            rpn.score_thresh,
        ],
        "boxes": [heads.score_thresh, heads.nms_thresh, heads.detections_per_img],
        "norm_eps": norms,
    }


# What is refused


def test_weights_of_other_anchors_are_refused(plain: Path) -> None:
    with pytest.raises(ModelRefused, match=r"do not fit the network: size mismatch for rpn\.head"):
        loaded(plain, aspect_ratios=[0.5, 1.0, 2.0])


def test_every_parameter_comes_from_the_file(plain: Path, tmp_path: Path) -> None:
    state = torch.load(plain, weights_only=True)
    del state["roi_heads.box_head.fc7.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ModelRefused, match=r"do not fit .*fc7\.bias"):
        loaded(tmp_path / "less.pt")


@pytest.mark.parametrize(
    "name",
    [
        "backbone.body.conv1.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.mask_predictor.mask_fcn_logits.bias",
    ],
)
def test_an_answer_that_is_no_number_is_a_fault_and_not_an_image_without_discs(
    plain: Path, tmp_path: Path, name: str
) -> None:
    state = torch.load(plain, weights_only=True)
    state[name].fill_(float("nan"))
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(ModelError, match="not finite"):
        loaded(tmp_path / "spoilt.pt").predict(radiograph(DISCS))
