"""Small bundles written here: several series, overlapping labels, own code, what cannot run.

Each says one thing that the zoo's bundles of the other files do not. Not covered: what a strict
configuration may name (the policy's own tests).
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from inference import phantom, regions, volume
from inference.bundles import configuration, grids
from inference.errors import ModelError, ModelRefused
from inference.findings import Acquisition, Image, PlanarImage, Verdict
from tests import bundles
from tests.small_bundles import model, written
from tests.volumes import turned

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 2,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}
READ = {"_target_": "LoadImaged", "keys": "image"}
TWO_SERIES: dict[str, Any] = {
    "network_def": NETWORK,
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            READ,
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [2, 2, 2], "mode": "bilinear"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "eval"},
        ],
    },
}
METADATA = {
    "name": "Tumour of two series",
    "version": "1.2",
    "network_data_format": {
        "inputs": {
            "image": {
                "modality": "MR",
                "num_channels": 2,
                "channel_def": {"0": "T1", "1": "FLAIR"},
            }
        },
        "outputs": {"pred": {"channel_def": {"0": "tumor", "1": "edema", "2": "left kidney"}}},
    },
}


def two_series(folder: Path, weights: Any = None) -> Path:
    return written(folder, TWO_SERIES, METADATA, weights=weights)


def image() -> Image:
    """Two series on one oblique grid: markers, and something else."""
    right, down = turned((0.1, 0.2, -0.3))
    grid = phantom.regular((12, 24, 20), (3.0, 2.0, 1.5), right=right, down=down)
    found = volume.read(phantom.datasets(phantom.markers(grid), phantom.Scan(modality="MR"))).image
    other = found.volume.with_array(np.roll(found.volume.array, 5, axis=1)[:, ::-1] // 2)
    return replace(found, roles={"T1": found.volume, "FLAIR": other})


# Several series, overlapping labels


def test_series_are_channels_in_order_and_labels_may_overlap(tmp_path: Path) -> None:
    bundle = two_series(tmp_path / "two")
    artifact = bundles.artifact(bundle)
    assert artifact.description.roles == ("T1", "FLAIR")
    assert artifact.description.overlapping
    seen = image()
    findings = model(artifact).predict(seen)

    with warnings.catch_warnings(action="ignore"):
        expected = two_series_by_monai(bundle, seen, tmp_path)
    assert 0 < expected.sum() < expected.size
    by_label = {
        one.definition.label: regions.on_grid(one.mask, seen.volume).whole()
        for one in findings.segments
    }
    for channel, label in enumerate(("tumor", "edema", "left kidney")):
        found = by_label.get(label, np.zeros(expected.shape[1:], bool))
        np.testing.assert_array_equal(found, expected[channel] > 0)


def two_series_by_monai(bundle: Path, seen: Image, folder: Path) -> np.ndarray:
    """The channels (channel, slice, row, column) that the bundle's own parts make of two files."""
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate

    affine = np.array(seen.volume.affine)[:, [2, 1, 0, 3]]
    affine[:2] *= -1
    files = []
    for role in ("T1", "FLAIR"):
        files.append(str(folder / f"{role}.nii"))
        values = seen.roles[role].array.transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti2Image(values, affine), files[-1])
    parser = ConfigParser(ConfigParser.load_config_file(bundles.configuration_of(bundle)))
    parser["postprocessing"]["transforms"].pop()
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    batch = list_data_collate([parser.get_parsed_content("preprocessing")({"image": files})])
    with torch.inference_mode():
        batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    (item,) = decollate_batch(batch)
    done = parser.get_parsed_content("postprocessing")(item)["pred"]
    return np.asarray(done.numpy().transpose(0, 3, 2, 1))


def test_a_role_is_matched_by_nothing_until_a_person_says_which_it_is(tmp_path: Path) -> None:
    proposed = bundles.model_add.proposal(two_series(tmp_path / "two"))[1]
    for series, name in zip(proposed["input"]["series"], ("T1", "FLAIR"), strict=True):
        assert series == {
            "role": name,
            "match": {"SeriesDescription": f"EDIT: which series is {name}"},
        }


def test_labels_of_a_tumour_model_are_coded(tmp_path: Path) -> None:
    labels = bundles.artifact(two_series(tmp_path / "two")).description.labels
    assert [one.definition.type.meaning for one in labels] == ["Neoplasm", "Edema", "Kidney"]
    assert labels[2].definition.modifier is not None
    assert labels[2].definition.modifier.meaning == "Left"


# Results on another grid


def result(values: np.ndarray, affine: np.ndarray) -> Any:
    from monai.data import MetaTensor

    return MetaTensor(torch.as_tensor(values, dtype=torch.float32), affine=torch.as_tensor(affine))


def test_labels_on_a_coarser_grid_come_back_where_they_belong() -> None:
    grid = grids.of_image(image())
    half = np.diag((2.0, 2.0, 2.0, 1.0))
    half[:3, 3] = 0.5
    coarse = np.zeros((1, 10, 12, 6))
    coarse[0, 4, 7, 2] = 3
    found = result(coarse, grid.affine @ half)
    back = grids.on_grid(found, grid, seen=found)
    assert back.shape == (1, 20, 24, 12)
    assert np.argwhere(back[0]).min(axis=0).tolist() == [8, 14, 4]
    assert np.argwhere(back[0]).max(axis=0).tolist() == [9, 15, 5]
    assert set(np.unique(back)) == {0, 3}


def test_a_result_without_a_place_is_refused() -> None:
    grid = grids.of_image(image())
    seen = result(np.zeros((1, *grid.shape)), grid.affine)
    with pytest.raises(ModelError, match="does not say where"):
        grids.on_grid(torch.zeros((1, *grid.shape)), grid, seen=seen)
    with pytest.raises(ModelError, match="another shape"):
        grids.on_grid(result(np.zeros((1, 3, 3, 3)), grid.affine), grid, seen=seen)


def test_the_tensor_lies_where_the_volume_lies() -> None:
    seen = image()
    made = grids.tensor(seen)
    for index in ((0, 0, 0), (11, 23, 19), (3, 17, 8)):
        z, y, x = index
        place = np.array(seen.volume.affine) @ (z, y, x, 1)
        ras = made.affine.numpy() @ (x, y, z, 1)
        np.testing.assert_allclose(ras * (-1, -1, 1, 1), place, atol=1e-9)
        assert float(made[x, y, z]) == seen.volume.array[index]


# What cannot run says so in one line


def small(tree: Mapping[str, Any] = TWO_SERIES, **parts: Any) -> dict[str, Any]:
    return {**tree, **parts}


OWN = {**NETWORK, "_target_": "scripts.nets.Own"}
OWN_CODE = """
import torch
from scripts.sizes import WIDTH

class Own(torch.nn.Conv3d):
    def __init__(self, spatial_dims, in_channels, out_channels, **others):
        super().__init__(in_channels, out_channels, WIDTH, padding=WIDTH // 2)
"""


def own_code(folder: Path, width: int) -> Path:
    code = {"scripts/nets.py": OWN_CODE, "scripts/sizes.py": f"WIDTH = {width}\n"}
    weights = torch.nn.Conv3d(2, 3, width).state_dict()
    return written(folder, small(network_def=OWN), METADATA, weights=weights, code=code)


def test_own_code_is_not_run_unless_trusted(tmp_path: Path) -> None:
    artifact = bundles.artifact(own_code(tmp_path / "own", 3))
    with pytest.raises(ModelRefused, match=r"own \(scripts\).*--trust") as refused:
        model(artifact)
    assert "\n" not in str(refused.value)


def test_two_trusted_bundles_use_one_name_each_for_its_own(tmp_path: Path) -> None:
    for width in (3, 5):
        artifact = bundles.artifact(own_code(tmp_path / f"own{width}", width))
        loaded = model(replace(artifact, trusted=True))
        assert loaded.recipe.network.kernel_size == (width,) * 3
        assert loaded.predict(image()).verdict is Verdict.MEASURED


def test_own_code_that_changed_is_not_run(tmp_path: Path) -> None:
    bundle = own_code(tmp_path / "own", 3)
    artifact = bundles.artifact(bundle)
    (bundle / "scripts" / "sizes.py").write_text("WIDTH = 7\n")
    with pytest.raises(ModelRefused, match=r"sizes\.py changed"):
        model(replace(artifact, trusted=True))


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    tree = small(
        network_def={"_target_": "no_such_package.Net"}, imports=["$import no_such_package"]
    )
    tree["network_def"]["x"] = "$no_such_package.y"
    artifact = bundles.artifact(written(tmp_path / "missing", tree, METADATA, weights={}))
    with pytest.raises(ModelRefused, match="the package no_such_package is not installed"):
        model(replace(artifact, trusted=True))


def test_weights_in_the_wrappings_of_training_load(tmp_path: Path) -> None:
    bundle = two_series(tmp_path / "plain")
    state = bundles.network(bundle).state_dict()
    wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    artifact = bundles.artifact(two_series(tmp_path / "wrapped", wrapped))
    for key, value in model(artifact).recipe.network.state_dict().items():
        assert torch.equal(value, state[key])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    artifact = bundles.artifact(two_series(tmp_path / "other", {"x": torch.zeros(1)}))
    with pytest.raises(ModelRefused, match="does not fit the network"):
        model(artifact)


def test_a_bundle_without_weights_is_not_added(tmp_path: Path) -> None:
    bundle = two_series(tmp_path / "none")
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(Exception, match=r"no weights: put them at models/model\.pt"):
        bundles.artifact(bundle)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    tree = {key: value for key, value in TWO_SERIES.items() if key != "inferer"}
    with pytest.raises(Exception, match="no inferer"):
        bundles.artifact(written(tmp_path / "none", tree, METADATA))


# The configuration as a tree


def test_devices_and_files_are_taken_out() -> None:
    tree = configuration.edited(
        {
            "inferer": {"_target_": "SlidingWindowInferer", "device": "cuda:0"},
            "x": "$torch.zeros(1, device=torch.device('cuda:0'))",
            "read": {"_target_": "LoadImaged", "keys": "i", "ensure_channel_first": True},
            "write": {"_target_": "monai.transforms.SaveImaged", "output_dir": "/"},
        }
    )
    assert tree["inferer"]["device"] == "@device"
    assert tree["x"] == "$torch.zeros(1, device=@device)"
    assert tree["read"] == {"_target_": "EnsureChannelFirstd", "keys": "i"}
    assert tree["write"] == {"_target_": "monai.transforms.SaveImaged", "_disabled_": True}


def test_what_nothing_refers_to_is_left_out_and_so_are_its_imports() -> None:
    tree = configuration.reachable(
        {
            "imports": ["$import os", "$import numpy as np"],
            "network_def": {"_target_": "UNet", "channels": "@wide"},
            "wide": "$list(np.array([1, 2]))",
            "run": "$os.remove('x')",
        },
        ("network_def",),
    )
    assert set(tree) == {"imports", "network_def", "wide"}
    assert tree["imports"] == ["$import numpy as np"]


def test_labels_are_not_interpolated_after_argmax() -> None:
    def invert(*before: dict[str, Any]) -> bool:
        last = {"_target_": "Invertd", "keys": "pred", "nearest_interp": False}
        tree = configuration.edited({"post": {"transforms": [*before, last]}})
        return bool(tree["post"]["transforms"][-1]["nearest_interp"])

    assert invert({"_target_": "AsDiscreted", "argmax": True})
    assert not invert({"_target_": "Activationsd", "softmax": True})


def test_computed_labels_are_those_that_the_function_writes(tmp_path: Path) -> None:
    where = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, 0))"
    transforms = [
        *TWO_SERIES["postprocessing"]["transforms"][:-1],
        {"_target_": "Lambdad", "keys": "pred", "func": where},
    ]
    tree = small(postprocessing={"_target_": "Compose", "transforms": transforms})
    described = bundles.artifact(written(tmp_path / "computed", tree, METADATA)).description
    assert [one.value for one in described.labels] == [1, 4]
    assert not described.overlapping
    assert "nobody has checked" in described.limits[0]


def test_a_grey_picture_for_a_network_of_three_colours() -> None:
    pixels = np.arange(12, dtype=np.int16).reshape(3, 4)
    grey = PlanarImage(pixels=pixels, acquisition=Acquisition(modality="MG"))
    made = grids.tensor(grey, colours=3)
    assert tuple(made.shape) == (4, 3, 3)
    assert made.meta["original_channel_dim"] == -1
    for colour in range(3):
        np.testing.assert_array_equal(made[..., colour].numpy(), pixels.T)


def test_another_configuration_file_is_refused() -> None:
    with pytest.raises(ModelRefused, match="another configuration file"):
        configuration.edited({"network_def": "%../other.json#network_def"})
