"""A bare network on its device: the same answers with whatever memory allows, which is remembered.

When memory runs out fewer windows go at once, then sums of scores move to the host; smaller
windows are the last resort of one image, and `limits` says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from inference.arrays import windows
from inference.arrays.options import Options
from inference.engine import precision, sliding_window
from inference.engine.averaging import Mirrored
from inference.engine.device import Device
from inference.engine.effort import Effort, kept, lessened, limits, managed
from inference.engine.labelling import finite
from inference.engine.precision import Choice, Precision
from inference.engine.sliding_window import Slab
from inference.errors import ModelRefused
from inference.findings import Computation

Function = Callable[[Tensor], Any]
"""A network: (batch, channel, *space) of float32 to a tensor, or several in a list or by name."""
T = TypeVar("T")
PLANAR = 2
EXACT = Choice(precision=Precision.FLOAT32)


class Network(nn.Module):
    """A network of which one output is meant."""

    def __init__(self, function: Function, take: int | str) -> None:
        super().__init__()
        self.function = function
        self.take = take

    def forward(self, batch: Tensor) -> Tensor:
        """That output; raises ModelRefused when there is none."""
        return taken(self.function(batch), self.take)


class Runner:
    """A network with its options. `dimensions`: of what it is given at once, 2 or 3.

    `own`: how it computes, where that is not its device's and its choice's to say.
    """

    def __init__(
        self,
        network: Network,
        options: Options,
        dimensions: int,
        device: Device,
        choice: Choice = EXACT,
        own: Computation | None = None,
    ) -> None:
        self.choice = choice
        self._own = own or Computation(arithmetic=choice.precision.value, device=device.torch.type)
        self._options = options
        half = choice.precision is not Precision.FLOAT32
        if half:
            precision.prepared(network, device, dimensions)
        seen = Mirrored(network, options.input.mirror) if options.input.mirror else network
        self._predict = precision.predictor(seen, device, choice.precision, channels_last=half)
        self._device = device
        self._meant = windows.windows(options.window, dimensions, batch=device.windows)
        self._begun = Effort(windows=self._meant, on_host=device.torch.type == "cpu")
        self._used = self._effort = self._begun

    def scores(self, image: Tensor, use: Callable[[Iterator[Slab], int], T]) -> T:
        """What `use` makes of the network's scores in slabs, and of the axis of their planes.

        `image`: (channel, *space) of the network's grid. It may be used again with less memory.
        """

        def attempt(effort: Effort) -> T:
            axis = self._axis(image, effort)
            placed = image if effort.on_host else image.to(self._device.torch)
            predict = windows.on_grid(self._predict)
            found = windows.slabs(placed, predict, self._options, effort.windows, axis=axis)
            return use(found, axis)

        with torch.inference_mode():
            found, self._used = managed(attempt, self._effort)
        self._effort = kept(self._used, self._meant)
        return found

    def whole(self, image: Tensor) -> Tensor:
        """(channel, *space) of all scores, float32, on the host.

        Raises ModelError for scores that are no numbers.
        """
        found = self.scores(image, _joined)
        return found if image.ndim - 1 > PLANAR else found[:, 0]

    def vector(self, image: Tensor) -> Tensor:
        """All numbers of an answer to the whole image, float32, on the host."""
        options = self._options.input
        with torch.inference_mode():
            batch = windows.padded(image[None], options.multiple, options.pad_value)
            return self._predict(batch).to("cpu", torch.float32).reshape(-1)

    @property
    def computed(self) -> Computation:
        """How the last scores were."""
        return replace(self._own, lessened=lessened(self._used, self._begun))

    @property
    def limits(self) -> tuple[str, ...]:
        """What a person must know of how the last scores were computed."""
        return limits(self._used, self._meant)

    def _axis(self, image: Tensor, effort: Effort) -> int:
        space = image.shape[1:]
        if self._options.input.slicewise or len(space) == PLANAR or not self._options.window.size:
            return 0
        return sliding_window.longest_axis(space, effort.windows.fitted(space))


def at_once(options: Options) -> Options:
    """The same for a coarse network, which is shown all of an image."""
    return replace(
        options,
        window=type(options.window)(),
        input=replace(options.input, slicewise=False, mirror=()),
    )


def taken(answer: Any, which: int | str) -> Tensor:
    """The output that is meant; raises ModelRefused when there is none."""
    by_name = answer if isinstance(answer, Mapping) else {}
    if isinstance(which, str):
        found = by_name.get(which)
    else:
        several = isinstance(answer, Mapping | Sequence)
        outputs = list(by_name.values() if by_name else answer) if several else [answer]
        found = outputs[which] if which < len(outputs) else None
    if not isinstance(found, Tensor):
        raise ModelRefused(f"options.output.take: the network gives no output {which!r}")
    return found


def _joined(slabs: Iterable[Slab], axis: int) -> Tensor:
    return torch.cat([finite(slab).scores.to("cpu", copy=True) for slab in slabs], dim=axis + 1)
