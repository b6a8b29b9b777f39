"""nnU-Net folders give the labels of the package nnunetv2 itself, voxel by voxel.

Always against its pinned answers; where it is installed, against its own run here as well, the
network's input and logits included. Random weights: nothing here says that a model is good.
Not covered: GPUs; pictures and readers that turn images (test_nnunet_model.py).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.nnunet import loading, options, prediction
from inference.nnunet.prediction import Trained
from inference.nnunet.preprocessing import Prepared, prepare
from inference.nnunet.restoration import restored
from tests import nnunet_folders, nnunet_reference
from tests.nnunet_reference import CASES, Case

CPU = torch.device("cpu")
ULPS = 1e-4  # share of voxels that may differ: other processors sum floats in another order


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loaded(top: Path, case: Case) -> tuple[Trained, ...]:
    said = options.parse({"mirroring": case.mirroring})
    return loading.stages(nnunet_folders.artifact(top).files, said)


def segmented(top: Path, case: Case) -> NDArray[np.int16]:
    return prediction.segment(loaded(top, case), list(case.images), case.spacing, device=CPU)


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_that_the_package_gave(tmp_path: Path, name: str) -> None:
    case = CASES[name]
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
    stages = zip(loaded(top, case), nnunet_reference.answers(top, case), strict=True)
    for stage, expected in stages:
        prepared = prepared_for(stage, case, labelled)
        assert np.array_equal(prepared.data, expected.data)
        logits = prediction.logits(stage, prepared, device=CPU)
        assert np.array_equal(logits.numpy(), expected.logits)
        labelled = restored(logits, prepared, stage.configuration, stage.labels)
        assert np.array_equal(labelled, expected.labelled)


def prepared_for(stage: Trained, case: Case, previous: NDArray[np.int16] | None) -> Prepared:
    return prepare(
        list(case.images), case.spacing, stage.configuration, labels=stage.labels, previous=previous
    )
