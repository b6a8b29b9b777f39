"""From logits at the network's spacing to a label map on the image's own grid, plane by plane.

Where classes are resampled linearly (nnU-Net's default), logits are taken slab by slab and never
held for the whole image; other rules want them whole. At the image's resolution only a few planes
are in memory, beside the labels so far: of one class, or of all where networks are averaged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.engine.sliding_window import Slab
from inference.errors import ModelError
from inference.nnunet import resampling
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration
from inference.nnunet.preprocessing import Prepared, Spacing, reordered
from inference.nnunet.resampling import Linear
from inference.nnunet.sliding_window import summed

CPU_VOXELS = 1 << 20  # at a time: what stays in the cache
GPU_VOXELS = 1 << 26
FEW_PLANES = 8
HALF = 0.5  # probability from which a region counts

Classes = Iterator[Tensor]
"""Some planes of the image's grid, class by class, each asked for once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Logits of one network, in slabs of the first axis, on `device`; `prepared` leads back."""

    slabs: Iterator[Slab]
    prepared: Prepared
    configuration: Configuration
    device: torch.device


def restored(
    answers: Sequence[Answer], labels: Labels, thresholds: Sequence[float] = ()
) -> NDArray[np.int16]:
    """The label map (z, y, x) of the whole image, of several answers by their mean probability.

    Answers with other transposed axes than the first are taken to its own before the mean.
    `thresholds`: a probability for each region; () for one half. Raises ModelError when the answers
    are not of one part of one image.
    """
    configuration = answers[0].configuration
    answers = [_on_axes(one, configuration.transpose_forward) for one in answers]
    prepared = answers[0].prepared
    if len({(one.prepared.cropped, one.prepared.whole) for one in answers}) > 1:
        raise ModelError("the networks did not see the same part of the image")
    found = torch.empty(prepared.cropped, dtype=torch.int16)
    ways = [_way(one) for one in answers]
    places = _places(answers, labels, ways)
    each = (_resampled(one, way, places) for one, way in zip(answers, ways, strict=True))
    for place, *parts in zip(places, *each, strict=True):
        found[place] = _decided(parts, labels, thresholds).cpu()
    whole = np.zeros(prepared.whole, np.int16)
    whole[prepared.box] = found.numpy()
    return whole.transpose(configuration.transpose_backward)


def _on_axes(answer: Answer, wanted: tuple[int, ...]) -> Answer:
    """An answer as if its network had the image's axes in this order; another's is held whole."""
    own = answer.configuration.transpose_forward
    if own == wanted:
        return answer
    order = tuple(own.index(axis) for axis in wanted)
    return replace(
        answer,
        slabs=_reordered(answer, order),
        prepared=reordered(answer.prepared, order),
    )


def _reordered(answer: Answer, order: tuple[int, ...]) -> Iterator[Slab]:
    logits = summed([answer.slabs], answer.prepared.data.shape[1:])
    yield Slab(start=0, scores=logits.permute(0, *(axis + 1 for axis in order)))


def _way(answer: Answer) -> Linear | None:
    """How classes are resampled a few planes at a time; None: a rule that wants them whole."""
    old, new = answer.prepared.data.shape[1:], answer.prepared.cropped
    return resampling.linear(
        old, new, answer.configuration.probabilities, **_grids(answer), device=answer.device
    )


def _grids(answer: Answer) -> Mapping[str, Spacing]:
    return {"spacing": answer.prepared.wanted, "wanted": answer.prepared.spacing}


def _places(
    answers: Sequence[Answer], labels: Labels, ways: Sequence[Linear | None]
) -> list[slice]:
    """The planes of the image's grid that are in memory at a time."""
    count, rows, columns = answers[0].prepared.cropped
    if len(answers) == 1 and ways[0] is None:
        return [slice(0, count)]
    voxels = CPU_VOXELS if answers[0].device.type == "cpu" else GPU_VOXELS
    classes = 1 if len(answers) == 1 else labels.heads
    step = max(1, min(voxels // (rows * columns * classes), *map(_thickness, answers)))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _thickness(answer: Answer) -> int:
    """Planes of the image's grid that are made of about a slab of the network's."""
    patch, planes = answer.configuration.patch, answer.prepared.data.shape[1]
    slab = patch[0] if len(patch) == answer.prepared.data.ndim - 1 else 1
    return int(max(slab, FEW_PLANES) * answer.prepared.cropped[0] // planes)


def _resampled(answer: Answer, way: Linear | None, places: Sequence[slice]) -> Iterator[Classes]:
    """The classes at each place."""
    if way is None:
        yield from _resampled_whole(answer, places)
        return
    held = Held(answer.slabs)
    for place in places:
        low, high = way.needed(place.start, place.stop)
        block = held.between(low, high)
        yield map(partial(way.part, start=place.start, stop=place.stop, first=low), block)


def _resampled_whole(answer: Answer, places: Sequence[slice]) -> Iterator[Classes]:
    prepared, rule = answer.prepared, answer.configuration.probabilities
    logits = summed([answer.slabs], prepared.data.shape[1:])
    classes = (
        torch.from_numpy(
            resampling.image(channel.cpu().numpy(), prepared.cropped, rule, **_grids(answer))
        )
        for channel in logits
    )
    if len(places) == 1:
        yield classes
        return
    kept = list(classes)
    for place in places:
        yield (channel[place] for channel in kept)


class Held:
    """The planes of slabs that are still needed: those of the last, and a few from before it."""

    def __init__(self, slabs: Iterator[Slab]) -> None:
        self._slabs = slabs
        self._last = next(slabs)
        self._before: Tensor | None = None  # planes up to the last slab's first

    def between(self, low: int, high: int) -> Tensor:
        """Logits (class, z, y, x) of planes low to high, both included; none before is needed."""
        while high >= self._last.start + self._last.scores.shape[1]:
            rest = self._from(low, self._last.scores.shape[1])
            self._before = rest.clone()  # (the next slab may lie in the same memory)
            self._last = next(self._slabs)
        return self._from(low, high + 1 - self._last.start)

    def _from(self, low: int, count: int) -> Tensor:
        """Planes from `low` to the last slab's first `count`."""
        scores, start = self._last.scores, self._last.start
        here = scores[:, max(low - start, 0) : count]
        if low >= start or self._before is None:
            return here
        return torch.cat([self._before[:, low - start :], here], dim=1)


def _decided(parts: Sequence[Classes], labels: Labels, thresholds: Sequence[float]) -> Tensor:
    """Labels of some planes: of one network by its logits, of several by probabilities."""
    order = labels.regions_order
    if order is None:
        return _competing(parts[0] if len(parts) == 1 else iter(_mean(parts, regions=False)))
    alone = (one.float().sigmoid() for one in parts[0]) if len(parts) == 1 else None
    likely = iter(_mean(parts, regions=True)) if alone is None else alone
    return _regions(likely, order, thresholds or (HALF,) * labels.heads)


def _mean(parts: Sequence[Classes], *, regions: bool) -> Tensor:
    """The mean of several networks' probabilities (class, z, y, x), in float32."""
    total: Tensor | None = None
    for classes in parts:
        logits = torch.stack(list(classes)).float()
        found = logits.sigmoid_() if regions else logits.softmax(dim=0)
        total = found if total is None else total.add_(found)
    if total is None:
        raise ValueError("nothing to average")
    return total.div_(len(parts))


def _competing(classes: Classes) -> Tensor:
    """The class with the largest logit or probability; of equal ones the first."""
    best = next(classes).clone()
    found = torch.zeros(best.shape, dtype=torch.int16, device=best.device)
    for index, channel in enumerate(classes, start=1):
        found.masked_fill_(channel > best, index)
        torch.maximum(best, channel, out=best)
    return found


def _regions(likely: Classes, values: Sequence[int], limits: Sequence[float]) -> Tensor:
    """Each region over those before it, where its probability is above its limit."""
    found: Tensor | None = None
    for channel, value, limit in zip(likely, values, limits, strict=True):
        if found is None:
            found = torch.zeros(channel.shape, dtype=torch.int16, device=channel.device)
        found.masked_fill_(channel > limit, value)
    if found is None:
        raise ValueError("a network has at least one region")
    return found
