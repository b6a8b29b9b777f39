"""What a trained nnU-Net wants of an image, from plans.json, old and new; or why it cannot run.

Axes of arrays are nnU-Net's own, (z, y, x) of the file it was given; spacings and patches are those
after `transpose_forward`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference.errors import ModelRefused
from inference.nnunet.architectures import BLOCKS

FORMER = "UNet_class_name"  # only in plans before v2.2
AXIS_NAMES = {2: "2d", 3: "3d"}
RESAMPLINGS = {
    "resample_data_or_seg_to_shape": "spline",
    "resample_torch_fornnunet": "linear",
    "no_resampling_hack": "none",
}
READERS = {  # whether a reader turns the image towards right, anterior, superior first
    "SimpleITKIO": False,
    "NibabelIO": False,
    "Tiff3DIO": False,
    "NaturalImage2DIO": False,
    "NibabelIOWithReorient": True,
    "SimpleITKIOWithReorient": True,
}
NATURAL_IMAGES = "NaturalImage2DIO"


class Scheme(StrEnum):
    """How a channel's values are normalised."""

    CT = "CTNormalization"  # clipped to and scaled by the training's foreground
    Z_SCORE = "ZScoreNormalization"
    RESCALE = "RescaleTo01Normalization"
    RGB = "RGBTo01Normalization"
    NONE = "NoNormalization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensities:
    """Of the foreground in the training images of a channel."""

    mean: float
    deviation: float
    lowest: float  # the 0.5th percentile
    highest: float  # the 99.5th


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One input image. `masked`: normalised where any input is not zero, and only there."""

    name: str
    scheme: Scheme
    masked: bool
    intensities: Intensities | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """`separate`: whether the axis of the thick slices goes by itself; None: when it is thrice the
    smallest spacing. `order` and `order_separate`: of the splines in the planes and along it.
    """

    method: str  # "spline", "linear", "none"
    order: int
    order_separate: int
    separate: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One trained network: 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres or a person's own name."""

    name: str
    patch: tuple[int, ...]  # two sizes: each slice by itself
    spacing: tuple[float, ...]  # mm; two: slices keep their distance
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    channels: tuple[Channel, ...]
    images: Resampling
    probabilities: Resampling
    segmentations: Resampling
    network: str
    arguments: Mapping[str, Any]
    previous: str | None  # the configuration whose labels are further input channels
    natural_images: bool  # trained on pictures without a spacing
    reoriented: bool  # trained on images turned towards right, anterior, superior


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """plans.json and the channels of dataset.json."""

    dataset: str
    name: str
    raw: Mapping[str, Any]
    channels: tuple[str, ...]  # their names

    @property
    def configurations(self) -> tuple[str, ...]:
        """All that were planned; few of them may have been trained."""
        return tuple(self.raw["configurations"])

    def configuration(self, name: str) -> Configuration:
        """A configuration with what it inherits; raises ModelRefused, naming what is wrong."""
        try:
            return _configuration(self, name)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            words = f"plans.json: {name}: {type(error).__name__}: {error}"
            raise ModelRefused(words) from error


def parse(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> Plans:
    """The plans as values; raises ModelRefused for files that nnU-Net v2 has not written."""
    if "configurations" not in plans or "transpose_forward" not in plans:
        raise ModelRefused("plans.json: not of nnU-Net v2: no configurations")
    names = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(names, dict) or not names:
        raise ModelRefused("dataset.json: no channel_names")
    ordered = sorted(names, key=int) if all(map(str.isdigit, names)) else list(names)
    return Plans(
        dataset=str(plans.get("dataset_name", "")),
        name=str(plans.get("plans_name", "")),
        raw=plans,
        channels=tuple(str(names[key]) for key in ordered),
    )


def _configuration(plans: Plans, name: str) -> Configuration:
    raw = _inherited(plans.raw["configurations"], name, ())
    network, arguments = _architecture(raw)
    reader = str(plans.raw.get("image_reader_writer", "SimpleITKIO"))
    if reader not in READERS:
        raise ModelRefused(f"plans.json: images read by {reader} are not known")
    axes = list(plans.raw["transpose_forward"]), list(plans.raw["transpose_backward"])
    if not sorted(axes[0]) == sorted(axes[1]) == [0, 1, 2]:
        raise ValueError("the transposed axes are not 0, 1 and 2")
    if not len(raw["patch_size"]) == len(raw["spacing"]) in AXIS_NAMES:
        raise ValueError("patch_size and spacing are not both of 2 or 3 axes")
    return Configuration(
        name=name,
        patch=tuple(map(int, raw["patch_size"])),
        spacing=tuple(map(float, raw["spacing"])),
        transpose_forward=tuple(plans.raw["transpose_forward"]),
        transpose_backward=tuple(plans.raw["transpose_backward"]),
        channels=tuple(_channels(plans, raw)),
        images=_resampling(raw, "data", order=3),
        probabilities=_resampling(raw, "probabilities", order=1),
        segmentations=_resampling(raw, "seg", order=1),
        network=network,
        arguments=arguments,
        previous=raw.get("previous_stage"),
        natural_images=reader == NATURAL_IMAGES,
        reoriented=READERS[reader],
    )


def _inherited(
    configurations: Mapping[str, Any], name: str, heirs: tuple[str, ...]
) -> dict[str, Any]:
    if name in heirs:
        raise ModelRefused(f"plans.json: {name} inherits from itself")
    if name not in configurations:
        raise ModelRefused(f"plans.json: no configuration {name}")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    inherited = {} if parent is None else _inherited(configurations, parent, (*heirs, name))
    return {**inherited, **own}


def _architecture(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if "architecture" in raw:
        found = raw["architecture"]
        return found["network_class_name"], found["arch_kwargs"]
    if FORMER not in raw:
        raise ValueError("no architecture")
    return raw[FORMER], _former(raw)


def _former(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a network in plans before v2.2, where some were fixed in the code."""
    stages = len(raw["n_conv_per_stage_encoder"])
    axes = AXIS_NAMES[len(raw["patch_size"])]
    largest = raw["unet_max_num_features"]
    return {
        "n_stages": stages,
        "features_per_stage": [
            min(raw["UNet_base_num_features"] * 2**stage, largest) for stage in range(stages)
        ],
        "conv_op": f"torch.nn.Conv{axes}",
        "kernel_sizes": raw["conv_kernel_sizes"],
        "strides": raw["pool_op_kernel_sizes"],
        BLOCKS.get(raw[FORMER], "n_conv_per_stage"): raw["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": raw["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{axes}",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _channels(plans: Plans, raw: Mapping[str, Any]) -> list[Channel]:
    former = plans.raw.get("foreground_intensity_properties_by_modality", {})
    intensities = plans.raw.get("foreground_intensity_properties_per_channel", former)
    schemes, masked = raw["normalization_schemes"], raw["use_mask_for_norm"]
    return [
        Channel(
            name=name,
            scheme=_scheme(schemes[index]),
            masked=bool(masked[index]),
            intensities=_intensities(intensities.get(str(index))),
        )
        for index, name in enumerate(plans.channels)
    ]


def _scheme(name: str) -> Scheme:
    if name not in set(Scheme):
        raise ModelRefused(f"plans.json: the normalisation {name} is not known")
    return Scheme(name)


def _intensities(raw: Mapping[str, float] | None) -> Intensities | None:
    if raw is None:
        return None
    return Intensities(
        mean=raw["mean"],
        deviation=raw["std"],
        lowest=raw["percentile_00_5"],
        highest=raw["percentile_99_5"],
    )


def _resampling(raw: Mapping[str, Any], what: str, *, order: int) -> Resampling:
    name = raw.get(f"resampling_fn_{what}", "resample_data_or_seg_to_shape")
    if name not in RESAMPLINGS:
        raise ModelRefused(f"plans.json: the resampling {name} is not known")
    options = raw.get(f"resampling_fn_{what}_kwargs", {})
    return Resampling(
        method=RESAMPLINGS[name],
        order=int(options.get("order", order)),
        order_separate=int(options.get("order_z", 0)),
        separate=options.get("force_separate_z"),
    )
