"""A Mask R-CNN as files: what `--add` proposes, which options are allowed, what it says it needs.

None of it needs torchvision. Not covered: the network (tests/integration/test_mask_rcnn.py).
"""

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import torchvision_operators
from inference.errors import ModelRefused
from inference.mask_rcnn import options
from inference.mask_rcnn.options import DEFAULTS, Options
from inference.models import mask_rcnn
from service import model_add, sidecar
from tests.array_models import artifact, label, planar
from tests.hostile_bundles.pickled import Call

LAST = "roi_heads.mask_predictor.mask_fcn_logits"
BODY = "backbone.body"
CELL = label(1, "Cell", threshold=0.5)


def weights(file: Path, *, classes: int = 3, frozen: bool = False, wrapped: bool = False) -> Path:
    """The few tensors by which a file is known."""
    state = {
        f"{BODY}.conv1.weight": torch.zeros(64, 3, 7, 7),
        f"{BODY}.bn1.weight": torch.zeros(64),
        f"{LAST}.weight": torch.zeros(classes, 256, 1, 1),
        f"{LAST}.bias": torch.zeros(classes),
    }
    if not frozen:
        state[f"{BODY}.bn1.num_batches_tracked"] = torch.tensor(0)
    torch.save({"model": state, "epoch": 300} if wrapped else state, file)
    return file


def refused(options: dict[str, Any], path: Path, **more: Any) -> str:
    chosen: dict[str, Any] = {"task": "detection", "dimensions": 2, "modalities": ["DX"]} | more
    labels = chosen.pop("labels", [CELL])
    with pytest.raises(ModelRefused) as error:
        mask_rcnn.load({}, artifact(path, labels, options=options, **chosen))
    return str(error.value)


# What is proposed


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("classes", [2, 91, 300])
def test_a_sidecar_has_a_label_for_each_class_but_the_background(
    tmp_path: Path, classes: int, *, wrapped: bool
) -> None:
    kind, proposed = model_add.proposal(
        weights(tmp_path / "cells.pth", classes=classes, wrapped=wrapped)
    )
    assert kind == "mask_rcnn"
    assert [one["value"] for one in proposed["labels"]] == list(range(1, classes))
    assert {one["threshold"] for one in proposed["labels"]} == {0.5}
    assert (proposed["task"], proposed["input"]["dimensions"]) == ("detection", 2)


def test_what_add_writes_is_read_again_and_its_options_are_the_defaults(tmp_path: Path) -> None:
    file = weights(tmp_path / "cells.pt")
    model_add.add(file)
    plain = sidecar.read(file).plain
    found = artifact(
        file, plain["labels"], options=plain["options"], task="detection", dimensions=2
    )
    assert options.parse(found.description) == Options()


def test_of_a_folder_the_file_is_named_and_frozen_normalisation_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    weights(folder / "model.pth", frozen=True)
    proposed = mask_rcnn.propose(folder)
    assert proposed is not None
    assert proposed["options"]["file"] == "model.pth"
    assert proposed["options"]["network"]["norm_eps"] == 0.0
    assert DEFAULTS["network"]["norm_eps"] == 1e-5


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text(f"{LAST}.bias")
    with zipfile.ZipFile(tmp_path / "broken.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02X\xff")
    for file in tmp_path.iterdir():
        assert mask_rcnn.propose(file) is None


def test_nothing_in_a_file_runs_when_it_is_added_or_loaded(tmp_path: Path) -> None:
    file = weights(tmp_path / "cells.pt")
    with zipfile.ZipFile(file) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    (name,) = (one for one in parts if one.endswith("/data.pkl"))
    harm = pickle.dumps(Call(exec, "raise SystemExit('ran')"), protocol=2)
    # the same names with a call before them: PROTO, the call, POP, then the rest
    parts[name] = harm[:-1] + b"0" + parts[name].removeprefix(b"\x80\x02")
    with zipfile.ZipFile(file, "w") as archive:
        for one, content in parts.items():
            archive.writestr(one, content)
    assert mask_rcnn.propose(file) is not None
    assert "does not load as weights" in refused({}, file)


# What is refused


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"nms": 1}, "options.nms: unknown; allowed: file, mask_threshold, network, input"),
        ({"mask_threshold": 2}, "options.mask_threshold: 2 is not allowed; allowed: a number from"),
        ({"network": 3}, "options.network: is not a table"),
        ({"network": {"weights": "DEFAULT"}}, "options.network.weights: unknown; allowed: min_"),
        ({"network": {"min_size": 0}}, "options.network.min_size: 0 is not allowed"),
        ({"network": {"max_size": True}}, "options.network.max_size: True is not allowed"),
        ({"network": {"image_std": [1, 0, 1]}}, "options.network.image_std: [1, 0, 1]"),
        ({"network": {"image_mean": [1, 2]}}, "allowed: 3 numbers: red, green, blue"),
        ({"network": {"anchor_sizes": [[8], [16]]}}, "allowed: 5 lists, finest level first"),
        ({"network": {"anchor_sizes": [[8, 9], [16], [1], [1], [1]]}}, "each of as many sizes"),
        ({"network": {"aspect_ratios": []}}, "allowed: a list of numbers above 0"),
        ({"network": {"norm_eps": -1}}, "options.network.norm_eps: -1 is not allowed"),
        ({"input": {"size": [8, 8]}}, "options.input.size: unknown; allowed: clip, clip_perc"),
        (
            {"input": {"clip": [0, 1], "clip_percentiles": [1, 99]}},
            "options.input.clip: is given together with clip_percentiles",
        ),
    ],
)
def test_an_option_that_is_not_allowed_is_named(
    tmp_path: Path, given: dict[str, Any], line: str
) -> None:
    assert line in refused(given, weights(tmp_path / "cells.pt"))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"task": "segmentation"}, "task: a Mask R-CNN answers no segmentation"),
        ({"dimensions": 3}, "input.dimensions: a Mask R-CNN looks at one planar image"),
        ({"labels": []}, "labels: none"),
        (
            {"labels": [label(0, "Cell")]},
            "cells.pt: labels: Cell: value 0 is none of its classes; allowed: 1 to 2",
        ),
        ({"labels": [label(3, "Cell")]}, "value 3 is none of its classes; allowed: 1 to 2"),
    ],
)
def test_a_sidecar_of_something_else_is_refused(
    tmp_path: Path, more: dict[str, Any], line: str
) -> None:
    assert line in refused({}, weights(tmp_path / "cells.pt"), **more)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pt")
    assert "its weights are of no Mask R-CNN" in refused({}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert refused({}, tmp_path / "list.pt") == "list.pt: no state dict"


@pytest.mark.parametrize("count", [1, 10**9])
def test_weights_of_more_classes_than_there_are_are_refused(tmp_path: Path, count: int) -> None:
    last = torch.zeros(1, 256, 1, 1).expand(count, 256, 1, 1)
    torch.save({f"{LAST}.weight": last}, tmp_path / "cells.pt")
    assert f"its weights are of {count} classes; allowed: 2 to" in refused(
        {}, tmp_path / "cells.pt"
    )


# What it needs


def test_without_torchvision_it_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = refused({}, weights(tmp_path / "cells.pt"))
    assert line == (
        "cells.pt: kind mask_rcnn needs torchvision: it is not installed; "
        f"{torchvision_operators.HOW}"
    )


def test_a_torchvision_of_another_build_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    words = "operator torchvision::nms does not exist"
    (package / "__init__.py").write_text(f"raise RuntimeError({words!r})\n")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(package.parent)
    line = refused({}, weights(tmp_path / "cells.pt"))
    assert f"does not fit torch {torch.__version__} ({words})" in line
    assert torchvision_operators.HOW in line


# What the network is given


def test_grey_is_scaled_by_its_own_range_or_a_window_and_given_three_times() -> None:
    pixels = np.array([[0.0, 1000.0], [2000.0, 4000.0]], np.float32)
    whole = mask_rcnn.given(planar(pixels), Options())
    assert whole.shape == (3, 2, 2)
    np.testing.assert_allclose(whole[2], pixels / 4000)
    window = options.Input(scale="unit", clip=(1000.0, 3000.0))
    np.testing.assert_allclose(
        mask_rcnn.given(planar(pixels), Options(input=window))[0], [[0, 0], [0.5, 1]]
    )


def test_colours_are_given_as_they_are() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    found = mask_rcnn.given(planar(pixels, "XC"), Options())
    np.testing.assert_allclose(found, pixels.transpose(2, 0, 1) / np.float32(255))
