"""A chest drawn in Hounsfield units from ellipsoids and tubes; equal numbers, equal chests.

Patient coordinates in LPS millimetres, the origin in the middle of the chest, `axes` the positions
of the voxel centres along head-foot, back-front and left-right: (z, y, x), each ascending.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Axes = tuple[Floats, Floats, Floats]
Box = tuple[slice, slice, slice]

AIR, FAT, TISSUE, BLOOD, SPONGY_BONE, CORTICAL_BONE, TABLE = -1000, -100, 40, 45, 200, 600, 150
BULLA = -985


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tube:
    start: Floats
    end: Floats
    start_mm: float  # radius
    end_mm: float


def draw(
    axes: Axes,
    generator: np.random.Generator,
    *,
    lung_hu: int,
    vessels: int,
    bullae: int,
    table: bool,
    contrast_hu: int | None = None,
) -> tuple[Values, dict[str, Mask]]:
    """HU (slice, row, column) and the masks body, right_lung, left_lung and airway.

    `contrast_hu`: of blood with contrast agent; then also the masks of `_enhance`.
    """
    blood = BLOOD if contrast_hu is None else contrast_hu
    hu, truth = _solids(axes, lung_hu=lung_hu, table=table, blood=blood)
    lungs = truth["right_lung"] | truth["left_lung"]
    for tube in _vessel_tubes(generator, vessels):
        for piece in _pieces(tube):
            _paint(hu, _tube_mask(axes, piece), blood, within=lungs)
    if contrast_hu is not None:
        truth |= _enhance(hu, axes, contrast_hu)
    for ball in _bulla_spheres(generator, bullae):
        _paint(hu, _tube_mask(axes, ball), BULLA, within=lungs)
    airway = _airways(hu, axes)
    truth["airway"] = airway
    for side in ("right_lung", "left_lung"):
        truth[side] &= ~airway
    if contrast_hu is not None:
        truth["vessels"] = hu == contrast_hu
        truth |= {name: truth[name] & truth["vessels"] for name in LARGE}
    return hu, truth


def _solids(axes: Axes, *, lung_hu: int, table: bool, blood: int) -> tuple[Values, dict[str, Mask]]:
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    x, y = axes[2][None, :], axes[1][:, None]
    hu = np.full(shape, AIR, np.float32)
    truth = {name: np.zeros(shape, np.bool_) for name in ("body", "right_lung", "left_lung")}
    for index, z in enumerate(map(float, axes[0])):
        body = _ellipse(x, y, 175, 118) < 1
        lung = _lung(x, y, z)
        _solid_slice(hu[index], x, y, z, body=body, blood=blood)
        hu[index][lung] = lung_hu
        if table:
            hu[index][_table(x, y)] = TABLE
        truth["body"][index] = body
        truth["right_lung"][index] = lung & (x < 0)
        truth["left_lung"][index] = lung & (x > 0)
    return hu, truth


def _solid_slice(hu: Values, x: Floats, y: Floats, z: float, *, body: Mask, blood: int) -> None:
    hu[body] = FAT
    hu[_ellipse(x, y, 160, 104) < 1] = TISSUE
    hu[_ribs(x, y, z)] = CORTICAL_BONE
    spine = np.hypot(x, y - 72)
    hu[spine < 20] = CORTICAL_BONE if z % 30 > 6 else TISSUE  # vertebrae and discs
    hu[spine < 17] = SPONGY_BONE if z % 30 > 6 else TISSUE
    hu[np.hypot(x / 22, (y + 92) / 6) < 1] = SPONGY_BONE  # sternum
    hu[_heart(x, y, z) < 1] = blood


def _ellipse(x: Floats, y: Floats, across: float, along: float) -> Floats:
    return (x / across) ** 2 + (y / along) ** 2


def _ribs(x: Floats, y: Floats, z: float) -> Mask:
    shell = (_ellipse(x, y, 150, 97) > 1) & (_ellipse(x, y, 156, 102) < 1)
    ribs: Mask = shell & (((z + 0.35 * y) % 26.0) < 9.0)
    return ribs


def _heart(x: Floats, y: Floats, z: float) -> Floats:
    return ((x - 28) / 55) ** 2 + ((y + 25) / 48) ** 2 + ((z + 45) / 58) ** 2


def _lung(x: Floats, y: Floats, z: float) -> Mask:
    """Inside the rib cage, beside the mediastinum, between the diaphragm's domes and the apex."""
    rise = (z + 30) / 155 if z > -30 else (z + 30) / 400
    if abs(rise) >= 1:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.bool_)
    narrowing = float(np.sqrt(1 - rise**2))
    cage = _ellipse(x, y, 144 * narrowing, 90 * narrowing) < 1
    mediastinum = np.abs(x) < 26 + 6 * np.cos(y / 40)
    across = (np.abs(x) - 75) / 85
    dome = -75 - 45 * (across**2 + (y / 85) ** 2) + np.where(x < 0, 8, 0)  # right dome is higher
    around_spine = np.hypot(x, y - 72) < 26
    lung: Mask = cage & ~mediastinum & ~around_spine & (z > dome) & (_heart(x, y, z) > 1.08)
    return lung


def _table(x: Floats, y: Floats) -> Mask:
    sagging = 132 - (x / 220) ** 2 * 20
    table: Mask = (np.abs(x) < 200) & (y > sagging) & (y < sagging + 6)
    return table


CARINA = np.array([0.0, 22.0, 30.0])
LOBES = ((75, 10, 50), (85, -20, 0), (80, 45, -45))  # where lobar bronchi end, left side
HILA = (np.array([-48.0, 24.0, 2.0]), np.array([48.0, 24.0, 0.0]))


def _airway_tubes() -> list[_Tube]:
    top = np.array([0.0, 12.0, 400.0])
    tubes = [_Tube(start=top, end=CARINA, start_mm=9.0, end_mm=9.0)]
    for side, hilum in zip((-1, 1), HILA, strict=True):
        tubes.append(_Tube(start=CARINA, end=hilum, start_mm=7.5, end_mm=6.0))
        tips = [np.array(tip, float) for tip in LOBES]
        tubes += [
            _Tube(start=hilum, end=tip * (side, 1, 1), start_mm=4.5, end_mm=2.0) for tip in tips
        ]
    return tubes


WALL_MM = 1.5


def _airways(hu: Values, axes: Axes) -> Mask:
    lumen = np.zeros(hu.shape, np.bool_)
    for tube in _airway_tubes():
        wall = replace(tube, start_mm=tube.start_mm + WALL_MM, end_mm=tube.end_mm + WALL_MM)
        _paint(hu, _tube_mask(axes, wall), TISSUE)
        box, inside = _tube_mask(axes, tube)
        lumen[box] |= inside
    hu[lumen] = AIR
    return lumen


def _vessel_tubes(generator: np.random.Generator, count: int) -> list[_Tube]:
    """Branches that leave each hilum, thin out and fork once."""
    tubes = []
    for (side, hilum), _ in itertools.product(zip((-1, 1), HILA, strict=True), range(count)):
        target = np.array([side * generator.uniform(60, 130), *generator.uniform(-70, 70, 2)])
        radius = generator.uniform(1.5, 4.0)
        fork = hilum + (target - hilum) * generator.uniform(0.4, 0.7)
        tubes.append(_Tube(start=hilum, end=fork, start_mm=radius, end_mm=radius * 0.7))
        for _branch in range(2):
            tip = target + generator.uniform(-20, 20, 3)
            tubes.append(_Tube(start=fork, end=tip, start_mm=radius * 0.6, end_mm=0.7))
    return tubes


LARGE = {
    "aorta": (((30, 50, -400), (30, 50, 60), (26, -24, 60), (26, -25, -20)), 11.0),
    "superior_vena_cava": (((-24, -14, 400), (-24, -20, 0)), 8.0),
}
"""Points along the vessel, radius in mm."""
TUBES_MM = (1.0, 1.5, 2.0, 3.0, 4.0)
TUBES_Y = (-72, -59, -46, -31, -14)


def _enhance(hu: Values, axes: Axes, contrast_hu: int) -> dict[str, Mask]:
    """The vessels of LARGE, and tube_<radius> of each of TUBES_MM in front of the trachea."""
    truth = {name: _drawn(hu, axes, *course, contrast_hu) for name, course in LARGE.items()}
    for radius, y in zip(TUBES_MM, TUBES_Y, strict=True):
        course = ((-8, y, 18), (2, y + 4, 110))
        truth[f"tube_{radius}"] = _drawn(hu, axes, course, radius, contrast_hu)
    return truth


def _drawn(
    hu: Values, axes: Axes, course: tuple[tuple[int, ...], ...], radius: float, value: int
) -> Mask:
    inside = np.zeros(hu.shape, np.bool_)
    for start, end in itertools.pairwise(course):
        for piece in _pieces(_straight(start, end, radius)):
            box, mask = _tube_mask(axes, piece)
            inside[box] |= mask
    hu[inside] = value
    return inside


def _straight(start: tuple[int, ...], end: tuple[int, ...], radius: float) -> _Tube:
    return _Tube(
        start=np.array(start, float), end=np.array(end, float), start_mm=radius, end_mm=radius
    )


PIECE_MM = 10.0


def _pieces(tube: _Tube) -> list[_Tube]:
    """The tube as short ones, whose boxes hold little else."""
    count = max(1, int(np.linalg.norm(tube.end - tube.start) // PIECE_MM))
    parts = np.linspace(0, 1, count + 1)
    points = [tube.start + part * (tube.end - tube.start) for part in parts]
    radii = [tube.start_mm + part * (tube.end_mm - tube.start_mm) for part in parts]
    return [
        _Tube(start=points[i], end=points[i + 1], start_mm=radii[i], end_mm=radii[i + 1])
        for i in range(count)
    ]


def _bulla_spheres(generator: np.random.Generator, count: int) -> list[_Tube]:
    balls = []
    for side, _ in itertools.product((-1, 1), range(count)):
        centre = np.array([side * generator.uniform(55, 120), *generator.uniform(-60, 60, 2)])
        radius = float(generator.uniform(3, 10))
        balls.append(_Tube(start=centre, end=centre, start_mm=radius, end_mm=radius))
    return balls


def _tube_mask(axes: Axes, tube: _Tube) -> tuple[Box, Mask]:
    """The box around a tapered tube on an axial grid, and the tube inside it."""
    reach = max(tube.start_mm, tube.end_mm)
    low = np.minimum(tube.start, tube.end)[::-1] - reach
    high = np.maximum(tube.start, tube.end)[::-1] + reach
    bounds = [np.searchsorted(axis, [low[i], high[i]]) for i, axis in enumerate(axes)]
    box = (slice(*bounds[0]), slice(*bounds[1]), slice(*bounds[2]))
    z, y, x = np.meshgrid(*(axes[i][box[i]] for i in range(3)), indexing="ij")
    return box, _inside_tube(np.stack([x, y, z], axis=-1), tube)


def _inside_tube(points: Floats, tube: _Tube) -> Mask:
    along = tube.end - tube.start
    length = float(along @ along) or 1.0
    part = np.clip((points - tube.start) @ along / length, 0, 1)
    distance = np.linalg.norm(points - tube.start - part[..., None] * along, axis=-1)
    inside: Mask = distance < tube.start_mm + part * (tube.end_mm - tube.start_mm)
    return inside


def _paint(hu: Values, tube: tuple[Box, Mask], value: int, *, within: Mask | None = None) -> None:
    box, mask = tube
    hu[box][mask if within is None else mask & within[box]] = value
