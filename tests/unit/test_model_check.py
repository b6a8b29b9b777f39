"""What `check` says of models that come as files: wrong options, what is not installed.

Every kind is asked. Not covered: that `load` refuses the same (the tests of each kind).
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from service import cli, config, kinds, model_check
from service.config import MODELS, SIDECAR
from tests.array_models import scripted
from tests.bare_networks import Bright
from tests.hostile_bundles import configurations
from tests.nnunet_folders import Study, write
from tests.unit.test_onnx_model import bright

KINDS = kinds.kinds(MODELS, defining=SIDECAR)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "mask_rcnn": ({"mask_threshold": 2}, "options.mask_threshold: 2 is not allowed; allowed: a nu"),
    "monai_bundle": ({"actvation": "softmax"}, "options.actvation: unknown; allowed: weights, act"),
    "nnunet": ({"step": 0}, "options.step"),
    "onnx": ({"input": {"spacing": [1, 1]}}, "options.input.spacing: 2 numbers; allowed: one an"),
    "python": ({"speed": 1}, "options.speed: unknown; allowed: none"),
    "torchscript": ({"window": {"overlap": 1}}, "options.window.overlap: 1 is not allowed; allow"),
}


def add(folder: Path, kind: str) -> Path:
    """A model of that kind with its sidecar, named in the configuration that is returned."""
    path = folder / f"made_{kind}"
    match kind:
        case "torchscript":
            scripted(Bright(), path := path.with_suffix(".pt"))
        case "onnx":
            (path := path.with_suffix(".onnx")).write_bytes(bright())
        case "python":
            (path := path.with_suffix(".py")).write_text("def predict(array, **_): return {}\n")
        case "nnunet":
            path = write(folder, Study())
        case "monai_bundle":
            bundle(path, configurations.clean())
        case "mask_rcnn":
            path = path.with_suffix(".pth")
            path.write_bytes(b"weights")
            sidecar(path, task="detection", dimensions=2)
    file = folder / "node.toml"
    trust = "\ntrust = 'trusted'" if kind == "python" else ""
    file.write_text(f"[[models]]\nname = 'm'\nkind = '{kind}'\npath = '{path}'{trust}\n")
    if kind != "mask_rcnn":
        assert cli.main(["models", str(file), "--add", str(path)]) == 0
    return file


def bundle(folder: Path, configuration: dict[str, Any], **files: str) -> Path:
    for name, text in {"configs/inference.json": json.dumps(configuration), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "models").mkdir()
    (folder / "models/model.pt").write_bytes(b"weights")
    return folder


def sidecar(path: Path, *, task: str, dimensions: int) -> None:
    from service import model_folder
    from service import sidecar as sidecars

    document = {
        "name": "x", "version": "1", "summary": "x", "task": task,
        "input": {"modalities": ["DX"], "dimensions": dimensions},
        "labels": [{"value": 1, "name": "One", "type": ["ONE", "99TEST", "One"]}],
        "files": model_folder.digests(path),
    }  # fmt: skip
    sidecars.path_of(path).write_text(tomlkit.dumps(document))


def edit(file: Path, options: dict[str, Any]) -> Path:
    """The sidecar with these options."""
    (model,) = config.load(file).models
    assert model.artifact is not None
    place = model.artifact.sidecar.file
    document = tomlkit.parse(place.read_text())
    document["options"] = {**document.get("options", {}), **options}
    place.write_text(tomlkit.dumps(document))
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_option_is_a_line_with_file_and_key(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = add(tmp_path, kind)
    assert cli.main(["check", str(file)]) == 0
    options, line = WRONG[kind]
    place = edit(file, options)
    capsys.readouterr()
    assert cli.main(["check", str(file)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"hounsfield: {place}: {line}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"weights": "models/other.pt"}, "options.weights: 'models/other.pt' is not among"),
        ({"colours": 2}, "options.colours: 2 is not allowed; allowed: 1 or 3"),
        ({"mirror": [0, 0]}, "options.mirror: [0, 0] is not allowed; allowed: a list of axes"),
        ({"mirror": [True]}, "options.mirror: [True] is not allowed"),
        ({"agreement": "high"}, "options.agreement: 'high' is not allowed; allowed: a number"),
        ({"override": {"inferer::size": 1, "x::y": 2}}, "options.override: the bundle has no x::y"),
        ({"points": {"form": "lines"}}, "options.points: allowed: form ="),
        ({"calibration": {"temperature": 0}}, "options: a table with temperature"),
    ],
)
def test_wrong_options_of_a_bundle(
    options: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = add(tmp_path, "monai_bundle")
    place = edit(file, options)
    assert cli.main(["check", str(file)]) == 2
    assert f"hounsfield: {place}: {line}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"configuration": "3d_full"}, "options.configuration: the configuration 3d_full is not"),
        ({"folds": [0, 7]}, "options.folds: 7 not in the folder; allowed: 0"),
        ({"postprocessing": "a.pkl"}, "options.postprocessing: 'a.pkl' is not among the files"),
    ],
)
def test_options_of_nnunet_that_name_what_is_not_there(
    options: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = add(tmp_path, "nnunet")
    place = edit(file, options)
    assert cli.main(["check", str(file)]) == 2
    assert f"hounsfield: {place}: {line}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "package", "words"),
    [
        ("onnx", "onnxruntime", "ONNX models need onnxruntime, which is not installed: pip"),
        ("mask_rcnn", "torchvision", "kind mask_rcnn needs torchvision: it is not installed; inst"),
    ],
)
def test_what_is_not_installed_is_a_line(
    kind: str,
    package: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = add(tmp_path, kind)
    if kind == "onnx":
        assert f"warning: it does not run here yet: {words}" in capsys.readouterr().out
    assert cli.main(["check", str(file)]) == 0
    assert f"hounsfield: model 'm' does not run here yet: {words}" in capsys.readouterr().err


def test_what_a_bundle_and_its_code_import_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    made = configurations.clean()
    made["network_def"] = {"_target_": "scripts.deep.net.Net"}
    made["preprocessing"] = {"_target_": "Compose", "transforms": ["$no_such_reader.Read()"]}
    made["inferer"] = {"_target_": "TorchVisionFCModel"}
    made["imports"] = ["$import no_such_reader", "$import glob"]
    path = bundle(
        tmp_path / "made",
        made,
        **{
            "scripts/__init__.py": "from . import deep",
            "scripts/deep/__init__.py": "",
            "scripts/deep/net.py": "import os, no_such_layers.x\nfrom .parts import one\n"
            "try:\n    import no_such_speed\nexcept ImportError: pass",
            "scripts/deep/parts.py": "from ..other import *\nimport numpy",
            "scripts/other.py": "def one():\n    import no_such_plot",
            "scripts/unused.py": "import no_such_thing",
        },
    )
    file = tmp_path / "node.toml"
    file.write_text(f"[[models]]\nname = 'm'\nkind = 'monai_bundle'\npath = '{path}'\n")
    assert cli.main(["models", str(file), "--add", str(path)]) == 0
    said = capsys.readouterr().out
    assert "it has code of its own (scripts): look at it and approve it" in said
    assert "this bundle needs torchvision: it is not installed" in said
    assert "it needs the packages no_such_layers, no_such_reader, which are not installed" in said
    assert "no_such_plot" not in said
    (lines,) = model_check.lacking(config.load(file)).values()
    assert len(lines) == 3


def test_what_a_python_model_imports_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.model.py"
    path.write_text("import torch\nimport no_such_package.inside\ndef predict(**_): return {}\n")
    assert cli.main(["models", "x", "--add", str(path)]) == 0
    assert "it needs the package no_such_package, which is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["-" * 200_000 + "1", "x = (", "a" + " + 1" * 100_000, "\0"])
def test_code_that_cannot_be_read_is_a_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.py"
    path.write_text(text)
    assert cli.main(["models", "x", "--add", str(path)]) == 2
    assert capsys.readouterr().err.endswith("model.py: model.py cannot be read as Python\n")
    assert not (tmp_path / "model.py.toml").exists()
    made = configurations.clean()
    made["imports"] = [f"$import glob; {text}"]
    made["network_def"] = {"_target_": "Flatten", "x": "$glob.x"}
    assert cli.main(["models", "x", "--add", str(bundle(tmp_path / "made", made))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "import that cannot be read" in said or "nested too deeply, or too large" in said


def test_python_without_end_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle(tmp_path / "made", configurations.clean(), **{"scripts/net.py": "#" * (2 << 20)})
    assert cli.main(["models", "x", "--add", str(path)]) == 2
    assert "scripts/net.py is larger than 1 MiB" in capsys.readouterr().err


def test_of_a_model_that_is_stopped_the_files_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = add(tmp_path, "monai_bundle")
    (tmp_path / "made_monai_bundle/configs/inference.json").write_text("{}")
    assert cli.main(["check", str(file)]) == 0
    assert "model 'm' is stopped: configs/inference.json changed" in capsys.readouterr().err
