"""`models CONFIG --add PATH` as a data scientist uses it: what is proposed, and what is refused.

Not covered: folders that are hostile (test_hostile_folders.py), the sidecars of each kind (theirs).
"""

import json
import shutil
from pathlib import Path

import pytest

from service import cli
from tests import nnunet_folders
from tests.array_models import scripted
from tests.bare_networks import Bright
from tests.hostile_bundles import configurations
from tests.unit.test_onnx_model import bright


def add(path: Path) -> int:
    return cli.main(["models", "any.toml", "--add", str(path)])


def bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "models/model.pt").write_bytes(b"weights")
    (folder / "configs/inference.json").write_text(json.dumps(configurations.clean()))
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a model of each of several kinds, as a site may have it."""
    folder = tmp_path / "models"
    bundle(folder / "spleen")
    nnunet_folders.write(folder, nnunet_folders.Study())
    (folder / "net.onnx").write_bytes(bright())
    return folder


def test_the_folder_above_the_models_is_refused_and_they_are_named(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(models) == 2
    assert capsys.readouterr().err == (
        f"hounsfield: {models}: is no model but holds what look like models: Dataset901_Phantom, "
        f"spleen; allowed: one of them, as {models}/Dataset901_Phantom\n"
    )
    assert not (models.parent / "models.toml").exists()


@pytest.mark.parametrize("name", ["Dataset901_Phantom", "spleen", "net.onnx"])
def test_each_of_them_is_added(name: str, models: Path) -> None:
    assert add(models / name) == 0
    assert (models / f"{name}.toml").exists()


def test_the_folder_above_several_data_sets_of_nnunet_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    above = tmp_path / "results"
    for name in ("Dataset901_Phantom", "Dataset902_Other"):
        nnunet_folders.write(above, nnunet_folders.Study(dataset=name))
    assert add(above) == 2
    assert "look like models: Dataset901_Phantom, Dataset902_Other;" in capsys.readouterr().err


def test_a_renamed_folder_of_nnunet_is_the_model_and_not_the_one_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = nnunet_folders.write(tmp_path / "made", nnunet_folders.Study())
    (models := tmp_path / "models").mkdir()
    shutil.move(next(top.iterdir()), models / "liver")
    assert add(models) == 2
    assert f"as {models}/liver" in capsys.readouterr().err
    assert add(models / "liver") == 0


def test_a_folder_with_a_model_that_was_added_is_the_folder_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models := tmp_path / "models").mkdir()
    for name in ("one.onnx", "two.onnx"):
        (models / name).write_bytes(bright())
    assert add(models / "two.onnx") == 0
    assert add(models) == 2
    assert "look like models: two.onnx; allowed: one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        ("spleen", "models/._other.pt"),
        ("net", "._a.onnx"),
        ("Dataset901_Phantom", ".copy/fold_0/checkpoint_final.pth"),
        ("Dataset901_Phantom", "__pycache__/fold_0/checkpoint_final.pth"),
    ],
)
def test_hidden_files_are_not_there(model: str, hidden: str, models: Path) -> None:
    (models / "net").mkdir()
    shutil.move(models / "net.onnx", models / "net")
    if model == "spleen":
        (models / "spleen/models/model.pt").rename(models / "spleen/models/best.pt")
    before = models / f"{model}.toml"
    assert add(models / model) == 0
    told = before.read_text()
    before.unlink()
    (models / model / hidden).parent.mkdir(parents=True, exist_ok=True)
    (models / model / hidden).write_bytes(b"hidden")
    assert add(models / model) == 0
    assert before.read_text() == told


def test_what_is_no_model_says_which_kinds_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(Bright(), tmp_path / "net.pt")
    (tmp_path / "README.md").write_text("read me")
    assert add(tmp_path / "README.md") == 2
    line = f"{tmp_path}/README.md: is no model of a kind that runs here; allowed: mask_rcnn, monai"
    assert line in capsys.readouterr().err
    assert add(tmp_path / "net.pt") == 0
