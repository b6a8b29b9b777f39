"""nnU-Net folders give the labels of the package nnunetv2 itself, voxel by voxel.

Always against its pinned answers; where it is installed, against its own run here as well, the
network's input and logits included. Random weights: nothing here says that a model is good.
Not covered: GPUs; pictures and readers that turn images (test_nnunet_model.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.engine.device import Cpu
from inference.engine.precision import Choice, Precision
from inference.nnunet import loading, options, postprocessing
from inference.nnunet.postprocessing import Step
from inference.nnunet.prediction import Member, Segmenter, placed
from inference.nnunet.restoration import Answer, restored
from inference.nnunet.sliding_window import summed
from tests import nnunet_folders, nnunet_reference
from tests.nnunet_reference import CASES, ENSEMBLES, Case

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Cpu()
EXACT = Choice(precision=Precision.FLOAT32)
ULPS = 1e-4  # share of voxels that may differ: other processors sum floats in another order


def loaded(top: Path, case: Case, one: str | None = None) -> tuple[Member, ...]:
    named: dict[str, Any] = {"ensemble": list(case.ensemble)} if case.ensemble else {}
    named = named if one is None else {"configuration": one}
    said = options.parse({"mirroring": case.mirroring, **named})
    return loading.members(nnunet_folders.artifact(top).files, said)


def segmented(top: Path, case: Case, one: str | None = None) -> NDArray[np.int16]:
    return Segmenter(loaded(top, case, one), CPU, EXACT).segment(list(case.images), case.spacing)


@pytest.mark.parametrize("name", [*CASES, *ENSEMBLES])
def test_labels_are_those_that_the_package_gave(tmp_path: Path, name: str) -> None:
    case = {**CASES, **ENSEMBLES}[name]
    found = segmented(nnunet_folders.write(tmp_path, case.study), case)
    expected = nnunet_reference.pinned(name)
    assert found.shape == expected.shape == case.shape
    assert len(np.unique(expected)) > 2
    assert (found != expected).mean() <= ULPS


@pytest.mark.parametrize("name", CASES)
def test_input_logits_and_labels_are_those_of_the_package(tmp_path: Path, name: str) -> None:
    if (reason := nnunet_reference.missing()) is not None:
        pytest.skip(reason)
    case = CASES[name]
    top = nnunet_folders.write(tmp_path, case.study)
    labelled: NDArray[np.int16] | None = None
    (member,) = loaded(top, case)
    for trained, expected in zip(member, nnunet_reference.answers(top, case), strict=True):
        stage = placed(trained, CPU, Precision.FLOAT32)
        prepared = stage.prepared(list(case.images), case.spacing, labelled)
        assert np.array_equal(prepared.data, expected.data)
        with torch.inference_mode():
            logits = summed([stage.slabs(prepared, CPU.torch, 1)], prepared.data.shape[1:])
            assert np.array_equal(logits.numpy(), expected.logits)
            answer = Answer(
                slabs=stage.slabs(prepared, CPU.torch, 1),
                prepared=prepared,
                configuration=trained.configuration,
                device=CPU.torch,
            )
            labelled = restored([answer], trained.labels)
        assert np.array_equal(labelled, expected.labelled)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_gives_the_labels_of_the_package(tmp_path: Path, name: str) -> None:
    if (reason := nnunet_reference.missing()) is not None:
        pytest.skip(reason)
    case = ENSEMBLES[name]
    top = nnunet_folders.write(tmp_path, case.study)
    found = segmented(top, case)
    assert np.array_equal(found, nnunet_reference.ensembled(top, case))
    alone = [segmented(top, case, one) for one in case.ensemble]
    assert all((found != one).any() for one in alone)


@pytest.mark.parametrize("values", [[1, 2], [1], [2], [(1, 2)]])
def test_postprocessing_gives_the_labels_of_the_package(values: list[Any]) -> None:
    if (reason := nnunet_reference.missing()) is not None:
        pytest.skip(reason)
    generator = np.random.default_rng(4)
    labelled = generator.choice(3, (12, 40, 44), p=(0.94, 0.03, 0.03)).astype(np.int16)
    flat = tuple(sorted(values[0] if isinstance(values[0], tuple) else values))
    found = postprocessing.applied(labelled, (Step(values=flat),))
    assert np.array_equal(found, nnunet_reference.largest_alone(labelled, values))
    assert (found != labelled).any()
