"""Labels on the source's grid from slabs of scores on the network's, a few planes at a time.

The result is that of interpolating every class to full resolution and deciding there; where all
corners of a cell agree on a class, so does everything between them, and only the rest is computed.
Decisions on the network's grid are moved to the nearest voxels of the source.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inference.engine.resampling import Axes, Axis, Weights
from inference.engine.sliding_window import Slab
from inference.errors import ModelError

Cell = tuple[Weights, Weights, Weights]
"""Weights along the three axes of a block."""
BYTE = 256  # values of uint8
CHUNK_VOXELS = 4 << 20  # of the source's grid that one class has in memory at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """From scores to labels.

    `threshold` None: the largest class, (slice, row, column) of uint8 or int16 values; else every
    class whose score is at least that, or its own of several, (class, slice, row, column) of bool.
    `activation`: softmax, sigmoid or None. `interpolated`: scores go to the source's grid before
    the decision, else the decision does, to the nearest voxel. `least`: of the largest class, one a
    class; a smaller score is nobody's, whose value is the number of classes.
    """

    activation: str | None
    threshold: float | tuple[float, ...] | None
    interpolated: bool
    least: tuple[float, ...] = ()

    @property
    def scale_free(self) -> bool:
        """Scores multiplied by a positive number would give the same."""
        return self.threshold is None and not self.least and not self.interpolated

    def thresholds(self, classes: int) -> tuple[float, ...]:
        """One a class."""
        if isinstance(self.threshold, tuple):
            return self.threshold
        return () if self.threshold is None else (self.threshold,) * classes


def label(slabs: Iterable[Slab], grid: Axes, rule: Rule, *, axis: int) -> Tensor:
    """The labels that `rule` gives on the source's grid, on the CPU; axes as `Rule` says.

    `slabs`: scores on the network's grid in planes of its `axis`. Raises ModelError when one is not
    finite: no comparison with it would hold, so it would pass for background.
    """
    sink: _Sink | None = None
    decide = _interpolated if rule.interpolated else _nearest
    for start, labels in decide(map(finite, slabs), grid, rule, axis):
        sink = sink or _Sink(grid, axis, labels)
        sink.write(start, labels)
    if sink is None:
        raise RuntimeError("no slab was given")
    return sink.labels


def finite(slab: Slab) -> Slab:
    """The slab; raises ModelError for scores that are no numbers."""
    if not torch.isfinite(slab.scores.sum()):  # (finite scores are far too small to overflow)
        raise ModelError("the network's answer is not finite")
    return slab


class _Sink:
    """The labels of the source's grid, written in planes of an axis of the network's."""

    def __init__(self, grid: Axes, axis: int, first: Tensor) -> None:
        classes = first.shape[:-3]
        self.labels = torch.zeros((*classes, *grid.source_shape), dtype=first.dtype)
        order = [grid.axes[axis], *(a for i, a in enumerate(grid.axes) if i != axis)]
        lead = len(classes)
        turned = (*range(lead), *(lead + one.source for one in order))
        self._view = self.labels.permute(turned)
        self._planes = order[0]
        self._flipped = [lead + place for place, one in enumerate(order) if one.flipped]

    def write(self, start: int, labels: Tensor) -> None:
        """Planes from `start` on, in the order of the network's axis."""
        count = labels.shape[-3]
        if self._planes.flipped:
            start = self._planes.count - start - count
        place = self._view.narrow(self._view.ndim - 3, start, count)
        place.copy_(labels.flip(self._flipped) if self._flipped else labels)


def _activated(scores: Tensor, rule: Rule) -> Tensor:
    match rule.activation:
        case "softmax":
            return scores.softmax(dim=0)
        case "sigmoid":
            return scores.sigmoid()
        case _:
            return scores


def largest(scores: Tensor) -> Tensor:
    """The index of the largest along the first axis, the first of equals; uint8, or int16.

    A running maximum: torch.argmax over that axis is many times slower on a CPU.
    """
    return _running(iter(scores), (), classes=len(scores))


def _running(classwise: Iterator[Tensor], least: Sequence[float], *, classes: int) -> Tensor:
    """Which of the classes is the largest, or their number where that is below its `least`."""
    best = next(classwise).clone()
    dtype = torch.uint8 if classes + bool(least) <= BYTE else torch.int16
    found = torch.zeros(best.shape, dtype=dtype, device=best.device)
    for index, scores in enumerate(classwise, start=1):
        found.masked_fill_(scores > best, index)
        torch.maximum(best, scores, out=best)
    for index, needed in enumerate(least):
        found.masked_fill_((found == index) & (best < needed), classes)
    return found


def _across(grid: Axes, axis: int) -> tuple[Axis, list[Axis]]:
    return grid.axes[axis], [one for place, one in enumerate(grid.axes) if place != axis]


def _nearest(
    slabs: Iterable[Slab], grid: Axes, rule: Rule, axis: int
) -> Iterator[tuple[int, Tensor]]:
    along, (second, third) = _across(grid, axis)
    for slab in slabs:
        device = slab.scores.device
        scores = slab.scores.movedim(axis + 1, 1)
        chosen = decided(scores, rule)
        at = along.nearest(device)
        wanted = torch.nonzero((at >= slab.start) & (at < slab.start + scores.shape[1])).flatten()
        if wanted.numel() == 0:
            continue
        rows, columns = second.nearest(device), third.nearest(device)
        in_plane = chosen.index_select(-2, rows).index_select(-1, columns)
        yield int(wanted[0]), in_plane.index_select(-3, at[wanted] - slab.start)


def decided(scores: Tensor, rule: Rule) -> Tensor:
    """What `rule` says of scores (classes, *) where they are: labels, or a mask for each class."""
    if rule.threshold is None and not rule.least:  # (no activation changes which is the largest)
        return largest(scores)
    if rule.threshold is None:
        return _running(iter(_activated(scores, rule)), rule.least, classes=len(scores))
    if rule.activation == "softmax":  # (of all classes together; others need no second copy)
        scores, rule = _activated(scores, rule), replace(rule, activation=None)
    pairs = zip(scores, rule.thresholds(len(scores)), strict=True)
    return torch.stack([_activated(one, rule) >= threshold for one, threshold in pairs])


def _interpolated(
    slabs: Iterable[Slab], grid: Axes, rule: Rule, axis: int
) -> Iterator[tuple[int, Tensor]]:
    along, within = _across(grid, axis)
    before: Tensor | None = None  # the plane before the slab
    done = 0
    for slab in slabs:
        scores = slab.scores.movedim(axis + 1, 1)
        weights = along.from_network(scores.device)
        step = [one.from_network(scores.device) for one in within]
        planes = _Planes(slab.start, scores, before)
        ready = int((weights.high < slab.start + scores.shape[1]).sum())
        chunk = max(1, CHUNK_VOXELS // (within[0].count * within[1].count))
        for start in range(done, ready, chunk):
            stop = min(start + chunk, ready)
            block, first = planes.between(int(weights.low[start]), int(weights.high[stop - 1]))
            here = (weights.section(start, stop, first), step[0], step[1])
            yield start, _decide(_activated(block, rule), here, rule)
        done, before = max(done, ready), scores[:, -1:].clone()


@dataclass(frozen=True, slots=True)
class _Planes:
    """A slab and the plane before it."""

    start: int
    scores: Tensor
    before: Tensor | None

    def between(self, low: int, high: int) -> tuple[Tensor, int]:
        """Planes low to high, both included, and the index of the first of them."""
        here = self.scores[:, max(low - self.start, 0) : high - self.start + 1]
        if low < self.start and self.before is not None:
            return torch.cat([self.before, here], dim=1), self.start - 1
        return here, low


def _decide(block: Tensor, weights: Cell, rule: Rule) -> Tensor:
    """Labels of the source's planes from a block of activated scores (classes, planes, *, *)."""
    if rule.threshold is not None:
        pairs = zip(block, rule.thresholds(len(block)), strict=True)
        return torch.stack([_above(one, weights, threshold) for one, threshold in pairs])
    if rule.least:
        return _largest_between(block, weights, rule.least)
    if block.shape[0] == 2:
        return _exceeding(block[1] - block[0], weights).to(torch.uint8)
    return _filled(largest(block), weights, lambda part: _largest_between(block, part))


def _above(scores: Tensor, weights: Cell, threshold: float) -> Tensor:
    return _filled(scores >= threshold, weights, lambda part: _between(scores, part) >= threshold)


def _exceeding(difference: Tensor, weights: Cell) -> Tensor:
    return _filled(difference > 0, weights, lambda part: _between(difference, part) > 0)


def _between(scores: Tensor, weights: Cell) -> Tensor:
    """Linear interpolation of (planes, *, *), along one axis after the other."""
    for dimension, along in enumerate(weights):
        scores = along.apply(scores, dimension)
    return scores


def _largest_between(block: Tensor, weights: Cell, least: Sequence[float] = ()) -> Tensor:
    classwise = (_between(one, weights) for one in block)
    return _running(classwise, least, classes=len(block))


def _filled(decided: Tensor, weights: Cell, compute: Callable[[Cell], Tensor]) -> Tensor:
    """Decisions on the source's grid: `compute` inside the box around all mixed cells.

    `decided`: (planes, *, *) on the network's grid. A weighted mean of corners where one class
    leads everywhere is led by that class; outside the box every plane is like the first.
    """
    _, rows, columns = weights
    box = _mixed(decided)
    if box is None:
        return compute(weights)
    first = decided[0].index_select(0, rows.low).index_select(1, columns.low)
    found = first.expand(weights[0].low.numel(), -1, -1).clone()
    cells = decided.shape[1] - 1, decided.shape[2] - 1
    (top, bottom), (left, right) = (
        _points(along.low.clamp(max=last - 1), limits)
        for along, last, limits in zip((rows, columns), cells, box, strict=True)
    )
    if top < bottom and left < right:
        part = (weights[0], rows.section(top, bottom), columns.section(left, right))
        found[:, top:bottom, left:right] = compute(part)
    return found


def _mixed(decided: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row and column of cells whose corners differ, or (0, -1); None: too thin."""
    if min(decided.shape[1:]) < 2:
        return None
    values = decided.to(torch.int16)
    low, high = values.amin(0), values.amax(0)
    low = torch.minimum(low[1:], low[:-1])
    high = torch.maximum(high[1:], high[:-1])
    mixed = torch.minimum(low[:, 1:], low[:, :-1]) != torch.maximum(high[:, 1:], high[:, :-1])
    return _limits(mixed.any(1)), _limits(mixed.any(0))


def _limits(mixed: Tensor) -> tuple[int, int]:
    found = mixed.nonzero().flatten()
    return (int(found[0]), int(found[-1])) if found.numel() else (0, -1)


def _points(cells: Tensor, limits: tuple[int, int]) -> tuple[int, int]:
    """The range of points whose (rising) cells lie within the limits, both included."""
    first, last = limits
    return int((cells < first).sum()), int((cells <= last).sum())
