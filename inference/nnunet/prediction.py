"""A trained nnU-Net and its answer to an image: a label map on the image's own grid.

Arrays are (z, y, x) as nnU-Net's reader would give them, spacings mm along the same axes. Networks
run on a device window by window, logits go to the image's grid slab by slab. When memory runs out,
fewer windows go at once, then image and sums stay on the host; the patch is the plans' own and is
never made smaller, since the network would answer otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.engine import effort, precision
from inference.engine.averaging import Mirrored
from inference.engine.device import Device
from inference.engine.effort import first_that_fits
from inference.engine.precision import Choice, Precision
from inference.engine.sliding_window import Predict, Slab
from inference.errors import ModelError
from inference.findings import Computation
from inference.nnunet import sliding_window
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared, prepare
from inference.nnunet.restoration import Answer, restored
from inference.nnunet.sliding_window import Windows

Labelled = NDArray[np.int16]
HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network for each fold; the mean of their logits is the answer."""

    configuration: Configuration
    labels: Labels
    folds: tuple[nn.Module, ...]
    windows: Windows
    thresholds: tuple[float, ...] = ()  # a probability for each region; (): one half

    def with_thresholds(self, thresholds: tuple[float, ...]) -> Self:
        """The same with other thresholds."""
        return replace(self, thresholds=thresholds)


Member = tuple[Trained, ...]
"""The stages of a cascade in their order, or one network; of an ensemble, one of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is in memory at once. `on_host`: image and sums of logits are not on the device."""

    batch: int  # windows
    on_host: bool


def efforts(device: Device) -> tuple[Effort, ...]:
    """What is tried in turn when memory runs out, the largest first."""
    batches = [device.windows]
    while batches[-1] > 1:
        batches.append(batches[-1] // 2)
    tried = [Effort(batch=batch, on_host=device.torch == HOST) for batch in batches]
    return tuple(dict.fromkeys((*tried, Effort(batch=1, on_host=True))))


def lessened(used: Sequence[Effort], meant: Effort) -> str:
    """What gave other bits than the effort that is meant, in words; "" for nothing.

    `used`: of the stages of cascades before the last, then of what gave the labels.
    """
    words = [
        effort.words(
            fewer=0 if one.batch == meant.batch else one.batch,
            on_host=one.on_host and not meant.on_host,
        )
        for one in used
    ]
    if len({*words}) <= 1:
        return next(iter(words), "")
    return "; ".join(f"step {step}: {said}" for step, said in enumerate(words, 1) if said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A trained network on its device, a function for each fold."""

    trained: Trained
    predict: tuple[Predict, ...]

    def prepared(
        self, images: Sequence[NDArray[Any]], spacing: tuple[float, ...], before: Labelled | None
    ) -> Prepared:
        """Its input; `before`: the labels of the stage before. Raises InputRefused."""
        configuration, labels = self.trained.configuration, self.trained.labels
        return prepare(images, spacing, configuration, labels=labels, previous=before)

    def slabs(self, prepared: Prepared, holding: torch.device, batch: int) -> Iterator[Slab]:
        """The mean of the folds' logits, in planes of the first axis, on `holding`."""
        data, windows = torch.from_numpy(prepared.data).to(holding), self.trained.windows
        runs = [
            sliding_window.slabs(data, predict, windows, batch=batch) for predict in self.predict
        ]
        return sliding_window.averaged(runs, data.shape[1:], windows)


def placed(trained: Trained, device: Device, arithmetic: Precision) -> Placed:
    """The networks on a device: channels last in half precision, else as the package has them."""
    half = arithmetic is not Precision.FLOAT32

    def predictor(network: nn.Module) -> Predict:
        if half:
            network = precision.prepared(network, device, len(trained.windows.patch))
        else:
            network = network.to(device.torch).eval()
        axes = trained.windows.mirrored
        network = Mirrored(network, axes) if axes else network
        return precision.predictor(network, device, arithmetic, channels_last=half)

    return Placed(trained=trained, predict=tuple(map(predictor, trained.folds)))


class Segmenter:
    """A model on its device. What memory allows is remembered from image to image."""

    def __init__(self, members: Sequence[Member], device: Device, choice: Choice) -> None:
        self.members = tuple(members)
        self.choice = choice
        self._device = device
        self._placed = [
            [placed(stage, device, choice.precision) for stage in member] for member in members
        ]
        self._efforts = efforts(device)
        self._meant = self._efforts[0]
        self._used: list[Effort] = []

    @property
    def computed(self) -> Computation:
        """How the labels of the last images were."""
        return Computation(
            arithmetic=self.choice.precision.value,
            device=self._device.torch.type,
            lessened=lessened(self._used, self._meant),
        )

    @torch.inference_mode()
    def segment(self, images: Sequence[NDArray[Any]], spacing: tuple[float, ...]) -> Labelled:
        """The label map of images on one grid, of several members by their mean probability.

        Raises InputRefused when the image is not what the model wants, ModelError when it fails.
        """
        self._used = []
        ready = [self._ready(member, images, spacing) for member in self._placed]
        found = self._labels(ready)
        if found.shape != np.shape(images[0]):
            raise ModelError("the labels are not on the grid of the image")
        return found

    def _ready(
        self,
        member: Sequence[Placed],
        images: Sequence[NDArray[Any]],
        spacing: tuple[float, ...],
    ) -> tuple[Placed, Prepared]:
        """The last stage of a cascade with its input, for which those before it have run."""
        found: Labelled | None = None
        for stage in member[:-1]:
            found = self._labels([(stage, stage.prepared(images, spacing, found))])
        return member[-1], member[-1].prepared(images, spacing, found)

    def _labels(self, ready: Sequence[tuple[Placed, Prepared]]) -> Labelled:
        def run(one: Effort) -> Labelled:
            holding = HOST if one.on_host else self._device.torch
            answers = [
                Answer(
                    slabs=stage.slabs(prepared, holding, one.batch),
                    prepared=prepared,
                    configuration=stage.trained.configuration,
                    device=holding,
                )
                for stage, prepared in ready
            ]
            first = ready[0][0].trained
            return restored(answers, first.labels, first.thresholds)

        found, used = first_that_fits(run, self._efforts)
        self._efforts = self._efforts[self._efforts.index(used) :]
        self._used.append(used)
        return found
