"""What the zoo's bundles do beside the common chain, each in the smallest bundle that does it.

Series read one by one, chains that are sums, what MONAI has renamed, and what cannot run. Not
covered: side files and weights (test_bundle_files.py), what cuts the image
(test_bundle_coverage.py), whole bundles of the zoo (test_monai_bundle.py), trained weights.
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from inference.bundles import configuration
from inference.errors import ModelError, ModelRefused
from inference.findings import Image, Verdict
from inference.models import monai_bundle
from tests import bundles
from tests.small_bundles import (
    INVERTED,
    LARGEST,
    NETWORK,
    SAVED,
    SOFTMAX,
    TURNED,
    bundle,
    chain,
    image,
    label_map,
    metadata,
    model,
    reading,
    written,
)

# Series that are read one by one


PHASES = ["arterial", "venous"]
TWO_PHASES = bundle(
    network_def={**NETWORK, "in_channels": 2},
    preprocessing=chain(
        *reading([*PHASES, "label"]),
        {"_target_": "Orientationd", "keys": PHASES, "axcodes": "LPS"},
        {"_target_": "Spacingd", "keys": PHASES, "pixdim": [2, 2, 2], "mode": "bilinear"},
        {"_target_": "ConcatItemsd", "keys": PHASES, "name": "image"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    ),
    postprocessing=chain(SOFTMAX, {**INVERTED, "orig_keys": "arterial"}, LARGEST, SAVED),
)
TWO_PHASES["preprocessing"]["transforms"][1]["keys"] = PHASES


def phases(seen: Image) -> Image:
    other = seen.volume.with_array(np.roll(seen.volume.array, 4, axis=1) // 2)
    return replace(seen, roles={"arterial": seen.volume, "venous": other})


def test_series_that_are_read_one_by_one_are_what_monai_makes_of_their_files(
    tmp_path: Path,
) -> None:
    folder = written(tmp_path / "phases", TWO_PHASES, metadata(2))
    artifact = bundles.artifact(folder)
    assert artifact.description.roles == ("arterial", "venous")
    seen = phases(image())
    values = {one.definition.label: one.value for one in artifact.description.labels}
    ours = label_map(monai_bundle.load({}, artifact).predict(seen), seen, values)
    with warnings.catch_warnings(action="ignore"):
        theirs = phases_by_monai(folder, seen, tmp_path)
    assert len(np.unique(theirs)) > 1
    np.testing.assert_array_equal(ours, theirs)


def phases_by_monai(folder: Path, seen: Image, place: Path) -> np.ndarray:
    """The label map (slice, row, column) that the bundle's own parts make of two files."""
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate

    affine = np.array(seen.volume.affine)[:, [2, 1, 0, 3]]
    affine[:2] *= -1
    files = {name: str(place / f"{name}.nii") for name in PHASES}
    for name, file in files.items():
        values = seen.roles[name].array.transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti2Image(values, affine), file)
    parser = ConfigParser(ConfigParser.load_config_file(bundles.configuration_of(folder)))
    parser["postprocessing"]["transforms"].pop()
    parser["preprocessing"]["transforms"][0]["keys"] = PHASES
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    batch = list_data_collate([parser.get_parsed_content("preprocessing")(files)])
    with torch.inference_mode():
        batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    (item,) = decollate_batch(batch)
    done = parser.get_parsed_content("postprocessing")(item)["pred"]
    return np.asarray(done.numpy()[0].transpose(2, 1, 0), np.int32)


def test_a_series_too_few_is_refused_by_name(tmp_path: Path) -> None:
    artifact = bundles.artifact(written(tmp_path / "phases", TWO_PHASES, metadata(2)))
    fewer = replace(artifact.description, roles=("arterial",))
    with pytest.raises(ModelRefused, match=r"reads 2 series \(arterial, venous\).*names 1"):
        monai_bundle.load({}, replace(artifact, description=fewer))


# Chains of another make


def test_a_chain_that_is_a_sum_of_lists_and_makes_its_own_channels(tmp_path: Path) -> None:
    doubled = {"_target_": "RepeatChanneld", "keys": "@image_key", "repeats": 2}
    tree = bundle(
        image_key="image",
        names={"liver": 1, "spleen": 2},
        network_def={**NETWORK, "in_channels": "$len(@names)"},
        reads=[*reading("@image_key"), TURNED],
        makes=[doubled],
        preprocessing={"_target_": "Compose", "transforms": "$@reads + @makes"},
    )
    artifact = bundles.artifact(written(tmp_path / "sum", tree, metadata(2)))
    assert artifact.description.roles == ()
    assert model(artifact).predict(image()).verdict is Verdict.MEASURED


def test_a_model_for_clicks_says_that_it_had_none(tmp_path: Path) -> None:
    clicks = {"_target_": "AddGuidanceFromPointsDeepEditd", "ref_image": "image", "label_names": {}}
    tree = bundle(preprocessing=chain(*reading(), clicks))
    assert (
        monai_bundle.proposal.WITHOUT_CLICKS
        in bundles.artifact(written(tmp_path / "clicks", tree)).description.limits
    )


def test_a_transform_that_monai_renamed_is_built(tmp_path: Path) -> None:
    load = {"_target_": "LoadImaged", "keys": "image"}
    old = chain(load, {"_target_": "AddChanneld", "keys": "image"}, TURNED)
    plain = bundles.artifact(written(tmp_path / "new", bundle()))
    artifact = bundles.artifact(
        written(tmp_path / "old", bundle(preprocessing=old), weights=state(tmp_path / "new"))
    )
    seen, values = image(), {"liver": 1, "spleen": 2}
    one, other = (label_map(model(each).predict(seen), seen, values) for each in (plain, artifact))
    np.testing.assert_array_equal(one, other)


def state(folder: Path) -> Any:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


def test_a_channel_that_is_cut_out_keeps_its_name(tmp_path: Path) -> None:
    one_hot = {**LARGEST, "to_onehot": 2}
    cut = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x[1:]"}
    tree = bundle(
        network_def={**NETWORK, "out_channels": 2},
        postprocessing=chain(INVERTED, one_hot, cut, SAVED),
    )
    stated = metadata()
    stated["network_data_format"]["outputs"]["pred"]["channel_def"].pop("2")
    artifact = bundles.artifact(written(tmp_path / "cut", tree, stated))
    assert [one.definition.label for one in artifact.description.labels] == ["liver"]
    seen = image()
    loaded = model(artifact)
    expected = raw_scores(loaded, seen).argmax(axis=0) == 1
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(label_map(loaded.predict(seen), seen, {"liver": 1}), expected)


def raw_scores(loaded: Any, seen: Image) -> np.ndarray:
    """(channel, slice, row, column) of the network, back on the image's grid."""
    from inference.bundles import grids, recipe

    sample = recipe.prepared(loaded.recipe, grids.tensor(seen))
    logits = recipe.predicted(loaded.recipe, sample)
    back = loaded.recipe.postprocessing.transforms[0](
        {**sample, "pred": as_image(logits, sample["image"])}
    )["pred"]
    return np.asarray(back.numpy().transpose(0, 3, 2, 1))


def as_image(logits: torch.Tensor, prepared: Any) -> Any:
    from monai.data import MetaTensor

    return MetaTensor(
        logits, meta=dict(prepared.meta), applied_operations=list(prepared.applied_operations)
    )


def test_a_picture_instead_of_labels_is_refused(tmp_path: Path) -> None:
    scores = {
        "_target_": "Lambdad",
        "keys": "pred",
        "func": "$lambda x: (x[:1] * 1000).abs().round()",
    }
    tree = bundle(postprocessing=chain(scores, {**INVERTED, "nearest_interp": True}, SAVED))
    loaded = model(bundles.artifact(written(tmp_path / "picture", tree)))
    with pytest.raises(ModelError, match="an image, not labels"):
        loaded.predict(image())


# What cannot run says so in one line


def test_a_chain_of_bare_arrays_is_refused_when_it_is_added(tmp_path: Path) -> None:
    tree = bundle(preprocessing=chain({"_target_": "LoadImage"}, {"_target_": "ScaleIntensity"}))
    with pytest.raises(Exception, match="reads bare arrays") as refused:
        bundles.artifact(written(tmp_path / "bare", tree))
    assert "\n" not in str(refused.value)


def test_a_bundle_that_makes_images_is_refused_when_it_is_added(tmp_path: Path) -> None:
    tree = {"network_def": NETWORK, "sampler": {"_target_": "scripts.Sampler"}}
    with pytest.raises(Exception, match=r"no preprocessing: .* it makes and aligns none"):
        bundles.artifact(written(tmp_path / "makes", tree))


def test_a_package_that_is_missing_is_named_before_any_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    network = {"_target_": "TorchVisionFCModel", "model_name": "inception_v3", "pretrained": True}
    stated = metadata(3, modality="Mammogram", spatial_shape=[299, 299])
    folder = written(tmp_path / "density", bundle(network_def=network), stated, weights={})
    artifact = bundles.artifact(folder)
    assert artifact.description.modalities == ("MG",)
    for trusted in (False, True):
        with pytest.raises(ModelRefused, match="needs torchvision: it is not installed"):
            model(replace(artifact, trusted=trusted))


@pytest.mark.parametrize(
    ("model_name", "fetches", "transforms"),
    [("inception_v3", False, True), ("resnet50", False, None), ("googlenet", True, None)],
)
def test_weights_that_the_bundles_own_replace_are_not_asked_for(
    model_name: str, fetches: bool, transforms: bool | None
) -> None:
    asked = {"_target_": "TorchVisionFCModel", "model_name": model_name, "pretrained": True}
    network = configuration.edited({"network_def": asked})["network_def"]
    assert network["pretrained"] is fetches
    assert network.get("transform_input") is transforms


def test_keys_are_those_of_the_images_and_not_of_the_truth() -> None:
    tree = bundle(image_key="scan", preprocessing=chain(*reading(["@image_key", "label"])))
    assert configuration.read_keys(tree, "preprocessing") == ("scan",)
