"""nnU-Net on the node's engine: half precision where it agrees, what memory allows, one slab.

Random weights, a fake device where a GPU would be. Not covered: the labels themselves against the
package (test_nnunet_reference.py), real GPUs, wall times.
"""

import json
import math
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.engine.device import Cpu
from inference.engine.precision import Choice, Precision
from inference.errors import ModelRefused
from inference.model_files import ModelFiles
from inference.models import nnunet
from inference.models.nnunet import NnUnet
from inference.nnunet import arithmetic, loading, options
from inference.nnunet.postprocessing import LARGEST
from inference.nnunet.prediction import Effort, Member, Placed, Segmenter, efforts, lessened
from service import model_add
from tests import nnunet_folders
from tests.fake_device import FakeDevice
from tests.nnunet_folders import CASCADE, COARSE, FINE, FLAT, REGIONS, Net, Study, artifact, results

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = Choice(precision=Precision.FLOAT32)
SPACING = (3.0, 1.5, 1.5)
MIB = 1 << 20
LONG = (720, 64, 64)  # voxels


def members(path: Path, **said: Any) -> tuple[Member, ...]:
    return loading.members(artifact(path).files, options.parse(said))


def model(path: Path, **said: Any) -> NnUnet:
    found = nnunet.load({}, replace(artifact(path, {"options": said}), device="cpu"))
    assert isinstance(found, NnUnet)
    return found


STUDIES = {
    "volumes": Study(folds=2),
    "slices": Study(nets=(FLAT,)),
    "regions": Study(labels=REGIONS, regions_order=(1, 2, 3)),
    "a cascade": Study(nets=(COARSE, replace(FINE, trained=False), CASCADE)),
    "MR": Study(channels=("T1", "FLAIR"), scheme="ZScoreNormalization"),
    "pictures": Study(nets=(FLAT,), channels=("R", "G", "B"), scheme="RGBTo01Normalization"),
    "other axes": Study(transpose=(1, 0, 2)),
    "as they are": Study(channels=("T1",), scheme="NoNormalization"),
}


@pytest.mark.parametrize("what", STUDIES)
def test_agreement_is_measured_on_what_each_network_would_see(tmp_path: Path, what: str) -> None:
    found = members(nnunet_folders.write(tmp_path, STUDIES[what]))
    device = FakeDevice(memory_bytes=1 << 40, bfloat16=True)
    for trained in (stage for member in found for stage in member):
        first, second = arithmetic.samples(trained)
        inputs = next(trained.folds[0].parameters()).shape[1]
        assert first.shape == (inputs, *trained.configuration.patch)
        assert all(0.05 < float(one.std()) < 1000 for one in (first, second))
        assert not torch.equal(first, second)
    choice = arithmetic.chosen(found, device, bound=0.0)
    assert choice.precision is Precision.BFLOAT16
    assert choice.agreement is not None
    assert 0.5 < choice.agreement < 1
    refused = arithmetic.chosen(found, device, bound=choice.agreement + 1e-9)
    assert refused.precision is Precision.FLOAT32
    assert arithmetic.chosen(found, device, bound=1.5) == EXACT
    without = FakeDevice(memory_bytes=1 << 40, bfloat16=False)
    assert arithmetic.chosen(found, without, bound=0.0) == EXACT


def test_in_bfloat16_nearly_all_labels_are_those_of_float32(tmp_path: Path) -> None:
    study = Study(folds=2, mirroring=(0, 1, 2))
    found = members(nnunet_folders.write(tmp_path, study))
    images = list(nnunet_folders.image((20, 44, 40)))
    exact = Segmenter(found, Cpu(), EXACT).segment(images, SPACING)
    half = Segmenter(found, Cpu(), Choice(precision=Precision.BFLOAT16)).segment(images, SPACING)
    assert 0.97 < (half == exact).mean() < 1
    assert len(np.unique(exact)) == 3


def test_the_arithmetic_is_said_by_the_model(tmp_path: Path) -> None:
    """Identifiers, provenance, `status` and metrics have it."""
    path = nnunet_folders.write(tmp_path, Study())
    assert str(model(path, agreement=2).segmenter.computed) == "float32 on cpu"
    quick = "bfloat16 on cpu" if Cpu().bfloat16 else "float32 on cpu"
    assert str(model(path, agreement=0).segmenter.computed) == quick
    for wrong in ("high", True, -1):
        with pytest.raises(ModelRefused, match=r"options\.agreement"):
            model(path, agreement=wrong)


class Limited:
    """A network for batches of at most so many windows."""

    def __init__(self, windows: int) -> None:
        self.windows = windows
        self.batches: list[int] = []

    def of(self, placed: Placed) -> Placed:
        (predict,) = placed.predict

        def limited(batch: torch.Tensor) -> torch.Tensor:
            self.batches.append(len(batch))
            if len(batch) > self.windows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return predict(batch)

        return replace(placed, predict=(limited,))


@pytest.mark.parametrize("study", [STUDIES["regions"], STUDIES["a cascade"]])
def test_what_memory_allows_gives_the_same_labels_and_is_remembered(
    tmp_path: Path, study: Study
) -> None:
    found = members(nnunet_folders.write(tmp_path, study))
    device = FakeDevice(memory_bytes=1 << 40)
    images = list(nnunet_folders.image((20, 62, 60)))
    expected = Segmenter(found, Cpu(), EXACT).segment(images, SPACING)
    segmenter, limited = Segmenter(found, device, EXACT), Limited(1)
    segmenter._placed = [[limited.of(one) for one in member] for member in segmenter._placed]
    assert np.mean(segmenter.segment(images, SPACING) == expected) > 0.999
    assert limited.batches[:3] == [4, 2, 1]
    assert segmenter.computed.lessened == "windows 1 at a time"
    assert set(limited.batches[3:]) == {1}
    segmenter.segment(images, SPACING)
    assert set(limited.batches[3:]) == {1}
    limited.windows = 0
    with pytest.raises(torch.OutOfMemoryError):
        segmenter.segment(images, SPACING)


def test_what_is_tried_ends_with_image_and_sums_on_the_host() -> None:
    """Never with a smaller patch: the plans fix it."""
    gpu = FakeDevice(memory_bytes=1)
    gpu.torch = torch.device("cuda", 0)
    assert efforts(gpu) == (
        Effort(batch=4, on_host=False),
        Effort(batch=2, on_host=False),
        Effort(batch=1, on_host=False),
        Effort(batch=1, on_host=True),
    )
    assert efforts(Cpu()) == (Effort(batch=1, on_host=True),)


def test_what_each_step_of_a_cascade_did_with_less_is_said() -> None:
    four, one = Effort(batch=4, on_host=False), Effort(batch=1, on_host=False)
    host = Effort(batch=1, on_host=True)
    assert lessened([four, four], four) == ""
    assert lessened([one, one], four) == "windows 1 at a time"
    assert lessened([four, one], four) == "step 2: windows 1 at a time"
    assert lessened([one, host], four) == (
        "step 1: windows 1 at a time; step 2: windows 1 at a time, sums on the host"
    )


@pytest.mark.parametrize("kind", ["3d", "2d"])
def test_memory_is_a_slab_of_logits_and_not_all_classes_of_the_image(
    tmp_path: Path, kind: str
) -> None:
    """Of 60 classes the whole image's logits would take 337 MiB; measured by the system, in a
    process of its own, when the libraries have what they keep.
    """
    deep = Net(patch=(16, 48, 48), spacing=SPACING, features=(4, 4), strides=((1, 1, 1), (1, 2, 2)),
               kernels=((3, 3, 3), (3, 3, 3)))  # fmt: skip
    flat = replace(FLAT, features=(4, 4), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)),
                   patch=(48, 48))  # fmt: skip
    names = {"background": 0, **{f"part {value}": value for value in range(1, 60)}}
    study = Study(nets=(deep if kind == "3d" else flat,), labels=names)
    path = nnunet_folders.write(tmp_path, study)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        found, taken = alone.submit(_peak, path).result()
    whole = 60 * math.prod(LONG) * 2
    assert whole > 330 * MIB
    assert found > 10
    assert taken < whole / 2


def _peak(path: Path) -> tuple[int, int]:
    """How many labels are found in a long image, and the bytes that this takes at most."""
    torch.set_num_threads(1)
    images = list(nnunet_folders.image(LONG, border=0))
    segmenter, device = Segmenter(members(path), Cpu(), EXACT), Cpu()
    segmenter.segment([images[0][:40]], SPACING)
    device.begin()
    before = device.used_bytes()
    labelled = segmenter.segment(images, SPACING)
    return len(np.unique(labelled)), device.peak_bytes() - before


BOTH = (FLAT, Net())


def test_an_ensemble_is_named_in_the_sidecar(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=BOTH))
    image = list(nnunet_folders.image((12, 44, 40)))
    found = model(path, ensemble=["2d", "3d_fullres"])
    names = [member[-1].configuration.name for member in found.segmenter.members]
    assert names == ["2d", "3d_fullres"]
    together = found.segmenter.segment(image, SPACING)
    for name in names:
        alone = model(path, configuration=name).segmenter.segment(image, SPACING)
        assert (alone != together).any()
    folders = [results(path, name).name for name in names]
    assert (model(path, ensemble=folders).segmenter.segment(image, SPACING) == together).all()


def test_thresholds_of_regions_count_in_an_ensemble(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=BOTH, labels=REGIONS, regions_order=(1, 2, 3)))
    image = list(nnunet_folders.image((12, 44, 40)))
    _, proposed = model_add.proposal(path)
    strict = [dict(label) for label in proposed["labels"]]
    strict[2]["threshold"] = 0.9
    said = {"options": {"ensemble": ["2d", "3d_fullres"]}}
    loose, tight = (
        nnunet.load({}, replace(artifact(path, said | change), device="cpu"))
        for change in ({}, {"labels": strict})
    )
    assert isinstance(loose, NnUnet)
    assert isinstance(tight, NnUnet)
    found = [one.segmenter.segment(image, SPACING) == 3 for one in (loose, tight)]
    assert 0 < found[1].sum() < found[0].sum()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ensemble": ["2d"]}, "two or more"),
        ({"ensemble": ["2d", "2d"]}, "two or more"),
        ({"ensemble": "2d"}, r"options\.ensemble"),
        ({"ensemble": ["2d", "3d_fullres"], "configuration": "2d"}, r"no options\.configuration"),
        ({"ensemble": ["2d", "3d_lowres"]}, "3d_lowres is not in the folder"),
    ],
)
def test_an_ensemble_that_is_none_is_refused(
    tmp_path: Path, said: dict[str, Any], words: str
) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=BOTH))
    with pytest.raises(ModelRefused, match=words):
        model(path, **said)


def changed(path: Path, name: str, change: dict[str, Any]) -> None:
    file = results(path, "2d") / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("plans.json", {"image_reader_writer": "NibabelIOWithReorient"}, "differ in reader"),
        ("dataset.json", {"channel_names": {"0": "T1"}}, "differ in channels"),
        (
            "dataset.json",
            {"labels": {"background": 0, "spleen": 1, "liver": 2}},
            "2d and 3d_fullres differ in labels",
        ),
    ],
)
def test_an_ensemble_of_what_does_not_belong_together_is_refused(
    tmp_path: Path, name: str, change: dict[str, Any], words: str
) -> None:
    path = nnunet_folders.write(tmp_path, Study(nets=BOTH))
    changed(path, name, change)
    with pytest.raises(ModelRefused, match=words):
        members(path, ensemble=["2d", "3d_fullres"])


def written(path: Path, *, folds: str, values: Any, kind: str = "json") -> Path:
    place = results(path) / f"crossval_results_folds_{folds}"
    place.mkdir(exist_ok=True)
    content = {
        "postprocessing_fns": [LARGEST],
        "postprocessing_kwargs": [{"labels_or_regions": values}],
    }
    file = place / f"postprocessing.{kind}"
    if kind == "json":
        file.write_text(json.dumps(content))
    else:
        file.write_bytes(pickle.dumps(tuple(content.values())))
    return file


def test_postprocessing_of_the_same_folds_is_proposed_and_done(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(folds=2))
    file = written(path, folds="0_1", values=[2])
    written(path, folds="0", values=[1])
    _, proposed = model_add.proposal(path)
    assert proposed["options"]["postprocessing"] == file.relative_to(path).as_posix()
    image = nnunet_folders.image((20, 44, 40))[0]
    plain = model(path)._run([image], SPACING)
    found = model(path, **proposed["options"])._run([image], SPACING)
    assert 0 < np.count_nonzero(found == 2) < np.count_nonzero(plain == 2)
    assert np.array_equal(found[found > 0], plain[found > 0])


def test_postprocessing_of_other_folds_is_not_proposed(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study(folds=2))
    written(path, folds="0_1_2_3_4", values=[1])
    _, proposed = model_add.proposal(path)
    assert "postprocessing" not in proposed["options"]


def test_postprocessing_that_is_not_nnunets_is_refused(tmp_path: Path) -> None:
    path = nnunet_folders.write(tmp_path, Study())
    file = written(path, folds="0", values=[1, 9])
    name = file.relative_to(path).as_posix()
    with pytest.raises(ModelRefused, match=r"postprocessing\.json: the model has no label 9"):
        model(path, postprocessing=name)
    with pytest.raises(ModelRefused, match="not among the files"):
        model(path, postprocessing="elsewhere.json")
    file = written(path, folds="0", values=[1], kind="pkl")
    with pytest.raises(ModelRefused, match="not among the files"):
        loading.steps(
            ModelFiles(path=path, digests={}),
            options.parse({"postprocessing": file.relative_to(path).as_posix()}),
            members(path)[0][-1].labels,
        )
