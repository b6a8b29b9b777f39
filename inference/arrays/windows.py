"""What a network says of an image, some planes at a time: windows, single planes, or all at once.

Images are (channel, *space) of the network's grid; the planes of a slab are of a grid with three
axes, that of a planar image with one plane.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inference.arrays.options import Options, Window
from inference.engine import sliding_window
from inference.engine.sliding_window import Predict, Slab, Windows
from inference.errors import ModelRefused

SIGMA = 0.125  # of a window, as MONAI has it


def windows(window: Window, dimensions: int, *, batch: int) -> Windows:
    """The options' windows for a network of so many dimensions; without a size, all at once."""
    return Windows(
        size=window.size or (0,) * dimensions,
        overlap=(window.overlap,) * dimensions,
        gaussian=window.weight == "gaussian",
        sigma_scale=(SIGMA,) * dimensions,
        batch=batch,
    )


def slabs(
    image: Tensor, predict: Predict, options: Options, effort: Windows, *, axis: int
) -> Iterator[Slab]:
    """Scores (class, *three axes) of an image in planes of `axis`, in rising order, float32.

    A network for planes is asked about each along the first axis, which `axis` then is. Raises
    ModelRefused when the network's answer has not the image's voxels.
    """
    space = tuple(image.shape[1:])
    if options.input.slicewise:
        found = _planes(image.transpose(0, 1), predict, options, effort)
    elif image.ndim == len(("channel", "row", "column")):
        found = _planes(image[None], predict, options, effort)
        space = (1, *space)
    else:
        whole = padded(image[None], options.input.multiple, options.input.pad_value)[0]
        found = _whole(whole, predict, options.window, effort, axis=axis)
    for slab in found:
        planes = min(slab.scores.shape[axis + 1], space[axis] - slab.start)
        if planes > 0:
            kept = tuple(planes if one == axis else count for one, count in enumerate(space))
            yield Slab(start=slab.start, scores=cut(slab.scores[None], kept)[0])


def _whole(
    image: Tensor, predict: Predict, window: Window, effort: Windows, *, axis: int
) -> Iterator[Slab]:
    if not window.size:
        return iter([Slab(start=0, scores=predict(image[None])[0].float())])
    return sliding_window.slabs(image, predict, effort, axis=axis)


def _planes(planes: Tensor, predict: Predict, options: Options, effort: Windows) -> Iterator[Slab]:
    """Of (plane, channel, row, column)."""
    space = planes.shape[2:]
    whole = padded(planes, options.input.multiple, options.input.pad_value)
    if not options.window.size:
        for start in range(0, len(whole), effort.batch):
            scores = predict(whole[start : start + effort.batch]).float()
            yield Slab(start=start, scores=cut(scores, space).transpose(0, 1))
        return
    for start, plane in enumerate(whole):
        rows = sliding_window.slabs(plane, predict, effort, axis=0)
        scores = torch.cat([slab.scores.clone() for slab in rows], dim=1)
        yield Slab(start=start, scores=cut(scores[None], space)[0][:, None])


def on_grid(predict: Callable[[Tensor], Tensor]) -> Predict:
    """A network whose answer has the voxels of its input, or is refused.

    A label map without the axis of its channel is given one.
    """

    def checked(batch: Tensor) -> Tensor:
        found = predict(batch)
        if found.ndim == batch.ndim - 1:
            found = found[:, None]
        if found.shape[2:] != batch.shape[2:] or found.shape[0] != batch.shape[0]:
            raise ModelRefused(
                f"the network answers {tuple(found.shape)} to {tuple(batch.shape[2:])} voxels; "
                "allowed: a channel first, then the same voxels"
            )
        return found

    return checked


def padded(channels: Tensor, multiple: int, value: float) -> Tensor:
    """(batch, channel, *space), grown at the end of each axis to a multiple of `multiple`."""
    space = channels.shape[2:]
    growth = [-count % multiple for count in space]
    if not any(growth):
        return channels
    ends = [end for grown in reversed(growth) for end in (0, grown)]
    return functional.pad(channels, ends, value=value)


def cut(channels: Tensor, space: Sequence[int]) -> Tensor:
    """The first voxels of each axis of (batch, channel, *space): undoes `padded`."""
    for axis, count in enumerate(space, start=2):
        channels = channels.narrow(axis, 0, count)
    return channels
