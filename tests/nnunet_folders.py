"""Small folders of nnU-Net v2 results as its training writes them, with seeded random weights."""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import description
from inference.model_files import ModelFiles
from inference.models import Artifact, nnunet
from inference.models.nnunet import NnUnet
from inference.nnunet import architectures
from inference.nnunet.labels import parse
from service import model_add, sidecar
from service.validation import Place

ORGANS = {"background": 0, "liver": 1, "spleen": 2}
REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3}
CT = {"mean": 40.0, "std": 120.0, "percentile_00_5": -300.0, "percentile_99_5": 300.0}
MR = {"mean": 300.0, "std": 150.0, "percentile_00_5": 10.0, "percentile_99_5": 900.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One configuration and the sizes of its network."""

    name: str = "3d_fullres"
    patch: Sequence[int] = (16, 32, 32)
    spacing: Sequence[float] = (3.0, 1.5, 1.5)
    kind: str = "PlainConvUNet"
    features: Sequence[int] = (4, 8, 8)
    strides: Sequence[Sequence[int]] = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    kernels: Sequence[Sequence[int]] = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
    inherits: str | None = None
    previous: str | None = None
    trained: bool = True
    transpose: Sequence[int] | None = None  # of plans of its own; None: as the study's


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was trained: one or more configurations of a data set."""

    nets: Sequence[Net] = (Net(),)
    channels: Sequence[str] = ("CT",)
    scheme: str = "CTNormalization"
    masked: bool = False
    labels: Mapping[str, Any] = field(default_factory=lambda: ORGANS)
    regions_order: Sequence[int] | None = None
    folds: int = 1
    mirroring: Sequence[int] | None = None
    trainer: str = "nnUNetTrainer"
    transpose: Sequence[int] = (0, 1, 2)
    reader: str = "SimpleITKIO"
    former: bool = False  # plans before v2.2
    resampling: str = "resample_data_or_seg_to_shape"
    across: int = 0  # order along the axis of thick slices
    dataset: str = "Dataset901_Phantom"
    seed: int = 1


FLAT = Net(
    name="2d",
    patch=(32, 32),
    spacing=(1.5, 1.5),
    strides=((1, 1), (2, 2), (2, 2)),
    kernels=((3, 3), (3, 3), (3, 3)),
)
COARSE = Net(
    name="3d_lowres",
    patch=(16, 24, 24),
    spacing=(4.0, 3.0, 3.0),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3), (3, 3, 3)),
)
FINE = Net(
    spacing=(3.0, 2.0, 2.0),
    strides=COARSE.strides,
    kernels=COARSE.kernels,
)
CASCADE = Net(
    name="3d_cascade_fullres",
    patch=FINE.patch,
    spacing=FINE.spacing,
    strides=FINE.strides,
    kernels=FINE.kernels,
    inherits="3d_fullres",
    previous="3d_lowres",
)
RESIDUAL = Net(kind="ResidualEncoderUNet")


def write(folder: Path, study: Study) -> Path:
    """The data set's folder, in `folder`, with one results folder for each trained net."""
    top = folder / study.dataset
    for index, net in enumerate(study.nets):
        if net.trained:
            place = top / f"{study.trainer}__nnUNetPlans__{net.name}"
            place.mkdir(parents=True)
            (place / "plans.json").write_text(json.dumps(plans(study, net), indent=4))
            (place / "dataset.json").write_text(json.dumps(dataset(study), indent=4))
            for fold in range(study.folds):
                inside = place / f"fold_{fold}"
                inside.mkdir()
                seed = study.seed + 100 * index + fold
                torch.save(checkpoint(study, net, seed, fold), inside / "checkpoint_final.pth")
    return top


def results(top: Path, name: str = "3d_fullres") -> Path:
    """The folder of one configuration's results."""
    return next(top.glob(f"*__{name}"))


def dataset(study: Study) -> dict[str, Any]:
    """dataset.json."""
    found: dict[str, Any] = {
        "channel_names": {str(index): name for index, name in enumerate(study.channels)},
        "labels": dict(study.labels),
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    if study.regions_order is not None:
        found["regions_class_order"] = list(study.regions_order)
    return found


def plans(study: Study, net: Net | None = None) -> dict[str, Any]:
    """plans.json; of a net with plans of its own, those."""
    axes = study.transpose if net is None or net.transpose is None else net.transpose
    values = CT if study.scheme == "CTNormalization" else MR
    intensities = {str(index): values for index in range(len(study.channels))}
    former = "foreground_intensity_properties_by_modality"
    return {
        "dataset_name": study.dataset,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.5, 1.5],
        "original_median_shape_after_transp": [20, 48, 48],
        "image_reader_writer": study.reader,
        "transpose_forward": list(axes),
        "transpose_backward": [int(place) for place in np.argsort(axes)],
        "configurations": {net.name: _configuration(study, net) for net in study.nets},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        former if study.former else "foreground_intensity_properties_per_channel": intensities,
    }


def _configuration(study: Study, net: Net) -> dict[str, Any]:
    if net.inherits is not None:
        return {"inherits_from": net.inherits, "previous_stage": net.previous}
    count = len(study.channels)
    return {
        "data_identifier": f"nnUNetPlans_{net.name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(net.patch),
        "median_image_size_in_voxels": list(net.patch),
        "spacing": list(net.spacing),
        "normalization_schemes": [study.scheme] * count,
        "use_mask_for_norm": [study.masked] * count,
        **_resampling(study, "data", order=3),
        **_resampling(study, "seg", order=1),
        **_resampling(study, "probabilities", order=1),
        "batch_dice": True,
        **(_former(net) if study.former else {"architecture": _architecture(net)}),
    }


def _resampling(study: Study, what: str, *, order: int) -> dict[str, Any]:
    name = f"resampling_fn_{what}"
    options: dict[str, Any] = {"is_seg": what == "seg", "force_separate_z": None}
    if study.resampling == "resample_data_or_seg_to_shape":
        options |= {"order": order, "order_z": study.across}
    return {name: study.resampling, f"{name}_kwargs": options}


def _former(net: Net) -> dict[str, Any]:
    stages = len(net.features)
    return {
        "UNet_class_name": net.kind,
        "UNet_base_num_features": net.features[0],
        "unet_max_num_features": max(net.features),
        "n_conv_per_stage_encoder": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "num_pool_per_axis": [stages - 1] * len(net.patch),
        "pool_op_kernel_sizes": [list(stride) for stride in net.strides],
        "conv_kernel_sizes": [list(kernel) for kernel in net.kernels],
    }


def _architecture(net: Net) -> dict[str, Any]:
    stages, axes = len(net.features), f"{len(net.patch)}d"
    blocks = architectures.BLOCKS.get(net.kind, "n_conv_per_stage")
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{net.kind}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(net.features),
            "conv_op": f"torch.nn.modules.conv.Conv{axes}",
            "kernel_sizes": [list(kernel) for kernel in net.kernels],
            "strides": [list(stride) for stride in net.strides],
            blocks: [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def checkpoint(study: Study, net: Net, seed: int, fold: int) -> dict[str, Any]:
    """A checkpoint as the trainer saves it: weights, log, arguments."""
    return {
        "network_weights": weights(study, net, seed),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-2, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float64(0.75)], "lrs": [0.01]},
        "_best_ema": np.float64(0.75),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans(study, net),
            "configuration": net.name,
            "fold": fold,
            "dataset_json": dataset(study),
            "unpack_dataset": True,
            "device": torch.device("cpu"),
        },
        "trainer_name": study.trainer,
        "inference_allowed_mirroring_axes": (
            None if study.mirroring is None else tuple(study.mirroring)
        ),
    }


def weights(study: Study, net: Net, seed: int) -> OrderedDict[str, torch.Tensor]:
    """Random parameters, spread so that every class wins somewhere, under nnU-Net's names."""
    labels = parse(dataset(study))
    cascaded = net.previous is not None
    arguments = _architecture(net)["arch_kwargs"]
    network = architectures.build(
        net.kind,
        arguments,
        channels=len(study.channels) + (len(labels.foreground) if cascaded else 0),
        classes=labels.heads,
    )
    generator = np.random.default_rng(seed)
    found: OrderedDict[str, torch.Tensor] = OrderedDict()
    for key, value in network.state_dict().items():
        flat = key.endswith((".bias", "norm.weight"))
        spread = 0.3 if flat else (2.0 / max(1, value[0].numel())) ** 0.5
        drawn = generator.standard_normal(tuple(value.shape)) * spread
        drawn += 1 if key.endswith("norm.weight") else 0
        drawn *= 0 if "seg_layers" in key and flat else 1
        found[key] = torch.from_numpy(drawn.astype(np.float32))
    return _twice(found)


MODULES = {"conv": "0", "norm": "1"}


def _twice(found: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """With the duplicates of nnU-Net's own networks."""
    both: OrderedDict[str, torch.Tensor] = OrderedDict()
    for key, value in found.items():
        both[key] = value
        module, name, kind, *_ = *key.rsplit(".", 2), "", ""
        if name in MODULES:
            both[f"{module}.all_modules.{MODULES[name]}.{kind}"] = value
    inside = {f"decoder.{key}": value for key, value in both.items() if key.startswith("encoder.")}
    return OrderedDict([*both.items(), *inside.items()])


def image(
    shape: Sequence[int] = (20, 44, 40), *, seed: int = 0, channels: int = 1, border: int = 3
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Smooth noise (channel, z, y, x) of CT's range, zero in a border that is cropped."""
    generator = np.random.default_rng(seed)
    found = np.zeros((channels, *shape), np.float32)
    inner = tuple(slice(at := min(border, size // 4), size - at) for size in shape)
    for channel in found:
        coarse = generator.normal(0, 250, [max(2, size // 5) for size in shape])
        fine = torch.nn.functional.interpolate(
            torch.from_numpy(coarse)[None, None], list(shape), mode="trilinear"
        )
        channel[inner] = np.rint(fine[0, 0].numpy() + 100)[inner]
    return found


def artifact(path: Path, changes: Mapping[str, Any] | None = None) -> Artifact:
    """The folder as the node has it once it was added and `changes` made to its sidecar."""
    _, proposed = model_add.proposal(path)
    plain = model_add.drafted(path, proposed).unwrap() | dict(changes or {})
    checked = sidecar.parse(plain, Place(file=sidecar.path_of(path)))
    parsed = description.parse(checked.plain)
    return Artifact(description=parsed, files=ModelFiles(path=path, digests=parsed.files))


def model(path: Path, changes: Mapping[str, Any] | None = None) -> NnUnet:
    """The folder as the node loads it, on the processor."""
    found = nnunet.load({}, replace(artifact(path, changes), device="cpu"))
    assert isinstance(found, NnUnet)
    return found
