"""What may be said of a network's numbers: no edge cut, no percent of a logit, no silence for NaN.

Not covered: what MONAI's own transforms do (the bundles' integration tests).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from pydicom.sr.coding import Code

from inference import phantom, regions, volume
from inference.arrays import results
from inference.bundles import answers, grids
from inference.description import Description, Label, Task
from inference.errors import ModelError
from inference.findings import Image, SegmentDefinition
from inference.label_codes import meaning
from inference.models import monai_bundle
from inference.models.monai_bundle import BundleModel
from inference.regions import Region
from tests import array_models, bundles

QUESTION = Code("CHEST", "99LOCAL", "Chest")


def described(
    *values: int, overlapping: bool = False, threshold: float | None = None
) -> Description:
    """Of a classifier whose labels are these outputs."""
    names = {0: "Normal", 1: "Effusion", 2: "Mass"}
    labels = tuple(
        Label(
            value=value,
            definition=SegmentDefinition(
                label=names[value],
                category=meaning(names[value]).category,
                type=meaning(names[value]).type,
            ),
            question=QUESTION,
            threshold=threshold,
        )
        for value in values
    )
    return Description(
        name="Chest", version="1", licence="MIT", summary="Test.", task=Task.CLASSIFICATION,
        labels=labels, overlapping=overlapping, dimensions=2, modalities=("DX",), axial=False,
        min_slices=1, max_spacing_mm=None, roles=(), limits=("Only a test.",), files={}, options={},
    )  # fmt: skip


def numbers(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_likeliest_class_is_the_answer() -> None:
    found = answers.classification(numbers(0.2, 0.7, 0.1), described(0, 1, 2))
    assert [one.answer.meaning for one in found.classifications] == ["Effusion"]
    assert found.classifications[0].probability == pytest.approx(0.7)
    assert found.limitations == ("Only a test.",)


def test_a_likeliest_class_without_a_label_is_said_and_is_not_nothing() -> None:
    found = answers.classification(numbers(0.2, 0.1, 0.7), described(0, 1))
    assert found.classifications == ()
    assert found.limitations[-1] == (
        "The likeliest class (number 2) has no label: no answer is given."
    )


@pytest.mark.parametrize(("probability", "said"), [(0.03, 0), (0.8, 1)])
def test_one_output_says_how_probable_one_class_is(probability: float, said: int) -> None:
    found = answers.classification(numbers(probability), described(0))
    assert len(found.classifications) == said


def test_numbers_that_are_no_probabilities_are_not_called_so() -> None:
    found = answers.classification(numbers(0.9, -3.0), described(0, 1), stated=False)
    assert [one.probability for one in found.classifications] == [None]


@pytest.mark.parametrize("value", [1.0, 0.7])
def test_slices_beyond_the_last_centre_of_a_coarser_grid_are_not_cut(value: float) -> None:
    grid = grids.Grid(shape=(8, 8, 18), affine=np.diag((1.0, 1.0, 2.3, 1.0)))
    found = MetaTensor(
        torch.full((1, 8, 8, 40), value), affine=torch.diag(torch.tensor((1.0, 1.0, 1.0, 1.0)))
    )
    back = grids.on_grid(found, grid, seen=found)
    assert (back == np.float32(value)).all()


def test_nothing_lies_outside_of_what_was_found() -> None:
    grid = grids.Grid(shape=(8, 8, 18), affine=np.diag((1.0, 1.0, 2.3, 1.0)))
    found = MetaTensor(torch.full((1, 4, 8, 20), 0.7), affine=torch.eye(4))
    back = grids.on_grid(found, grid, seen=found)
    assert set(map(tuple, np.argwhere(back[0])[:, [0, 2]])) == {
        (column, plane) for column in range(4) for plane in range(9)
    }


@pytest.mark.parametrize(("slices", "said"), [((3, 8), 0), ((0, 4), 1), ((6, 12), 1)])
@pytest.mark.parametrize("overlapping", [False, True])
def test_a_structure_that_the_stack_cuts_is_named(
    overlapping: bool, slices: tuple[int, int], said: int
) -> None:
    image = seen()
    found = np.zeros((2, *image.volume.spatial_shape), np.int32)
    found[0, 4:8, 2:9, 2:9] = found[1, slice(*slices), 12:16, 12:16] = 1
    labels = found.astype(bool) if overlapping else found[1]
    structures = described(0, 1, overlapping=True) if overlapping else described(1)
    words = "Reaches the end of the stack, so its volume may be of a part: Effusion."
    limits = answers.labelled(labels, image, structures).limitations
    assert [one for one in limits if one != "Only a test."] == [words] * said


# A segmenting network that gives no number


def compose(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


TREE = {
    "network_def": {
        "_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1
    },
    "preprocessing": compose(
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    ),
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
    "postprocessing": compose(
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ),
}  # fmt: skip
METADATA = {
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}},
    }
}


def above(hu: float, folder: Path) -> BundleModel:
    """A bundle whose spleen is what is brighter."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(TREE))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    state = {
        "weight": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1),
        "bias": torch.tensor([0.0, -hu]),
    }
    torch.save(state, folder / "models" / "model.pt")
    made = monai_bundle.load({}, bundles.artifact(folder))
    assert isinstance(made, BundleModel)
    assert made.quick is not None
    return made


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_mask_of_a_planar_image_is_kept_as_the_box_of_what_was_found(
    *, overlapping: bool
) -> None:
    image = array_models.planar(np.zeros((30, 40), np.float32))
    wanted = described(1, 2, overlapping=overlapping)
    values = np.zeros((3, 40, 30), np.float32)  # (channel, x, y)
    values[0] = 0.4
    values[1, 5:9, 20:23], values[2, 7:8, 2:4] = 1, 1
    by_bundle = answers.segmentation(values, image, wanted).segments
    masks = zip(wanted.labels, values[1:].transpose(0, 2, 1) > 0.5, strict=True)
    by_array = results.segmented(image, wanted, masks).segments
    for first, second in (by_bundle, by_array):
        for segment, corner, size in ((first, (20, 5), (3, 4)), (second, (2, 7), (2, 1))):
            region: object = segment.mask
            assert isinstance(region, Region)
            assert (region.shape, region.begin) == ((30, 40), corner)
            assert region.mask.shape == size
            assert region.mask.all()


def seen() -> Image:
    return volume.read(
        phantom.datasets(phantom.markers(phantom.regular((12, 20, 24), (3.0, 2.0, 2.0))))
    ).image


@pytest.mark.parametrize("own_parts", [False, True])
def test_what_is_brighter_is_found_and_no_number_is_an_error(
    own_parts: bool, tmp_path: Path
) -> None:
    image = seen()
    exact, broken = above(500, tmp_path / "exact"), above(float("nan"), tmp_path / "broken")
    if own_parts:
        exact, broken = replace(exact, quick=None), replace(broken, quick=None)
    (segment,) = exact.predict(image).segments
    mask = regions.on_grid(segment.mask, image.volume).whole()
    assert np.array_equal(mask, image.volume.array > 500)
    with pytest.raises(ModelError, match="not finite"):
        broken.predict(image)
