"""Trachea and main bronchi: a tube is followed through the slices, then grown without leaking.

The trachea is the longest chain of round, empty, mediastinal sections that ends between lungs.
From there the lumen grows at ever higher thresholds until it would explode into the lung (Mori et
al. 1996); an opening then cuts what is narrower than a main bronchus.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Blocks, Densities, Spacing
from inference.lungs.morphology import Mask, deeper, within

LUMEN_HU = -880
SECTION_MM2 = (40.0, 900.0)
LONGEST_ASPECT = 2.2
WALL_HU = -550  # around the trachea lies mediastinum, around a bronchus lung
SHORTEST_MM = 25.0
STEP_MM = 8.0  # how far the centre of a section may move to the next slice
GAP_MM = 6.0
LUNG_SECTION_MM2 = 3000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One cross-section of a tube: coarse slice, centre (row, column) in cells, its cells."""

    level: int
    centre: tuple[float, float]
    cells: tuple[NDArray[np.intp], NDArray[np.intp]]


Chain = tuple[Section, ...]


def trachea(hu: Densities, air: Mask, lung_air: Mask, spacing: Spacing) -> Chain:
    """The trachea's sections from the head down; empty when there is none.

    `air`: all air inside the body; `lung_air`: without the blobs that are surely no lung.
    """
    chains = [
        chain
        for chain in _chains(hu, air, spacing)
        if _length(chain, spacing) >= SHORTEST_MM and _ends_between_lungs(chain, lung_air, spacing)
    ]
    return max(chains, key=lambda chain: _length(chain, spacing), default=())


def _length(chain: Chain, spacing: Spacing) -> float:
    return (chain[0].level - chain[-1].level + 1) * spacing[0]


def _chains(hu: Densities, air: Mask, spacing: Spacing) -> list[Chain]:
    open_chains: list[list[Section]] = []
    done: list[list[Section]] = []
    for level in range(hu.shape[0] - 1, -1, -1):
        fresh = list(_sections(hu[level], air[level], level, spacing))
        for chain in open_chains:
            follower = _nearest(chain[-1], fresh, spacing)
            if follower is not None:
                fresh.remove(follower)
                chain.append(follower)
        ended = [c for c in open_chains if (c[-1].level - level) * spacing[0] > GAP_MM]
        done += ended
        open_chains = [c for c in open_chains if c not in ended] + [[s] for s in fresh]
    return [tuple(chain) for chain in done + open_chains]


def _nearest(last: Section, fresh: list[Section], spacing: Spacing) -> Section | None:
    near = [(distance, s) for s in fresh if (distance := _apart(last, s, spacing)) <= STEP_MM]
    return min(near, key=lambda pair: pair[0])[1] if near else None


def _apart(one: Section, other: Section, spacing: Spacing) -> float:
    return float(
        np.hypot(
            (one.centre[0] - other.centre[0]) * spacing[1],
            (one.centre[1] - other.centre[1]) * spacing[2],
        )
    )


def _sections(hu: Densities, air: Mask, level: int, spacing: Spacing) -> Iterator[Section]:
    cell = spacing[1] * spacing[2]
    labels, count = ndimage.label(air & (hu < LUMEN_HU))
    areas = np.bincount(labels.ravel(), minlength=count + 1) * cell
    boxes = ndimage.find_objects(labels)
    for label in range(1, count + 1):
        if SECTION_MM2[0] <= areas[label] <= SECTION_MM2[1]:
            box = boxes[label - 1]
            if _round(box, spacing) and _walled(hu, labels, label, box):
                rows, columns = np.nonzero(labels == label)
                centre = (float(rows.mean()), float(columns.mean()))
                yield Section(level=level, centre=centre, cells=(rows, columns))


def _round(box: tuple[slice, ...], spacing: Spacing) -> bool:
    height = (box[0].stop - box[0].start) * spacing[1]
    width = (box[1].stop - box[1].start) * spacing[2]
    return bool(max(height, width) <= LONGEST_ASPECT * min(height, width))


def _walled(hu: Densities, labels: NDArray[np.int32], label: int, box: tuple[slice, ...]) -> bool:
    around = tuple(slice(max(0, part.start - 4), part.stop + 4) for part in box)
    region = labels[around] == label
    ring = ndimage.binary_dilation(region, iterations=3) & ~ndimage.binary_dilation(region)
    return float(hu[around][ring].mean()) > WALL_HU


def _ends_between_lungs(chain: Chain, lung_air: Mask, spacing: Spacing) -> bool:
    last = chain[-1]
    weights = lung_air[last.level].sum(axis=0) * spacing[1] * spacing[2]
    column = int(last.centre[1])
    beside = float(weights[:column].sum()), float(weights[column + 1 :].sum())
    return sum(beside) > LUNG_SECTION_MM2


THRESHOLDS_HU = (-950, -925, -900, -875, -850, -825, -800)
EXPLOSION_MM3 = 12_000.0  # more than a threshold's step may add
LARGEST_MM3 = 150_000.0
ABOVE_MM, BELOW_MM, BESIDE_MM, BEHIND_MM = 50.0, 50.0, 65.0, 45.0  # around the trachea's end
BRONCHUS_RADIUS_MM = 2.5
EDGE_HU = -600  # between the lumen and its wall
REACH_MM = 70.0  # from the trachea's end to where a main bronchus has surely divided


def grown(hu: NDArray[np.generic], chain: Chain, grid: Blocks) -> Mask:
    """Trachea and main bronchi on the full grid; `hu` full, `chain` on the coarse grid."""
    lumen = np.zeros(grid.fine, np.bool_)
    box = _region(chain, grid)
    smooth = _smoothed(hu[box])
    seeds = _seeds(chain, grid, box) & (smooth < LUMEN_HU)
    spacing = _fine_spacing(grid)
    tree = _before_explosion(smooth, seeds, float(np.prod(spacing)))
    lumen[box] = _to_the_wall(_wide(tree, seeds, _end(chain, grid, box), spacing), smooth)
    _add_trachea(lumen, hu, chain, grid)
    return lumen


def _fine_spacing(grid: Blocks) -> Spacing:
    steps = [step / factor for step, factor in zip(grid.spacing, grid.factors, strict=True)]
    return (steps[0], steps[1], steps[2])


def _smoothed(hu: NDArray[np.generic]) -> Densities:
    smooth: Densities = ndimage.uniform_filter(hu.astype(np.float32), size=(1, 3, 3))
    return smooth


def _region(chain: Chain, grid: Blocks) -> tuple[slice, ...]:
    last = chain[-1]
    middle = (last.level, *last.centre)
    before = (BELOW_MM, BEHIND_MM, BESIDE_MM)
    after = (ABOVE_MM, BEHIND_MM, BESIDE_MM)
    cells = tuple(
        slice(max(0, int(at - low / step)), int(at + high / step) + 1)
        for at, low, high, step in zip(middle, before, after, grid.spacing, strict=True)
    )
    return grid.coarse_box(cells)


def _seeds(chain: Chain, grid: Blocks, box: tuple[slice, ...]) -> Mask:
    seeds = np.zeros([part.stop - part.start for part in box], np.bool_)
    for section in chain:
        for level in range(grid.fine[0])[grid.slices(section.level)]:
            if box[0].start <= level < box[0].stop:
                seeds[level - box[0].start] = _plane_of(section, grid)[box[1], box[2]]
    return seeds


def _plane_of(section: Section, grid: Blocks) -> Mask:
    cells = [-(-size // factor) for size, factor in zip(grid.fine, grid.factors, strict=True)]
    plane = np.zeros(cells[1:], np.bool_)
    plane[section.cells] = True
    return grid.plane(plane).astype(np.bool_)


def _end(chain: Chain, grid: Blocks, box: tuple[slice, ...]) -> tuple[float, float, float]:
    last = chain[-1]
    return (
        last.level * grid.factors[0] - box[0].start,
        last.centre[0] * grid.factors[1] - box[1].start,
        last.centre[1] * grid.factors[2] - box[2].start,
    )


def _before_explosion(smooth: Densities, seeds: Mask, voxel_mm3: float) -> Mask:
    tree, volume = seeds, float(seeds.sum()) * voxel_mm3
    for step, threshold in enumerate(THRESHOLDS_HU):
        wider = _reached(smooth < threshold, seeds)
        now = float(wider.sum()) * voxel_mm3
        if now > LARGEST_MM3 or (step > 0 and now - volume > EXPLOSION_MM3):
            break
        tree, volume = wider, now
    return tree


def _reached(open_space: Mask, seeds: Mask) -> Mask:
    labels, count = ndimage.label(open_space | seeds)
    hit = np.zeros(count + 1, np.bool_)
    hit[np.unique(labels[seeds])] = True
    hit[0] = False
    reached: Mask = hit[labels]
    return reached


def _wide(tree: Mask, seeds: Mask, end: tuple[float, float, float], spacing: Spacing) -> Mask:
    core = deeper(tree, BRONCHUS_RADIUS_MM, spacing)
    opened = tree & within(core, BRONCHUS_RADIUS_MM + max(spacing) / 2, spacing)
    axes = np.ogrid[tuple(slice(0, size) for size in tree.shape)]
    squared = sum(
        ((axis - at) * step) ** 2 for axis, at, step in zip(axes, end, spacing, strict=True)
    )
    return _reached(opened & (squared <= REACH_MM**2), seeds & tree)


def _to_the_wall(lumen: Mask, smooth: Densities) -> Mask:
    plus = ndimage.generate_binary_structure(2, 1)[None]
    near: Mask = ndimage.binary_dilation(lumen, plus) & (smooth < EDGE_HU)
    return near | lumen


def _add_trachea(lumen: Mask, hu: NDArray[np.generic], chain: Chain, grid: Blocks) -> None:
    """The trachea's sections above the grown region, on the full grid."""
    for section in chain:
        plane = ndimage.binary_dilation(_plane_of(section, grid), iterations=grid.factors[1])
        for level in range(grid.fine[0])[grid.slices(section.level)]:
            if not lumen[level].any():
                lumen[level] = plane & (_smoothed(hu[level : level + 1])[0] < EDGE_HU)
