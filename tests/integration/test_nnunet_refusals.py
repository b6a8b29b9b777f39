"""A nnU-Net folder that is not what it says, or cannot run here, is refused in one line.

Not covered: what `--add` reads within bounds (test_hostile_folders.py).
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.errors import ModelRefused
from inference.models import nnunet
from service import model_add
from service.validation import ConfigurationError
from tests import nnunet_folders
from tests.hostile_bundles.pickled import Call
from tests.nnunet_folders import (
    FLAT,
    Study,
    artifact,
    model,
    results,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return nnunet_folders.write(tmp_path, Study())


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
    with pytest.raises(ModelRefused, match="task: nnU-Net answers no detection"):
        model(top, {"task": "detection"})
    two = [{"role": role, "match": {"SeriesDescription": role}} for role in ("T1", "T2")]
    with pytest.raises(ModelRefused, match=r"wants 1 images \(CT\); input.series names 2"):
        model(top, {"input": {"modalities": ["CT"], "series": two}})
    with pytest.raises(ModelRefused, match="wants volumes"):
        model(top, {"input": {"modalities": ["DX"], "dimensions": 2}})
