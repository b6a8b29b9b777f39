"""A trained nnU-Net and its answer to an image: a label map on the image's own grid.

Arrays are (z, y, x) as nnU-Net's reader would give them, spacings mm along the same axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.errors import ModelError, ModelRefused
from inference.nnunet import sliding_window
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared, prepare
from inference.nnunet.restoration import restored
from inference.nnunet.sliding_window import Windows

Parameters = Mapping[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.")  # of networks that were trained on several devices, compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network with the parameters of each fold; the mean of their logits is the answer."""

    configuration: Configuration
    labels: Labels
    network: nn.Module
    folds: tuple[Parameters, ...]
    windows: Windows
    thresholds: tuple[float, ...] = ()  # a probability for each region; (): one half

    def with_thresholds(self, thresholds: tuple[float, ...]) -> Self:
        """The same with other thresholds."""
        return replace(self, thresholds=thresholds)


def parameters(saved: Mapping[str, Any], *, name: str) -> Parameters:
    """The tensors of a state dict under their plain names, each once.

    nnU-Net registers a convolution's parts twice and its encoder in the decoder again.
    """
    found = {}
    for key, value in saved.items():
        for wrapper in WRAPPERS:
            key = key.removeprefix(wrapper)  # noqa: PLW2901  (one name, shortened)
        if ".all_modules." in key or key.startswith("decoder.encoder."):
            continue
        if not isinstance(value, Tensor):
            raise ModelRefused(f"{name}: {key} is no tensor")
        found[key] = value
    return found


def fit(network: nn.Module, found: Parameters, *, name: str) -> None:
    """Load parameters, all of them and no others; raises ModelRefused when they do not fit."""
    own = network.state_dict()
    odd = sorted(found.keys() ^ own.keys())
    odd += sorted(key for key in found.keys() & own.keys() if found[key].shape != own[key].shape)
    if odd:
        raise ModelRefused(
            f"{name}: {len(odd)} of its weights do not fit the network of the plans: {odd[0]}"
        )
    network.load_state_dict(dict(found))


def segment(
    stages: Sequence[Trained],
    images: Sequence[NDArray[Any]],
    spacing: tuple[float, ...],
    *,
    device: torch.device,
) -> NDArray[np.int16]:
    """The label map of images on one grid, a stage of a cascade after the other.

    Raises InputRefused when the image is not what the model wants, ModelError when it fails.
    """
    found: NDArray[np.int16] | None = None
    for stage in stages:
        prepared = prepare(
            images, spacing, stage.configuration, labels=stage.labels, previous=found
        )
        found = restored(
            logits(stage, prepared, device=device),
            prepared,
            stage.configuration,
            stage.labels,
            stage.thresholds,
        )
        if found.shape != np.shape(images[0]):
            raise ModelError("the labels are not on the grid of the image")
    if found is None:
        raise ValueError("a model has at least one stage")
    return found


@torch.inference_mode()
def logits(trained: Trained, prepared: Prepared, *, device: torch.device) -> Tensor:
    """The mean over the folds (class, z, y, x), half precision, at the network's spacing."""
    data = torch.from_numpy(prepared.data)
    summed: Tensor | None = None
    for fold in trained.folds:
        trained.network.load_state_dict(dict(fold))
        found = sliding_window.predict(
            trained.network, data, trained.windows, classes=trained.labels.heads, device=device
        )
        summed = found if summed is None else summed.add_(found)
    if summed is None:
        raise ValueError("a network has at least one fold")
    return summed / len(trained.folds) if len(trained.folds) > 1 else summed
