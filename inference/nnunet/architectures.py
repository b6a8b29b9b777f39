"""The U-Nets that nnU-Net trains; the names of their parameters are those of its checkpoints.

Plain: convolution, dropout, normalisation, nonlinearity, twice a stage. Residual encoder: blocks
after ResNet-D (He et al., CVPR 2019), whose shortcut pools before it projects. Channels first:
(batch, channel, row, column) or (batch, channel, slice, row, column).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inference.errors import ModelRefused

Sizes = Sequence[int]
MakeModule = Callable[[], nn.Module]

CONVOLUTIONS: Mapping[str, type[nn.Module]] = {"Conv2d": nn.Conv2d, "Conv3d": nn.Conv3d}
UPWARDS: Mapping[str, type[nn.Module]] = {
    "Conv2d": nn.ConvTranspose2d,
    "Conv3d": nn.ConvTranspose3d,
}
POOLS: Mapping[str, type[nn.Module]] = {"Conv2d": nn.AvgPool2d, "Conv3d": nn.AvgPool3d}
DIMENSIONS = {"Conv2d": 2, "Conv3d": 3}
NORMS: Mapping[str, type[nn.Module]] = {
    "InstanceNorm2d": nn.InstanceNorm2d,
    "InstanceNorm3d": nn.InstanceNorm3d,
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
}
NONLINEARITIES: Mapping[str, type[nn.Module]] = {
    "LeakyReLU": nn.LeakyReLU,
    "ReLU": nn.ReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}
DROPOUTS: Mapping[str, type[nn.Module]] = {"Dropout2d": nn.Dropout2d, "Dropout3d": nn.Dropout3d}

PLAIN = "PlainConvUNet"
RESIDUAL_ENCODER = "ResidualEncoderUNet"
RESIDUAL = "ResidualUNet"
BLOCKS = {PLAIN: "n_conv_per_stage", RESIDUAL_ENCODER: "n_blocks_per_stage"}
BLOCKS[RESIDUAL] = BLOCKS[RESIDUAL_ENCODER]
ARGUMENTS = {
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "conv_bias",
    "n_conv_per_stage_decoder", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs",
    "nonlin", "nonlin_kwargs", "deep_supervision",
}  # fmt: skip
OPTIONAL = {PLAIN: {"nonlin_first"}, RESIDUAL_ENCODER: {"stem_channels"}}
OPTIONAL[RESIDUAL] = OPTIONAL[RESIDUAL_ENCODER]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a network is built of."""

    kind: str  # "Conv2d" or "Conv3d"
    bias: bool
    norm: Callable[[int], nn.Module] | None
    dropout: MakeModule | None
    nonlinearity: MakeModule | None
    nonlinearity_first: bool = False

    def sizes(self, value: int | Sizes) -> tuple[int, ...]:
        """One size a dimension."""
        return (value,) * DIMENSIONS[self.kind] if isinstance(value, int) else tuple(value)

    def convolution(
        self, channels: tuple[int, int], kernel: Sizes, stride: Sizes, *, bias: bool
    ) -> nn.Module:
        """A convolution whose padding keeps the size (before the stride)."""
        padding = tuple((size - 1) // 2 for size in kernel)
        return CONVOLUTIONS[self.kind](
            *channels, tuple(kernel), tuple(stride), padding=padding, bias=bias
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The sizes of a network, an entry a stage, the largest image first."""

    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder: tuple[int, ...]  # blocks of each stage on the way up, the smallest image first
    stem: int | None = None  # features of a residual encoder's first convolution


class Convolution(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity."""

    def __init__(
        self,
        parts: Parts,
        channels: tuple[int, int],
        kernel: Sizes,
        stride: Sizes,
        *,
        bias: bool | None = None,
        bare: bool = False,  # no dropout and no nonlinearity
    ) -> None:
        super().__init__()
        bias = parts.bias if bias is None else bias
        self.conv = parts.convolution(channels, kernel, stride, bias=bias)
        self.norm = None if parts.norm is None else parts.norm(channels[1])
        self.dropout = None if bare or parts.dropout is None else parts.dropout()
        self.nonlin = None if bare or parts.nonlinearity is None else parts.nonlinearity()
        after = (self.nonlin, self.norm) if parts.nonlinearity_first else (self.norm, self.nonlin)
        present = (module for module in (self.dropout, *after) if module is not None)
        self._after = tuple(present)  # a tuple, so that no parameter has two names

    def forward(self, image: Tensor) -> Tensor:
        image = self.conv(image)
        for module in self._after:
            image = module(image)
        return image


class Convolutions(nn.Module):
    """Several in a row; the first has the stride."""

    def __init__(
        self, parts: Parts, count: int, channels: tuple[int, int], kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        before, after = channels
        once = parts.sizes(1)
        self.convs = nn.Sequential(
            Convolution(parts, (before, after), kernel, stride),
            *(Convolution(parts, (after, after), kernel, once) for _ in range(count - 1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.convs(image)
        return found


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(
        self, parts: Parts, channels: tuple[int, int], kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        once = parts.sizes(1)
        self.conv1 = Convolution(parts, channels, kernel, stride)
        self.conv2 = Convolution(parts, (channels[1], channels[1]), kernel, once, bare=True)
        self.nonlin2 = nn.Identity() if parts.nonlinearity is None else parts.nonlinearity()
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(POOLS[parts.kind](tuple(stride), tuple(stride)))
        if channels[0] != channels[1]:
            shortcut.append(Convolution(parts, channels, once, once, bias=False, bare=True))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.nonlin2(self.conv2(self.conv1(image)) + self.skip(image))
        return found


class ResidualBlocks(nn.Module):
    """Several in a row; the first has the stride."""

    def __init__(
        self, parts: Parts, count: int, channels: tuple[int, int], kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        before, after = channels
        once = parts.sizes(1)
        self.blocks = nn.Sequential(
            ResidualBlock(parts, (before, after), kernel, stride),
            *(ResidualBlock(parts, (after, after), kernel, once) for _ in range(count - 1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.blocks(image)
        return found


class Encoder(nn.Module):
    """The way down; a residual encoder has a stem."""

    def __init__(self, parts: Parts, stages: Stages, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.stem: nn.Module | None = None
        if residual:
            stem = stages.features[0] if stages.stem is None else stages.stem
            kernel, once = stages.kernels[0], parts.sizes(1)
            self.stem = Convolutions(parts, 1, (channels, stem), kernel, once)
            channels = stem
        found: list[nn.Module] = []
        for through in pairwise((channels, *stages.features)):
            place = len(found)
            sizes = (stages.blocks[place], through, stages.kernels[place], stages.strides[place])
            if residual:
                found.append(ResidualBlocks(parts, *sizes))
            else:
                found.append(nn.Sequential(Convolutions(parts, *sizes)))
        self.stages = nn.Sequential(*found)

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.stem is not None:
            image = self.stem(image)
        found = []
        for stage in self.stages:
            image = stage(image)
            found.append(image)
        return found


class Decoder(nn.Module):
    """The way up; only the last of the layers that give logits is used once training is over."""

    def __init__(self, parts: Parts, stages: Stages, classes: int, *, residual: bool) -> None:
        super().__init__()
        block = ResidualBlocks if residual else Convolutions
        once = parts.sizes(1)
        upwards, found, logits = [], [], []
        for place, count in enumerate(stages.decoder):
            below, beside = stages.features[-1 - place], stages.features[-2 - place]
            stride = stages.strides[-1 - place]
            upwards.append(
                UPWARDS[parts.kind](below, beside, tuple(stride), tuple(stride), bias=parts.bias)
            )
            kernel = stages.kernels[-2 - place]
            found.append(block(parts, count, (2 * beside, beside), kernel, once))
            logits.append(parts.convolution((beside, classes), once, once, bias=True))
        self.stages = nn.ModuleList(found)
        self.transpconvs = nn.ModuleList(upwards)
        self.seg_layers = nn.ModuleList(logits)

    def forward(self, skips: list[Tensor]) -> Tensor:
        image = skips[-1]
        for upward, stage, beside in zip(
            self.transpconvs, self.stages, reversed(skips[:-1]), strict=True
        ):
            image = stage(torch.cat((upward(image), beside), 1))
        logits: Tensor = self.seg_layers[-1](image)
        return logits


class UNet(nn.Module):
    """Logits (batch, class, ...) of an image whose sizes the strides divide."""

    def __init__(
        self, parts: Parts, stages: Stages, channels: int, classes: int, *, network: str
    ) -> None:
        super().__init__()
        self.encoder = Encoder(parts, stages, channels, residual=network != PLAIN)
        self.decoder = Decoder(parts, stages, classes, residual=network == RESIDUAL)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


def build(network: str, arguments: Mapping[str, Any], *, channels: int, classes: int) -> UNet:
    """A network with random weights, as the plans describe it; in evaluation mode.

    `network`: network_class_name, of which the last part counts; `arguments`: arch_kwargs. Raises
    ModelRefused for another network, or arguments that are not known, missing or do not fit.
    """
    name = network.rpartition(".")[2]
    if name not in BLOCKS:
        raise ModelRefused(f"the network {network} is not known: {', '.join(BLOCKS)} are")
    known = ARGUMENTS | OPTIONAL[name] | {BLOCKS[name]}
    unknown = sorted(
        key for key, value in arguments.items() if key not in known and value is not None
    )
    if unknown:
        raise ModelRefused(f"{name} with {', '.join(unknown)} is not known")
    try:
        parts = _parts(arguments)
        stages = _stages(parts, arguments, blocks=BLOCKS[name])
        return UNet(parts, stages, channels, classes, network=name).eval()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelRefused(f"{name} cannot be built of the plans' arch_kwargs: {error}") from error


def _parts(arguments: Mapping[str, Any]) -> Parts:
    norm = _named(NORMS, arguments["norm_op"])
    norm_options = arguments.get("norm_op_kwargs") or {}
    return Parts(
        kind=_required(CONVOLUTIONS, arguments["conv_op"]),
        bias=arguments["conv_bias"],
        norm=None if norm is None else lambda features: norm(features, **norm_options),
        dropout=_factory(DROPOUTS, arguments["dropout_op"], arguments.get("dropout_op_kwargs")),
        nonlinearity=_factory(NONLINEARITIES, arguments["nonlin"], arguments.get("nonlin_kwargs")),
        nonlinearity_first=arguments.get("nonlin_first", False),
    )


def _required(choices: Mapping[str, type[nn.Module]], path: object) -> str:
    name = str(path).rpartition(".")[2]
    if name not in choices:
        raise ValueError(f"{path} is none of {', '.join(choices)}")
    return name


def _named(choices: Mapping[str, type[nn.Module]], path: str | None) -> type[nn.Module] | None:
    return None if path is None else choices[_required(choices, path)]


def _factory(
    choices: Mapping[str, type[nn.Module]], path: str | None, options: Mapping[str, Any] | None
) -> MakeModule | None:
    module = _named(choices, path)
    return None if module is None else lambda: module(**(options or {}))


def _stages(parts: Parts, arguments: Mapping[str, Any], *, blocks: str) -> Stages:
    count = arguments["n_stages"]
    return Stages(
        features=_each(arguments["features_per_stage"], count),
        kernels=tuple(map(parts.sizes, _each(arguments["kernel_sizes"], count))),
        strides=tuple(map(parts.sizes, _each(arguments["strides"], count))),
        blocks=_each(arguments[blocks], count),
        decoder=_each(arguments["n_conv_per_stage_decoder"], count - 1),
        stem=arguments.get("stem_channels"),
    )


def _each(value: Any, count: int) -> tuple[Any, ...]:
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} stages")
    return values
