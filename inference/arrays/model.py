"""A bare network with its options as a model: from an image to findings on the image's own grid.

The steps are the options' in their order: turn, look for the place, resample, scale, pad, run,
activate, cut, back to the source's grid, decide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.arrays import answers, intensity, keypoints, results, segmentation, windows
from inference.arrays.options import Locate, Options
from inference.arrays.placement import Placement
from inference.description import Description, Task
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.requirements import Requirements

Array = NDArray[np.generic]
Function = Callable[[Tensor], Any]
"""A network: (1, channel, *space) of float32 to a tensor, or several in a list or by name."""
COLOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An image as arrays: its channels on one grid, and that grid.

    `affine`: index to LPS mm; None for a planar image; `spacing`: mm; None when it is not known.
    """

    channels: tuple[Array, ...]
    affine: NDArray[np.float64] | None
    spacing: tuple[float, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.channels[0].shape


def seen(image: Image | PlanarImage, roles: Sequence[str]) -> Seen:
    """The arrays of an image, in the order of `roles`; raises ModelRefused for a role it lacks."""
    if isinstance(image, PlanarImage):
        pixels = image.pixels
        colours = pixels.shape[-1] if pixels.ndim == COLOURS else 0
        channels = tuple(pixels[..., index] for index in range(colours)) or (pixels,)
        return Seen(channels=channels, affine=None, spacing=image.spacing)
    missing = [role for role in roles if role not in image.roles]
    if missing:
        raise ModelRefused(f"no series has the role {', '.join(missing)}")
    volumes = [image.roles[role] for role in roles] or [image.volume]
    return Seen(
        channels=tuple(volume.array for volume in volumes),
        affine=np.asarray(image.volume.affine, np.float64),
        spacing=tuple(float(step) for step in image.volume.spacing),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayModel:
    """See the module. `network` and, for `options.locate`, `locator` are on `device`."""

    requirements: Requirements
    description: Description
    options: Options
    network: Function
    locator: Function | None = None
    device: str = "cpu"

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the network finds; refused when the coarse network finds no place to look at."""
        arrays = seen(image, self.description.roles)
        placement = self._placement(arrays)
        if placement is None:
            words = "the coarse network found nothing to look at"
            return Findings(
                verdict=Verdict.NOT_ANALYSED, reason=words, limitations=self.description.limits
            )
        channels = self._run(self.network, self._input(arrays, placement))
        return TASKS[self.description.task](self, image, placement, channels)

    def _placement(self, arrays: Seen) -> Placement | None:
        whole = Placement.whole(
            arrays.shape, affine=arrays.affine, orientation=self.options.input.orientation
        )
        if self.options.input.spacing and arrays.spacing is None:
            raise ModelRefused("options.input.spacing: this image states no spacing")
        locate = self.options.locate
        found = whole if locate is None else self._located(arrays, whole, locate)
        return found and found.resized(
            source_spacing=arrays.spacing or (),
            spacing=self.options.input.spacing,
            size=self.options.input.size,
        )

    def _located(self, arrays: Seen, whole: Placement, locate: Locate) -> Placement | None:
        coarse = whole.resized(source_spacing=(), spacing=(), size=locate.size)
        if self.locator is None:
            raise ModelRefused("options.locate: no network")
        found = self._whole(self.locator, self._input(arrays, coarse))
        if locate.channel >= found.shape[0]:
            raise ModelRefused(
                f"options.locate.channel: the network gives {found.shape[0]} channels"
            )
        mask = segmentation.largest(found[locate.channel].numpy() > locate.threshold)
        if not mask.any():
            return None
        return whole.within(box(mask, whole.shape, margin=locate.margin, filled=locate.filled))

    def _input(self, arrays: Seen, placement: Placement) -> Tensor:
        """(channel, *space) of the network's grid."""
        options = self.options.input
        channels = [
            intensity.scaled(
                placement.seen(array, options.interpolation),
                intensity.limits(array, options),
                options,
            )
            for array in arrays.channels
        ]
        wanted = options.channels if len(channels) in (1, COLOURS) else len(channels)
        wanted = len(channels) if self.description.roles else wanted
        return intensity.shifted(intensity.coloured(channels, wanted), options)

    def _run(self, network: Function, channels: Tensor) -> Tensor:
        """(channel, *space), or a vector, of what the network says."""
        if not self.options.input.slicewise:
            return self._whole(network, channels, windowed=True)
        planes = [
            self._whole(network, channels[:, index], windowed=True)
            for index in range(channels.shape[1])
        ]
        return torch.stack(planes, dim=1)

    def _whole(self, network: Function, channels: Tensor, *, windowed: bool = False) -> Tensor:
        options = self.options
        space = channels.shape[1:]
        batch = windows.padded(channels[None], options.input.multiple, options.input.pad_value)
        window = options.window if windowed else type(options.window)()
        found = windows.run(
            lambda part: taken(network(part), options.output.take),
            batch.to(self.device),
            window,
        ).to("cpu", torch.float32)
        if self.description.task is not Task.REGRESSION and not torch.isfinite(found).all():
            raise ModelError("the network's answer is not finite")
        if self.description.task in (Task.CLASSIFICATION, Task.REGRESSION) and windowed:
            return found.reshape(-1)
        return _on_grid(found, batch.shape[2:], space)


def _on_grid(found: Tensor, grid: Sequence[int], space: Sequence[int]) -> Tensor:
    """(channel, *space); an output that is not on the input's grid is refused."""
    if found.ndim == len(grid) + 1:  # a label map without the axis of its channel
        found = found[:, None]
    if tuple(found.shape[2:]) != tuple(grid) or found.shape[0] != 1:
        raise ModelRefused(
            f"the network answers {tuple(found.shape)} to {tuple(grid)} voxels; allowed: a channel "
            "first, then the same voxels"
        )
    return windows.cut(found, space)[0]


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


def box(
    mask: NDArray[np.bool_], shape: Sequence[int], *, margin: float, filled: float
) -> tuple[tuple[int, int], ...]:
    """The box of a coarse mask in voxels of `shape`, grown by `margin` of its size on each side.

    It spans the planes of which more than the fraction `filled` is mask, else all that has any.
    """
    found = []
    for axis, count in enumerate(shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        fractions = mask.mean(axis=others)
        planes = np.flatnonzero(fractions > min(filled, float(fractions.max()) / 2))
        first, last = float(planes[0]), float(planes[-1] + 1)
        step, grown = count / mask.shape[axis], (last - first) * margin
        start, stop = round((first - grown) * step), round((last + grown) * step)
        found.append((max(0, start), min(count, max(stop, start + 1))))
    return tuple(found)


def _segmentation(
    model: ArrayModel, image: Image | PlanarImage, placement: Placement, channels: Tensor
) -> Findings:
    found = segmentation.masks(channels, placement, model.description, model.options.output)
    return results.segmented(image, model.description, found)


def _keypoints(
    model: ArrayModel, image: Image | PlanarImage, placement: Placement, channels: Tensor
) -> Findings:
    found = (
        (label, replace(top, place=placement.source_index(top.place)))
        for label, top in keypoints.peaks(channels, model.description, model.options.output)
    )
    return results.pointed(image, model.description, found)


def _classes(
    model: ArrayModel, _image: Image | PlanarImage, _placement: Placement, outputs: Tensor
) -> Findings:
    likely = answers.probabilities(outputs, model.description, model.options.output)
    found = answers.classifications(likely, model.description, model.options.output)
    nameless = answers.nameless(likely, model.description)
    return Findings(
        verdict=Verdict.MEASURED,
        classifications=tuple(found),
        limitations=(*model.description.limits, *nameless),
    )


def _numbers(
    model: ArrayModel, _image: Image | PlanarImage, _placement: Placement, outputs: Tensor
) -> Findings:
    found = answers.measurements(outputs, model.description, model.options.output)
    return Findings(
        verdict=Verdict.MEASURED,
        measurements=tuple(found),
        limitations=model.description.limits,
    )


TASKS: Mapping[Task, Callable[[ArrayModel, Image | PlanarImage, Placement, Tensor], Findings]] = {
    Task.SEGMENTATION: _segmentation,
    Task.KEYPOINTS: _keypoints,
    Task.CLASSIFICATION: _classes,
    Task.REGRESSION: _numbers,
}
