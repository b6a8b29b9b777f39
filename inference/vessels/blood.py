"""Is contrast agent in the blood, how bright does it make it, and where are the largest vessels?

Evenly bright tissue that runs a long way along the body near its middle is blood with contrast
agent: a vertebra is as bright, but ends at its discs; bone is uneven.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.blocks import Densities, Spacing

Mask = NDArray[np.bool_]

CORE_MM = 8.0  # side of the cube that must be bright and even around a core's voxel
BRIGHT_HU = 100.0  # blood without contrast agent has 30 to 60
DENSEST_HU = 800.0
TISSUE_HU = 50.0
MUSCLE_HU = (20.0, 80.0)
EVEN_HU = 25.0  # least limit of one standard deviation in such a cube
UNEVEN = 1.5  # times the noise of muscle
LONG_MM = 50.0  # along the body; a vertebra's core is shorter
DEEP_MM = 30.0  # most of a large vessel is; the breastbone is not
DEEP_SHARE = 0.5
SHELL_MM = (5.0, 9.0)  # around a core: where a vertebra has its hard shell
HARDER_HU = 50.0
HARD_SHARE = 0.25  # of the shell that is harder than the core: then it is bone
MIDDLE_MM = 50.0  # from the body's midline
LARGE_SHARE = 0.7  # of the way from tissue to blood
BRIGHTER_HU = 250.0  # than blood: undiluted agent and its streaks
DENSE_HU = 250.0  # a core brighter than that is no vertebra, however short
LOOSER = 2.5  # limit of evenness beside an even core: chambers where blood mixes


@dataclass(frozen=True, slots=True, kw_only=True)
class Blood:
    """`level_hu`: median of the evidence; `cores`: inside of the largest vessels and the heart."""

    level_hu: float
    cores: Mask

    def within(self, box: tuple[slice, ...]) -> Self:
        """The same in a part of the image."""
        return replace(self, cores=self.cores[box])

    @property
    def half_hu(self) -> float:
        """Half-way between tissue and blood: a large vessel's border."""
        return (TISSUE_HU + self.level_hu) / 2

    @property
    def floor_hu(self) -> float:
        """What blood in a large vessel is at least."""
        return TISSUE_HU + LARGE_SHARE * (self.level_hu - TISSUE_HU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evenness:
    """Of the cube around each voxel: its darkest and brightest value, its standard deviation."""

    darkest: Densities
    brightest: Densities
    deviation: Densities


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What shows contrast agent: how much evenly bright tissue, its median; None without any."""

    even: Evenness
    limit_hu: float  # of evenness
    evidence_cm3: float
    level_hu: float | None


def evenness(hu: Densities, spacing: Spacing) -> Evenness:
    """Over cubes of about CORE_MM."""
    size = cube(spacing)
    mean = ndimage.uniform_filter(hu, size)
    variance = ndimage.uniform_filter(np.square(hu), size) - np.square(mean)
    return Evenness(
        darkest=ndimage.minimum_filter(hu, size),
        brightest=ndimage.maximum_filter(hu, size),
        deviation=np.sqrt(np.maximum(variance, 0)),
    )


def cube(spacing: Spacing) -> list[int]:
    """Cells along each axis, an odd number."""
    return [2 * max(1, round(CORE_MM / 2 / step)) + 1 for step in spacing]


def noise(even: Evenness, hu: Densities, inside: Mask) -> float:
    """One standard deviation in muscle and organs, HU: the tenth percentile over their cubes."""
    soft = inside & (hu > MUSCLE_HU[0]) & (hu < MUSCLE_HU[1]) & (even.darkest > -BRIGHT_HU)
    found = even.deviation[soft]
    return float(np.percentile(found, 10)) if found.size else 0.0


def signs(hu: Densities, inside: Mask, spacing: Spacing) -> Signs:
    """What there is to be seen of contrast agent.

    `hu`: about 2 mm, axes (towards head, back, left); `inside`: the body.
    """
    even = evenness(hu, spacing)
    limit = max(EVEN_HU, UNEVEN * noise(even, hu, inside))
    calm = inside & (even.deviation < limit) & (even.brightest < DENSEST_HU)
    evidence = _vessels(calm & (even.darkest > BRIGHT_HU), hu, inside, spacing)
    volume = float(np.count_nonzero(evidence) * np.prod(spacing) / 1000)
    return Signs(
        even=even,
        limit_hu=limit,
        evidence_cm3=volume,
        level_hu=float(np.median(hu[evidence])) if volume else None,
    )


def blood(hu: Densities, inside: Mask, seen: Signs, spacing: Spacing) -> Blood | None:
    """The largest vessels; None when nothing shows contrast agent. Arguments as of `signs`."""
    if seen.level_hu is None:
        return None
    even, level = seen.even, seen.level_hu
    floor = TISSUE_HU + LARGE_SHARE * (level - TISSUE_HU)
    cores = inside & (even.darkest > floor) & (even.brightest < level + BRIGHTER_HU)
    seeds = cores & (even.deviation < seen.limit_hu)
    if floor < DENSE_HU:  # a vertebra may be as bright
        seeds = cores = _vessels(seeds, hu, inside, spacing)
    beside = cores & (even.deviation < LOOSER * seen.limit_hu)
    return Blood(
        level_hu=level,
        cores=ndimage.binary_propagation(seeds, mask=beside),
    )


def _vessels(cores: Mask, hu: Densities, inside: Mask, spacing: Spacing) -> Mask:
    """The components that run along the body, deep and near its middle, and have no hard shell."""
    labels, count = ndimage.label(cores)
    kept = np.zeros(count + 1, np.bool_)
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    middle = float(columns.mean()) if columns.size else 0.0
    reach = [2 * max(1, round(DEEP_MM / step)) + 1 for step in spacing[1:]]
    deep = ndimage.minimum_filter(inside, (1, *reach))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if (box[0].stop - box[0].start) * spacing[0] >= LONG_MM:
            core = labels[box] == label
            column = float(core.nonzero()[2].mean()) + box[2].start
            central = abs(column - middle) * spacing[2] <= MIDDLE_MM
            kept[label] = (
                central
                and float(deep[box][core].mean()) > DEEP_SHARE
                and not _in_a_shell(labels, label, box, hu, spacing)
            )
    chosen: Mask = kept[labels]
    return chosen


def _in_a_shell(
    labels: NDArray[np.integer], label: int, box: tuple[slice, ...], hu: Densities, spacing: Spacing
) -> bool:
    margin = [int(SHELL_MM[1] / step) + 1 for step in spacing]
    wide = tuple(
        slice(max(0, part.start - extra), part.stop + extra)
        for part, extra in zip(box, margin, strict=True)
    )
    core = labels[wide] == label
    away = ndimage.distance_transform_edt(~core, sampling=spacing)
    around = hu[wide][(away > SHELL_MM[0]) & (away <= SHELL_MM[1])]
    level = float(np.median(hu[wide][core]))
    return bool(np.count_nonzero(around > level + HARDER_HU) > HARD_SHARE * around.size)


def large(hu: Densities, found: Blood, spacing: Spacing) -> Mask:
    """The cores grown back to their vessels' borders."""
    size = [side + 2 for side in cube(spacing)]
    near = ndimage.maximum_filter(found.cores, size)
    grown: Mask = near & (hu > found.half_hu)
    return grown
