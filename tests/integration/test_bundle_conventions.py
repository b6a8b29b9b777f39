"""What the zoo's bundles do beside the common chain, each in the smallest bundle that does it.

Side files, weights by name, series read one by one, chains that are sums, what cuts the image, and
what cannot run. Not covered: whole bundles of the zoo (test_monai_bundle.py), trained weights.
"""

import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import CenterSpatialCrop

from inference import phantom, regions, volume
from inference.bundles import configuration, coverage
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, Verdict
from inference.models import monai_bundle
from tests import bundles, detecting
from tests.integration.test_monai_bundle_small import model, written
from tests.volumes import turned

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}
TURNED = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
INVERTED = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
}
LARGEST = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SAVED = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "eval"}


def chain(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(steps)}


def reading(keys: str | list[str] = "image", **more: Any) -> tuple[dict[str, Any], ...]:
    return (
        {"_target_": "LoadImaged", "keys": keys, **more},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
    )


def bundle(**changes: Any) -> dict[str, Any]:
    """A plain bundle of one series and two structures, with parts replaced."""
    return {
        "bundle_root": ".",
        "network_def": NETWORK,
        "preprocessing": chain(*reading(), TURNED),
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
        "postprocessing": chain(SOFTMAX, INVERTED, LARGEST, SAVED),
        **changes,
    }


def metadata(channels: int = 1, **image: Any) -> dict[str, Any]:
    names = {"0": "background", "1": "liver", "2": "spleen"}
    stated = {"modality": "CT", "num_channels": channels, "channel_def": {"0": "image"}}
    return {
        "name": "Conventions",
        "version": "1",
        "network_data_format": {
            "inputs": {"image": stated | image},
            "outputs": {"pred": {"channel_def": names}},
        },
    }


def made(folder: Path, tree: Mapping[str, Any], stated: Any = None, **more: Any) -> Path:
    return written(folder, tree, stated=stated or metadata(), **more)


def image() -> Image:
    right, down = turned((0.1, 0.2, -0.3))
    grid = phantom.regular((12, 24, 20), (3.0, 2.0, 1.5), right=right, down=down)
    return volume.read(phantom.datasets(phantom.markers(grid, base=20), phantom.Scan())).image


def label_map(found: Findings, seen: Image, values: Mapping[str, int]) -> np.ndarray:
    whole = np.zeros(seen.volume.spatial_shape, np.int32)
    for segment in found.segments:
        mask = regions.on_grid(segment.mask, seen.volume).whole()
        whole[mask] = values[segment.definition.label]
    return whole


# Side files


SHAPED = bundle(
    shape_path="$@bundle_root + '/models/shape.pt'",
    shape="$torch.load(@shape_path, map_location=torch.device('cuda'))",
    network_def={**NETWORK, "channels": "$[int(one) for one in @shape['channels']]"},
)


def shaped(folder: Path, channels: list[int]) -> Path:
    torch.manual_seed(3)
    network = monai_unet(channels)
    made(folder, SHAPED, weights=network.state_dict())
    held = {"channels": np.array(channels), "node": np.ones((2, 2), np.float32), "score": 0.5}
    torch.save(held, folder / "models" / "shape.pt")
    return folder


def monai_unet(channels: list[int]) -> torch.nn.Module:
    from monai.networks.nets import UNet

    return UNet(3, 1, 3, channels, [2])


def test_a_network_is_built_from_a_side_file_of_the_bundle(tmp_path: Path) -> None:
    for channels in ([4, 8], [3, 6]):
        folder = shaped(tmp_path / f"of{channels[0]}", channels)
        found = model(bundles.artifact(folder)).predict(image())
        assert found.verdict is Verdict.MEASURED


def test_a_side_file_that_changed_is_not_read(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "changed", [4, 8])
    artifact = bundles.artifact(folder)
    torch.save({"channels": np.array([3, 6])}, folder / "models" / "shape.pt")
    with pytest.raises(ModelRefused, match=r"shape\.pt changed"):
        model(artifact)


class Calls:
    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._marker, "w"))


def test_a_side_file_with_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "code", [4, 8])
    marker = tmp_path / "ran"
    torch.save({"channels": Calls(marker)}, folder / "models" / "shape.pt", pickle_module=pickle)
    artifact = bundles.artifact(folder)
    for trusted in (False, True):
        with pytest.raises(ModelRefused, match=r"shape\.pt does not load as weights"):
            model(replace(artifact, trusted=trusted))
    assert not marker.exists()


@pytest.mark.parametrize("form", ["expression", "component", "configuration", "deeper"])
def test_what_a_side_file_says_is_never_run(tmp_path: Path, form: str) -> None:
    """Of a file of plain values MONAI would evaluate texts as it does those of a configuration."""
    marker = tmp_path / "ran"
    hostile: Any = {
        "expression": f"$open({str(marker)!r}, 'w')",
        "component": {"_target_": "builtins.open", "file": str(marker), "mode": "w"},
        "configuration": f"%{marker}.json",
        "deeper": [{"more": [f"$open({str(marker)!r}, 'w')"]}],
    }[form]
    folder = shaped(tmp_path / "says", [4, 8])
    torch.save({"channels": np.array([4, 8]), "more": hostile}, folder / "models" / "shape.pt")
    with pytest.raises(ModelRefused, match=r"shape\.pt holds what MONAI would run"):
        model(bundles.artifact(folder))
    assert not marker.exists()


def test_what_the_metadata_say_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    tree = {
        **SHAPED,
        "shape_path": "$@bundle_root + '/configs/metadata.json'",
        "shape": "$json.loads(pathlib.Path(@shape_path).read_text())",
        "network_def": {**NETWORK, "channels": "$[int(one) for one in @shape['channels']]"},
    }
    stated = {**metadata(), "channels": [4, 8], "more": f"$open({str(marker)!r}, 'w')"}
    folder = made(tmp_path / "says", tree, stated, weights=monai_unet([4, 8]).state_dict())
    with pytest.raises(ModelRefused, match=r"metadata\.json holds what MONAI would run"):
        model(bundles.artifact(folder))
    assert not marker.exists()


def test_a_side_file_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "missing", [4, 8])
    (folder / "models" / "shape.pt").unlink()
    with pytest.raises(ModelRefused, match=r"models/shape\.pt is not among the files"):
        model(bundles.artifact(folder))


@pytest.mark.parametrize("path", ["/etc/shape.pt", "models/../../shape.pt", "$open('models/x.pt')"])
def test_other_files_than_the_bundles_own_are_not_loaded(tmp_path: Path, path: str) -> None:
    tree = {**SHAPED, "shape_path": path}
    folder = made(tmp_path / "other", tree, weights={})
    with pytest.raises(ModelRefused, match=r"torch\.load|is not among the files"):
        model(bundles.artifact(folder))


@pytest.mark.parametrize("place", ["../shape.pt", "/etc/hostname", "configs/../../x.json"])
def test_a_configuration_cannot_name_a_side_file_outside_itself(tmp_path: Path, place: str) -> None:
    tree = {**SHAPED, "shape": {configuration.SIDE_FILE: place}}
    with pytest.raises(ModelRefused, match="is not among the files that were added"):
        model(bundles.artifact(made(tmp_path / "outside", tree, weights={})))


# Weights


LOADER = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/tuned.pt'"}


def test_of_several_weights_those_that_the_bundle_loads(tmp_path: Path) -> None:
    folder = made(tmp_path / "several", bundle(handlers=[LOADER]))
    weights = folder / "models"
    (weights / "model.pt").rename(weights / "tuned.pt")
    torch.save({}, weights / "other.pt")
    artifact = bundles.artifact(folder)
    assert artifact.description.options["weights"] == "models/tuned.pt"
    assert model(artifact).predict(image()).verdict is Verdict.MEASURED


def test_of_several_weights_without_a_word_none_is_guessed(tmp_path: Path) -> None:
    folder = made(tmp_path / "several", bundle())
    (folder / "models" / "model.pt").rename(folder / "models" / "tuned.pt")
    torch.save({}, folder / "models" / "other.pt")
    with pytest.raises(Exception, match="several weights"):
        bundles.artifact(folder)


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
    folder = made(tmp_path / "phases", TWO_PHASES, metadata(2))
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
    artifact = bundles.artifact(made(tmp_path / "phases", TWO_PHASES, metadata(2)))
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
    artifact = bundles.artifact(made(tmp_path / "sum", tree, metadata(2)))
    assert artifact.description.roles == ()
    assert model(artifact).predict(image()).verdict is Verdict.MEASURED


def test_a_model_for_clicks_says_that_it_had_none(tmp_path: Path) -> None:
    clicks = {"_target_": "AddGuidanceFromPointsDeepEditd", "ref_image": "image", "label_names": {}}
    tree = bundle(preprocessing=chain(*reading(), clicks))
    assert (
        monai_bundle.proposal.WITHOUT_CLICKS
        in bundles.artifact(made(tmp_path / "clicks", tree)).description.limits
    )


def test_a_transform_that_monai_renamed_is_built(tmp_path: Path) -> None:
    load = {"_target_": "LoadImaged", "keys": "image"}
    old = chain(load, {"_target_": "AddChanneld", "keys": "image"}, TURNED)
    plain = bundles.artifact(made(tmp_path / "new", bundle()))
    artifact = bundles.artifact(
        made(tmp_path / "old", bundle(preprocessing=old), weights=state(tmp_path / "new"))
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
    artifact = bundles.artifact(made(tmp_path / "cut", tree, stated))
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
    loaded = model(bundles.artifact(made(tmp_path / "picture", tree)))
    with pytest.raises(ModelError, match="an image, not labels"):
        loaded.predict(image())


# What is cut off


def cropped(folder: Path, crop: Mapping[str, Any]) -> Findings:
    tree = bundle(preprocessing=chain(*reading(), TURNED, crop))
    return model(bundles.artifact(made(folder, tree))).predict(image())


@pytest.mark.parametrize(
    ("crop", "percent"),
    [
        ({"_target_": "CenterSpatialCropd", "roi_size": [10, -1, 12]}, 50),
        ({"_target_": "ResizeWithPadOrCropd", "spatial_size": [32, 12, 32]}, 50),
        ({"_target_": "CenterScaleCropd", "roi_scale": 0.5}, 12),
        ({"_target_": "SpatialCropd", "roi_start": [0, 0, 0], "roi_end": [20, 24, 3]}, 25),
    ],
)
def test_a_bundle_that_cuts_the_image_says_how_much_it_saw(
    tmp_path: Path, crop: dict[str, Any], percent: int
) -> None:
    found = cropped(tmp_path / "cut", {**crop, "keys": "image"})
    said = f"The model looked at a part of the image only, {percent} % of it: what lies outside"
    assert [one for one in found.limitations if one.startswith(said)]
    assert found.verdict is Verdict.MEASURED


@pytest.mark.parametrize(
    "crop",
    [
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [32, 32, 32]},
        {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [100, 100, 100]},
    ],
)
def test_what_cuts_nothing_but_background_says_nothing(
    tmp_path: Path, crop: dict[str, Any]
) -> None:
    found = cropped(tmp_path / "whole", crop)
    assert not [one for one in found.limitations if "a part of the image" in one]


def test_a_picture_that_is_cut_says_so_too() -> None:
    picture = CenterSpatialCrop((10, 8))(MetaTensor(torch.zeros(1, 10, 16)))
    (said,) = coverage.limits(picture)
    assert " 50 % of it" in said


def test_what_a_detector_did_not_see_is_said(tmp_path: Path) -> None:
    crop = {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [-1, -1, 10]}
    override = {"override": {"preprocessing::transforms::-1": crop}}
    artifact = bundles.artifact(detecting.make(tmp_path / "bright"), {"options": override})
    found = monai_bundle.load({}, artifact).predict(image())
    assert found.verdict is Verdict.MEASURED
    assert [one for one in found.limitations if "a part of the image only" in one]


def test_an_image_without_a_history_is_taken_as_whole() -> None:
    assert coverage.limits(torch.zeros(1, 2, 2)) == ()


# What cannot run says so in one line


def test_a_chain_of_bare_arrays_is_refused_when_it_is_added(tmp_path: Path) -> None:
    tree = bundle(preprocessing=chain({"_target_": "LoadImage"}, {"_target_": "ScaleIntensity"}))
    with pytest.raises(Exception, match="reads bare arrays") as refused:
        bundles.artifact(made(tmp_path / "bare", tree))
    assert "\n" not in str(refused.value)


def test_a_bundle_that_makes_images_is_refused_when_it_is_added(tmp_path: Path) -> None:
    tree = {"network_def": NETWORK, "sampler": {"_target_": "scripts.Sampler"}}
    with pytest.raises(Exception, match=r"no preprocessing: .* it makes and aligns none"):
        bundles.artifact(made(tmp_path / "makes", tree))


def test_a_package_that_is_missing_is_named_before_any_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    network = {"_target_": "TorchVisionFCModel", "model_name": "inception_v3", "pretrained": True}
    stated = metadata(3, modality="Mammogram", spatial_shape=[299, 299])
    folder = made(tmp_path / "density", bundle(network_def=network), stated, weights={})
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
