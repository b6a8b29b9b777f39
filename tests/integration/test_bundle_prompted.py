"""A bundle whose network is asked for classes (a small VISTA3D), against MONAI, voxel by voxel.

What its own inferer would do without clicks is what is asserted; its code is here only to be read.
Not covered: clicks, trained weights, the full network.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import AsDiscreted
from torch.utils._python_dispatch import TorchDispatchMode

from inference import phantom, volume
from inference.bundles import grids, prompted
from inference.bundles.classes import Classes, decided_by_slabs
from inference.bundles.prompted import PROMPT
from inference.errors import ModelError, ModelRefused
from inference.findings import Image
from inference.models import Artifact, monai_bundle
from inference.models.monai_bundle import BundleModel
from tests import bundles
from tests.small_bundles import chain, image, label_map, metadata, written

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW, OVERLAP = [32, 32, 32], 0.3
NAMES = {
    "0": "background",
    "1": "liver",
    "2": "kidney",
    "3": "spleen",
    "5": "right kidney",
    "14": "left kidney",
    "23": "lung tumor",
}
PREPARED = [
    {"_target_": "LoadImaged", "keys": "@image_key", "image_only": True},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [3.0, 3.0, 3.0], "mode": "bilinear"},
    {
        "_target_": "monai.apps.vista3d.transforms.VistaPreTransformd",
        "keys": "@image_key",
        "subclass": {"2": [14, 5]},
        "labels_dict": "@labels_dict",
    },
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "@image_key",
        "a_min": 0,
        "a_max": 500,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
    },
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
]
TREE: dict[str, Any] = {
    "imports": ["$import copy", "$import json", "$import pathlib", "$import scripts"],
    "bundle_root": ".",
    "image_key": "image",
    "metadata_path": "$@bundle_root + '/configs/metadata.json'",
    "metadata": "$json.loads(pathlib.Path(@metadata_path).read_text())",
    "labels_dict": "$@metadata['network_data_format']['outputs']['pred']['channel_def']",
    "everything_labels": "$list(set([i+1 for i in range(30)]) - set([2, 23]))",
    "subclass": {"2": [14, 5]},
    "network_def": "$monai.networks.nets.vista3d132(encoder_embed_dim=8, in_channels=1)",
    "prepares": PREPARED,
    "preprocessing": {"_target_": "Compose", "transforms": "$@prepares "},
    "inferer": {
        "_target_": "scripts.inferer.Vista3dInferer",
        "roi_size": WINDOW,
        "overlap": OVERLAP,
        "use_point_window": True,
    },
    "postprocessing": chain(
        {"_target_": "monai.apps.vista3d.transforms.VistaPostTransformd", "keys": "pred"},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "$copy.deepcopy(@preprocessing)",
            "orig_keys": "@image_key",
            "nearest_interp": True,
        },
        {
            "_target_": "Lambdad",
            "keys": "pred",
            "func": "$lambda x: torch.nan_to_num(x, nan=255)",
        },
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "eval"},
    ),
}
CODE = """
class Vista3dInferer:
    def __call__(self, inputs, network, point_coords, class_vector):
        if point_coords is not None:
            return point_based_window_inferer(inputs=inputs, mode="gaussian", overlap=0.1)
        return SlidingWindowInfererAdapt(
            roi_size=self.roi_size, with_coord=True, padding_mode="replicate", overlap=self.overlap
        )(inputs, network, class_vector=class_vector)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from monai.networks.nets import vista3d132

    folder = tmp_path_factory.mktemp("bundles") / "asked"
    torch.manual_seed(bundles.SEED)
    weights = vista3d132(encoder_embed_dim=8, in_channels=1).state_dict()
    stated = metadata()
    stated["network_data_format"]["outputs"]["pred"]["channel_def"] = NAMES
    return written(folder, TREE, stated, weights=weights, code={"scripts/inferer.py": CODE})


def of_labels(artifact: Artifact, values: set[int]) -> Artifact:
    """The sidecar as a person leaves it who wants only these labels."""
    kept = tuple(one for one in artifact.description.labels if one.value in values)
    return replace(artifact, description=replace(artifact.description, labels=kept))


def test_the_labels_are_those_of_everything_and_no_groups(bundle: Path) -> None:
    labels = bundles.artifact(bundle).description.labels
    assert {one.value: one.definition.label for one in labels} == {
        1: "liver",
        3: "spleen",
        5: "right kidney",
        14: "left kidney",
    }


@pytest.mark.parametrize("asked", [(1, 3, 5, 14), (5, 14), (1,)])
def test_it_is_asked_for_the_labels_of_its_sidecar_as_monai_would(
    bundle: Path, asked: tuple[int, ...], tmp_path: Path
) -> None:
    artifact = of_labels(bundles.artifact(bundle), set(asked))
    seen = image()
    values = {one.definition.label: one.value for one in artifact.description.labels}
    ours = label_map(monai_bundle.load({}, artifact).predict(seen), seen, values)
    with warnings.catch_warnings(action="ignore"):
        theirs = by_monai(bundle, seen, asked, tmp_path / "image.nii")
    assert set(np.unique(theirs)) <= {0, *asked}
    assert len(np.unique(theirs)) > 1
    np.testing.assert_array_equal(ours, theirs)


def by_monai(bundle: Path, seen: Image, asked: tuple[int, ...], file: Path) -> np.ndarray:
    """The label map (slice, row, column) from a file, by MONAI's windows and transforms alone."""
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate
    from monai.inferers import sliding_window_inference
    from monai.transforms import reset_ops_id

    affine = np.array(seen.volume.affine)[:, [2, 1, 0, 3]]
    affine[:2] *= -1
    nibabel.save(nibabel.Nifti2Image(seen.volume.array.transpose(2, 1, 0), affine), file)
    tree = ConfigParser.load_config_file(bundles.configuration_of(bundle))
    tree["postprocessing"]["transforms"].pop()
    tree["imports"].remove("$import scripts")
    parser = ConfigParser(tree | {"bundle_root": str(bundle)})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    sample = {"image": str(file), "label_prompt": list(asked)}
    batch = list_data_collate([parser.get_parsed_content("preprocessing")(sample)])
    classes = torch.tensor(asked)[:, None]
    with torch.no_grad():
        said = sliding_window_inference(
            batch["image"],
            roi_size=WINDOW,
            sw_batch_size=1,
            predictor=network,
            padding_mode="replicate",
            overlap=OVERLAP,
            transpose=True,
            class_vector=classes,
            prompt_class=classes,
        )
    reset_ops_id(batch["image"])
    output = {"image": batch["image"], "pred": said, "label_prompt": classes[None]}
    (item,) = decollate_batch(output)
    done = parser.get_parsed_content("postprocessing")(item)["pred"]
    return np.asarray(done.numpy()[0].transpose(2, 1, 0), np.int32)


def large() -> Image:
    """Of several windows along each axis, those of the longest the most."""
    grid = phantom.regular((34, 36, 44), (3.0, 4.0, 5.0))
    return volume.read(phantom.datasets(phantom.markers(grid, base=20), phantom.Scan())).image


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_the_scores_of_all_labels_are_never_in_memory_and_the_voxels_the_same(
    bundle: Path, at_once: int | None, tmp_path: Path
) -> None:
    said = {} if at_once is None else {"options": {"labels_at_once": at_once}}
    artifact, seen = bundles.artifact(bundle, said), large()
    asked = tuple(one.value for one in artifact.description.labels)
    loaded = monai_bundle.load({}, artifact)
    assert isinstance(loaded, BundleModel)
    assert isinstance(loaded.recipe.inferer, Classes)
    with Largest() as largest:
        found = loaded.predict(seen)
    values = {one.definition.label: one.value for one in artifact.description.labels}
    with warnings.catch_warnings(action="ignore"):
        theirs = by_monai(bundle, seen, asked, tmp_path / "image.nii")
    assert len(np.unique(theirs)) == len(asked) + 1
    np.testing.assert_array_equal(label_map(found, seen, values), theirs)
    spatial = loaded.recipe.preprocessing({"image": grids.tensor(seen), PROMPT: list(asked)})
    assert largest.numbers < spatial["image"].numel() * len(asked)


def test_a_chain_that_decides_otherwise_runs_as_it_is(bundle: Path) -> None:
    loaded = monai_bundle.load({}, bundles.artifact(bundle))
    assert isinstance(loaded, BundleModel)
    own = Compose([AsDiscreted(keys="pred", argmax=True)])
    other = replace(loaded.recipe, postprocessing=own, inferer=SlidingWindowInferer(WINDOW))
    assert decided_by_slabs(other, {}) is other
    windows = replace(loaded.recipe, inferer=SlidingWindowInferer(WINDOW, with_coord=True))
    assert decided_by_slabs(windows, {}) is windows


def test_labels_at_once_that_have_no_effect_are_refused(bundle: Path) -> None:
    for said in ({"labels_at_once": 0}, {"labels_at_once": 2, "engine": False}):
        with pytest.raises(ModelRefused, match=r"options\.labels_at_once"):
            monai_bundle.load({}, bundles.artifact(bundle, {"options": said}))


def test_scores_that_are_no_numbers_are_a_fault_of_the_model(bundle: Path) -> None:
    loaded = monai_bundle.load({}, bundles.artifact(bundle))
    assert isinstance(loaded, BundleModel)
    for parameter in loaded.recipe.network.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        loaded.predict(image())


def changed(bundle: Path, value: int) -> Artifact:
    artifact = of_labels(bundles.artifact(bundle), {1})
    label = replace(artifact.description.labels[0], value=value)
    return replace(artifact, description=replace(artifact.description, labels=(label,)))


def test_a_label_that_is_no_class_is_refused(bundle: Path) -> None:
    with pytest.raises(ModelRefused, match=r"\[133\] are no classes of the network: 1 to 132"):
        monai_bundle.load({}, changed(bundle, 133))


def test_a_label_that_is_a_group_is_not_silently_another(bundle: Path) -> None:
    loaded = monai_bundle.load({}, changed(bundle, 2))
    with pytest.raises(ModelError, match=r"other classes than its labels: \[2, 5, 14\]"):
        loaded.predict(image())


def test_what_is_asked_for_is_not_averaged(bundle: Path) -> None:
    artifact = bundles.artifact(bundle, {"options": {"mirror": [0]}})
    with pytest.raises(ModelRefused, match="not averaged"):
        monai_bundle.load({}, artifact)


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        (None, {"mode": "gaussian", "overlap": OVERLAP}),
        (
            "SlidingWindowInfererAdapt(roi_size=self.roi_size, padding_mode='replicate')",
            {"padding_mode": "replicate"},
        ),
        (
            "sliding_window_inferer(mode='constant', overlap=0.5)",
            {"mode": "constant", "overlap": 0.5},
        ),
    ],
)
def test_windows_are_set_as_the_code_sets_them(code: str | None, settings: dict[str, Any]) -> None:
    tree = prompted.edited(TREE, None if code is None else code.encode())
    windows = {"_target_": "SlidingWindowInferer", "roi_size": WINDOW}
    assert tree["inferer"] == windows | settings


@pytest.mark.parametrize(
    "code",
    ["def broken(:", "print()", "SlidingWindowInferer(overlap=something())", "x" * 10 + "(" * 5000],
)
def test_code_that_cannot_be_read_off_is_refused(code: str) -> None:
    with pytest.raises(ModelRefused, match="its inferer's code"):
        prompted.edited(TREE, code.encode())
