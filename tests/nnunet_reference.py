"""What the package nnunetv2 itself gives for small folders: run here if it is installed, or pinned.

`python -m tests.nnunet_reference` writes the pinned label maps, tests/nnunet_reference.npz. They
are those of nnunetv2 2.8.1 with batchgenerators 0.25.5, acvl_utils 0.2.6,
dynamic_network_architectures 0.4.4, torch 2.13.0 on a CPU, from the folders and images of CASES
(tests/nnunet_folders.py), as `predict_single_npy_array` does it; a cascade's second stage is given
the first one's labels.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests import nnunet_folders
from tests.nnunet_folders import (
    CASCADE,
    COARSE,
    FINE,
    FLAT,
    ORGANS,
    REGIONS,
    RESIDUAL,
    Net,
    Study,
)

PINNED = Path(__file__).with_suffix(".npz")
PACKAGE = "nnunetv2"
PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

Images = NDArray[np.float32]
Labelled = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trained folder and an image (z, y, x) of `spacing` mm."""

    study: Study
    spacing: tuple[float, float, float] = (3.0, 1.2, 1.2)
    shape: tuple[int, int, int] = (16, 44, 40)
    mirroring: bool = True
    ensemble: tuple[str, ...] = ()  # configurations whose probabilities are averaged

    @property
    def images(self) -> Images:
        """One a channel."""
        return nnunet_folders.image(self.shape, channels=len(self.study.channels), seed=3)


MR = Study(channels=("T1",), scheme="ZScoreNormalization")
STAGES = (COARSE, replace(FINE, trained=False), CASCADE)
THICK = {"spacing": (5.0, 1.1, 1.3), "shape": (12, 44, 40)}

CASES: Mapping[str, Case] = {
    "3d_fullres, thick slices": Case(study=Study(), **THICK),
    "3d_fullres, thin slices": Case(study=Study(), spacing=(2.5, 1.7, 1.3), shape=(20, 44, 40)),
    "2d": Case(study=Study(nets=(FLAT,)), **THICK),
    "2d, smaller than the patch": Case(
        study=Study(nets=(FLAT,)), spacing=(5.0, 1.1, 1.3), shape=(4, 30, 24)
    ),
    "3d_lowres": Case(study=Study(nets=(COARSE,)), spacing=(2.5, 1.7, 1.3), shape=(24, 60, 52)),
    "cascade": Case(study=Study(nets=STAGES), spacing=(2.5, 1.5, 1.4), shape=(22, 40, 44)),
    "cascade, thick slices": Case(
        study=Study(nets=STAGES), spacing=(7.0, 1.5, 1.4), shape=(12, 40, 44)
    ),
    "two folds, mirrored": Case(study=Study(folds=2, mirroring=(0, 1, 2))),
    "mirroring switched off": Case(study=Study(mirroring=(0, 1, 2)), mirroring=False),
    "residual encoder": Case(study=Study(nets=(RESIDUAL,))),
    "regions of two masked channels": Case(
        study=replace(
            MR, labels=REGIONS, regions_order=(1, 2, 3), channels=("T1", "FLAIR"), masked=True
        ),
        **THICK,
    ),
    "ignore label": Case(study=Study(labels={**ORGANS, "ignore": 3})),
    "z-score": Case(study=MR),
    "rescaled to 0..1": Case(study=replace(MR, scheme="RescaleTo01Normalization")),
    "not normalised": Case(study=replace(MR, scheme="NoNormalization")),
    "resampled in torch": Case(
        study=Study(resampling="resample_torch_fornnunet"), spacing=(5.0, 1.1, 1.3)
    ),
    "mixed across thick slices": Case(study=Study(across=1), **THICK),
    "plans before 2.2": Case(study=Study(former=True)),
    "plans before 2.2, residual": Case(study=Study(former=True, nets=(RESIDUAL,))),
    "transposed axes": Case(
        study=Study(transpose=(1, 0, 2), mirroring=(0, 1)),
        spacing=(1.3, 3.5, 1.1),
        shape=(44, 16, 40),
    ),
}

BOTH = (FLAT, Net())
TURNED = replace(
    COARSE, patch=(32, 16, 24), spacing=(2.0, 4.0, 1.7), transpose=(2, 0, 1), strides=FINE.strides
)
TURNED_FLAT = replace(FLAT, transpose=(1, 0, 2))
ENSEMBLES: Mapping[str, Case] = {
    "2d and 3d_fullres": Case(study=Study(nets=BOTH), ensemble=("2d", "3d_fullres"), **THICK),
    "2d and 3d_fullres of regions, mirrored": Case(
        study=Study(nets=BOTH, labels=REGIONS, regions_order=(1, 2, 3), mirroring=(0, 1)),
        ensemble=("2d", "3d_fullres"),
        **THICK,
    ),
    "3d_lowres, 3d_fullres and a cascade": Case(
        study=Study(nets=(COARSE, FINE, CASCADE)),
        spacing=(2.5, 1.5, 1.4),
        shape=(22, 40, 44),
        ensemble=("3d_lowres", "3d_fullres", "3d_cascade_fullres"),
    ),
    "other axes, the first as they come": Case(
        study=Study(nets=(Net(), TURNED, TURNED_FLAT), folds=2, mirroring=(0, 1)),
        ensemble=("3d_fullres", "3d_lowres", "2d"),
        spacing=(2.6, 1.4, 1.1),
        shape=(20, 44, 38),
    ),
    "other axes, the first transposed": Case(
        study=Study(
            nets=(Net(), TURNED), labels=REGIONS, regions_order=(1, 2, 3), across=1, mirroring=(2,)
        ),
        ensemble=("3d_lowres", "3d_fullres"),
        **THICK,
    ),
    "mixed across thick slices, two folds": Case(
        study=Study(nets=BOTH, across=1, folds=2), ensemble=("3d_fullres", "2d"), **THICK
    ),
}


def missing() -> str | None:
    """Why the package cannot be compared with; None when it can."""
    return None if find_spec(PACKAGE) else f"{PACKAGE} is not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network was given, what it said, and the labels made of that."""

    data: NDArray[np.float32]
    logits: NDArray[np.float16]
    labelled: Labelled
    probabilities: NDArray[np.float32]  # on the image's grid


def answers(top: Path, case: Case) -> list[Answer]:
    """The package's answers, one a stage, for a folder that `nnunet_folders.write` wrote."""
    found: list[Answer] = []
    for net in case.study.nets:
        if net.trained:
            previous = found[-1].labelled if net.previous is not None else None
            found.append(_answer(nnunet_folders.results(top, net.name), case, previous))
    return found


def ensembled(top: Path, case: Case) -> Labelled:
    """The package's labels of an ensemble, as `nnUNetv2_ensemble` makes them of files."""
    last = {net.name: net for net in case.study.nets}
    likely = []
    for name in case.ensemble:
        before = last[name].previous
        nets = (last[name],) if before is None else (last[before], last[name])
        study = replace(case.study, nets=nets)
        likely.append(answers(top, replace(case, study=study))[-1].probabilities)
    from nnunetv2.ensembling.ensemble import average_probabilities
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with TemporaryDirectory() as folder:
        files = [f"{folder}/{index}.npz" for index in range(len(likely))]
        for file, one in zip(files, likely, strict=True):
            np.savez_compressed(file, probabilities=one)
        mean = average_probabilities(files)
    manager = PlansManager(nnunet_folders.plans(case.study)).get_label_manager(
        nnunet_folders.dataset(case.study)
    )
    return np.asarray(manager.convert_probabilities_to_segmentation(mean))


def largest_alone(labelled: Labelled, values: list[int | tuple[int, ...]]) -> Labelled:
    """The package's only postprocessing."""
    from nnunetv2.postprocessing import remove_connected_components as package

    found = package.remove_all_but_largest_component_from_segmentation(labelled, values)
    return np.asarray(found)


def _answer(folder: Path, case: Case, previous: Labelled | None) -> Answer:
    for name in PATHS:
        os.environ.setdefault(name, str(folder))
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        _name_of_former_residual_networks()
        from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape as convert,
        )
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=case.mirroring,
            device=torch.device("cpu"),
            perform_everything_on_device=False,
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(str(folder), None, "checkpoint_final.pth")
        plans, configuration = predictor.plans_manager, predictor.configuration_manager
        earlier = None if previous is None else previous[None].astype(np.int16)
        prepared = next(
            PreprocessAdapterFromNpy(
                [case.images],
                [earlier],
                [{"spacing": list(case.spacing)}],
                [None],
                plans,
                predictor.dataset_json,
                configuration,
                num_threads_in_multithreaded=1,
            )
        )
        logits = predictor.predict_logits_from_preprocessed_data(prepared["data"])
        given = plans, configuration, predictor.label_manager, prepared["data_properties"]
        labelled = convert(logits.clone(), *given, num_threads_torch=1)
        _, likely = convert(logits.clone(), *given, return_probabilities=True, num_threads_torch=1)
    return Answer(
        data=prepared["data"].numpy(),
        logits=logits.numpy(),
        labelled=labelled,
        probabilities=likely,
    )


def _name_of_former_residual_networks() -> None:
    """The module that the package's conversion of former plans names is gone from its networks."""
    from dynamic_network_architectures import architectures
    from dynamic_network_architectures.architectures import unet

    architectures.residual_unet = unet
    sys.modules[f"{architectures.__name__}.residual_unet"] = unet


def pinned(name: str) -> Labelled:
    """The pinned label map of a case."""
    with np.load(PINNED) as found:
        return np.asarray(found[name])


def pin() -> None:
    """Write the pinned label maps."""
    torch.set_num_threads(1)
    found = {}
    for name, case in CASES.items():
        with TemporaryDirectory() as folder:
            top = nnunet_folders.write(Path(folder), case.study)
            found[name] = answers(top, case)[-1].labelled.astype(np.uint8)
        print(name, np.bincount(found[name].ravel()))
    for name, case in ENSEMBLES.items():
        with TemporaryDirectory() as folder:
            top = nnunet_folders.write(Path(folder), case.study)
            found[name] = ensembled(top, case).astype(np.uint8)
        print(name, np.bincount(found[name].ravel()))
    np.savez_compressed(PINNED, **found)


if __name__ == "__main__":
    pin()
